//! One line of the log: what it says. Refuses to know the lines around it.

use super::table::{Form, Row, TABLE};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a page's address.
const MAX_URL: usize = 8192;

/// The keywords that a task must ask for. The others are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enabled {
    /// `BROWSER`.
    pub browser: bool,
    /// `CLIENT_MESSAGE`.
    pub client_messages: bool,
    /// `CALLER_MESSAGE`.
    pub caller_messages: bool,
}

/// What a line of the log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Said {
    Status {
        /// 0 to 100.
        percent: Option<u8>,
        message: String,
    },
    /// As the agent wrote it, unchecked.
    Deliverable {
        path: String,
    },
    Attention {
        reason: String,
    },
    Browser {
        url: String,
    },
    ClientMessage {
        name: String,
        data: Value,
    },
    CallerMessage {
        name: String,
        data: Value,
    },
    Done {
        summary: Option<String>,
    },
    Error {
        message: Option<String>,
    },
    /// No keyword: a line of text.
    Progress {
        text: String,
    },
    /// `DONE` or `ERROR` amid a text. It ends nothing.
    Stray {
        text: String,
    },
}

impl Said {
    /// Whether it ends the task.
    pub fn ends(&self) -> bool {
        matches!(self, Said::Done { .. } | Said::Error { .. })
    }
}

/// What `line` says, by itself; `None` if it is blank. White space at its end (a CR, too) is no part of it, white
/// space at its beginning makes it a line of text.
pub fn parse(line: &str, enabled: &Enabled) -> Option<Said> {
    let line = line.trim_end();
    if line.is_empty() {
        return None;
    }
    let said = TABLE.iter().filter(|row| row.enabled(enabled)).find_map(|row| row.read(line));
    Some(said.unwrap_or_else(|| Said::Progress { text: line.to_owned() }))
}

impl Row {
    /// `line` has no white space at its end.
    fn read(&self, line: &str) -> Option<Said> {
        let rest = line.strip_prefix(self.word)?;
        let value = match (rest.strip_prefix(':'), self.form) {
            (Some(value), _) => value.trim_start(),
            (None, Form::End(_)) if rest.is_empty() => "",
            (None, _) => return None,
        };
        let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        match self.form {
            Form::Progress(said) => {
                let (percent, message) = percent(value);
                Some(said(percent, message.to_owned()))
            }
            Form::Text(said) => some(value).map(said),
            Form::Quoted(said) => some(value.trim_matches('"')).filter(|url| is_page(url)).map(said),
            Form::End(said) => Some(said(some(value))),
            Form::Message(said) => {
                let (name, json) = value.split_once(char::is_whitespace)?;
                Some(said(name.to_owned(), serde_json::from_str(json).ok()?))
            }
        }
    }
}

/// What a person's browser can be sent to without harm: no script, no file, nothing that is longer than it looks.
fn is_page(url: &str) -> bool {
    let scheme = |scheme: &str| {
        url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && url.len() > scheme.len()
    };
    (scheme("http://") || scheme("https://")) && url.len() <= MAX_URL && !url.chars().any(char::is_control)
}

/// One to three digits, `%`, white space: a percentage, at most 100, and what follows. Anything else is all message.
fn percent(value: &str) -> (Option<u8>, &str) {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = value.split_at(digits);
    let message = rest.strip_prefix('%').filter(|rest| rest.starts_with(char::is_whitespace));
    match (digits, message, number.parse::<u16>()) {
        (1..=3, Some(message), Ok(number)) => (Some(number.min(100) as u8), message.trim_start()),
        _ => (None, value),
    }
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
