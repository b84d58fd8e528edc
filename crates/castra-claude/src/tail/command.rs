//! Slash commands that begin no turn: what they say of themselves, and the result that this comes to.

use super::turn::synthetic;
use crate::fact::Decoded;
use crate::field::{string, text};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a transcript's line says that a slash command printed.
pub fn command_output(line: &[u8]) -> Option<String> {
    let has = |mark: &str| memchr::memmem::find(line, mark.as_bytes()).is_some();
    if !has("<local-command-std") && !has("\"informational\"") {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let said = match text(&value, "type")? {
        // That there is no such command.
        "system" if text(&value, "subtype") == Some("informational") => {
            return string(&value, "content").map(|said| plain(&said));
        }
        "system" => string(&value, "content"),
        "user" => string(&value["message"], "content"),
        _ => None,
    }?;
    ["stdout", "stderr"].iter().find_map(|stream| {
        let (open, close) = (format!("<local-command-{stream}>"), format!("</local-command-{stream}>"));
        let rest = said.strip_prefix(open.as_str())?;
        Some(plain(rest.strip_suffix(close.as_str()).unwrap_or(rest)))
    })
}

/// Without colours.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        rest = rest[at + 2..].trim_start_matches(|c: char| !('@'..='~').contains(&c));
        rest = rest.get(1..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain.trim().to_owned()
}

/// The `result` event of a slash command that began no turn. A stream session has one too, of claude's own.
pub fn command_result(output: &str, session: Option<Uuid>, when: (u64, u64)) -> Decoded {
    let data = json!({
        "type": "result",
        "subtype": "success",
        "is_error": false,
        "duration_ms": 0,
        "num_turns": 0,
        "result": output,
        "session_id": session,
        "usage": {},
        "terminal_reason": "completed",
        "synthetic": true,
    });
    synthetic("result", data, session, when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_printed() {
        let user = |content: &str| json!({"type": "user", "message": {"content": content}}).to_string();
        let system = |content: &str| json!({"type": "system", "content": content}).to_string();
        let said = "<local-command-stdout>Set model to \u{1b}[1mSonnet 5\u{1b}[22m</local-command-stdout>";
        for (line, output) in [
            (user(said), Some("Set model to Sonnet 5")),
            (system(said), Some("Set model to Sonnet 5")),
            (user("<local-command-stderr>no</local-command-stderr>"), Some("no")),
            (user("<local-command-stdout></local-command-stdout>"), Some("")),
            (
                json!({"type": "system", "subtype": "informational", "content": "Unknown command: /x"})
                    .to_string(),
                Some("Unknown command: /x"),
            ),
            (user("what is <local-command-stdout>?"), None),
            (user("hello"), None),
            ("<local-command-stdout>".to_owned(), None),
        ] {
            assert_eq!(command_output(line.as_bytes()).as_deref(), output, "{line}");
        }
    }
}
