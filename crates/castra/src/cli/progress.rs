//! What a person sees of a session's events: tool calls and their results as lines, text as it comes.
//! A pure function from events to pieces; where they are printed is `view`'s business.

use super::escape::{one_line, visible};
use super::out::Style;
use crate::client::Partial;
use castra_proto::{Event, Kind, MessageId, OwnKind};
use serde_json::Value;
use std::collections::HashSet;

/// Something to show. All text in it is harmless for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line of its own.
    Line(Style, String),
    /// The agent's words, continued by the next `Text`; not a whole line.
    Text(String),
    /// The message that `Text` belonged to is complete.
    EndText,
}

/// Follows one session.
#[derive(Debug)]
pub(super) struct Progress {
    width: usize,
    open: Option<Open>,
    last_text: String,
    /// The texts of `done_message` that were shown whole.
    done: Vec<String>,
    done_message: String,
    /// Messages of people are shown too.
    pub(super) show_input: bool,
    /// Messages that stand on the screen already: typed there.
    typed: HashSet<String>,
}

/// Text of a message that was shown before the message was complete.
#[derive(Debug)]
struct Open {
    message: String,
    block: u64,
    shown: String,
    /// So far it is the beginning of a text that was shown whole, and nothing of it is shown: a daemon that comes
    /// back may tell once more what it was told before.
    again: bool,
}

impl Progress {
    /// `width`: columns that a line may have.
    pub(super) fn new(width: usize) -> Self {
        Self {
            width,
            open: None,
            last_text: String::new(),
            done: Vec::new(),
            done_message: String::new(),
            show_input: false,
            typed: HashSet::new(),
        }
    }

    /// The agent's last words: of the message that is being written, else of the last complete one.
    pub(super) fn words_so_far(&self) -> &str {
        let open = self.open.as_ref().filter(|open| !open.again && !open.shown.is_empty());
        open.map_or(&self.last_text, |open| &open.shown)
    }

    /// The terminal has shown this message while it was typed.
    pub(super) fn typed_here(&mut self, message: MessageId) {
        self.typed.insert(message.to_string());
    }

    /// What was open is over.
    fn close(&mut self) -> Option<Piece> {
        self.open.take().filter(|open| !open.again).map(|_| Piece::EndText)
    }

    pub(super) fn partial(&mut self, partial: &Partial) -> Vec<Piece> {
        if partial.kind != "text" && !partial.kind.is_empty() {
            return Vec::new();
        }
        let mut pieces = Vec::new();
        let same = self
            .open
            .as_ref()
            .is_some_and(|open| open.message == partial.message && open.block == partial.block);
        if !same {
            pieces.extend(self.close());
            self.open = Some(Open {
                message: partial.message.clone(),
                block: partial.block,
                shown: String::new(),
                again: partial.message == self.done_message && !self.done.is_empty(),
            });
        }
        let Some(open) = &mut self.open else { return pieces };
        // After a reconnect the daemon begins again at an offset of its own; what was shown stays.
        let known = open.shown.len().checked_sub(usize::try_from(partial.offset).unwrap_or(usize::MAX));
        if let Some(new) = known.and_then(|known| partial.text.get(known..)).filter(|new| !new.is_empty()) {
            open.shown.push_str(new);
            if !open.again {
                pieces.push(Piece::Text(visible(new).into_owned()));
            } else if !self.done.iter().any(|done| done.starts_with(&open.shown)) {
                open.again = false;
                pieces.push(Piece::Text(visible(&open.shown).into_owned()));
            }
        }
        pieces
    }

    pub(super) fn event(&mut self, event: &Event) -> Vec<Piece> {
        let Ok(data) = serde_json::from_str::<Value>(event.data.get()) else { return Vec::new() };
        match &event.kind {
            Kind::Claude(kind) => match &**kind {
                "assistant" => self.assistant(&data),
                "user" => self.tool_results(&data),
                "system" => self.system(&data),
                "result" => self.close().into_iter().collect(),
                _ => Vec::new(),
            },
            Kind::Own(own) => self.own(*own, &data),
        }
    }

    fn assistant(&mut self, data: &Value) -> Vec<Piece> {
        let inner = data["parent_tool_use_id"].is_string();
        let mut pieces = Vec::new();
        let id = str_of(&data["message"], "id");
        if !inner && id != self.done_message {
            self.done_message = id.to_owned();
            self.done.clear();
        }
        for block in data["message"]["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("text") if !inner => self.text(str_of(block, "text"), &mut pieces),
                Some("tool_use") => {
                    pieces.extend(self.close());
                    let indent = if inner { "  " } else { "" };
                    let name = tool_name(str_of(block, "name"));
                    let room = self.width.saturating_sub(indent.len() + name.chars().count() + 4);
                    let argument = one_line(&argument(&block["input"]), room);
                    let line = format!("{indent}● {name}  {argument}");
                    pieces.push(Piece::Line(Style::Green, line.trim_end().to_owned()));
                }
                _ => {}
            }
        }
        pieces
    }

    /// A complete text block: what was not shown of it yet.
    fn text(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        self.last_text = text.to_owned();
        self.done.push(text.to_owned());
        let rest = match self.open.take().filter(|open| !open.again) {
            Some(open) => match text.strip_prefix(open.shown.as_str()) {
                Some(rest) => rest,
                None => {
                    pieces.push(Piece::EndText);
                    text
                }
            },
            None => text,
        };
        if !rest.is_empty() {
            pieces.push(Piece::Text(visible(rest).into_owned()));
        }
        pieces.push(Piece::EndText);
    }

    fn tool_results(&self, data: &Value) -> Vec<Piece> {
        if data["isReplay"] == true || data["isMeta"] == true {
            return Vec::new();
        }
        let indent = if data["parent_tool_use_id"].is_string() { "  " } else { "" };
        let blocks = data["message"]["content"].as_array().into_iter().flatten();
        blocks
            .filter(|block| block["type"] == "tool_result")
            .map(|block| {
                let text = result_text(&block["content"]);
                let failed = block["is_error"] == true;
                let line = format!(
                    "{indent}  ⎿ {}{}",
                    if failed { "failed: " } else { "" },
                    summary(&text, self.width.saturating_sub(20 + indent.len()))
                );
                Piece::Line(if failed { Style::Red } else { Style::Dim }, line)
            })
            .collect()
    }

    fn system(&self, data: &Value) -> Vec<Piece> {
        let line = match data["subtype"].as_str() {
            Some("api_retry") => {
                let why = match (&data["error_status"], str_of(data, "error")) {
                    (Value::Number(status), error) => format!("{status} {error}"),
                    (_, error) => error.to_owned(),
                };
                format!(
                    "the model's API failed ({}); try {} of {}",
                    one_line(&why, 60),
                    data["attempt"],
                    data["max_retries"]
                )
            }
            Some("permission_denied") => format!(
                "denied by rule: {} {}",
                one_line(str_of(data, "tool_name"), 40),
                one_line(str_of(data, "message"), self.width.saturating_sub(40))
            ),
            Some("compact_boundary") => "the conversation was compacted".into(),
            _ => return Vec::new(),
        };
        vec![Piece::Line(Style::Yellow, line)]
    }

    fn own(&mut self, own: OwnKind, data: &Value) -> Vec<Piece> {
        let line = |style, text: String| vec![Piece::Line(style, one_line(&text, self.width))];
        match own {
            OwnKind::InputAccepted if self.show_input => {
                if self.typed.remove(str_of(data, "message_id")) {
                    return Vec::new();
                }
                let who = one_line(str_of(data, "by"), 40);
                line(Style::Bold, format!("{who}> {}", str_of(data, "text")))
            }
            OwnKind::PermissionAnswered => {
                let verb = match data["answer"]["behavior"].as_str() {
                    Some("allow") => "allowed",
                    Some("deny") => "denied",
                    // Withdrawn by claude, or its run was over.
                    _ => "not needed any more",
                };
                let by = str_of(data, "by");
                let line =
                    one_line(&format!("{verb}{}{by}", if by.is_empty() { "" } else { " by " }), self.width);
                vec![Piece::Line(Style::Dim, format!("  ⎿ {line}"))]
            }
            OwnKind::Idle => {
                line(Style::Dim, "nothing has been heard for a while; it is still running".into())
            }
            OwnKind::Limit => line(Style::Yellow, format!("limit reached: {}", str_of(data, "limit"))),
            OwnKind::Resumed => line(Style::Dim, "the conversation continues".into()),
            OwnKind::Exit => {
                let mut pieces: Vec<Piece> = self.close().into_iter().collect();
                let cause = str_of(data, "cause");
                if !matches!(cause, "" | "stopped" | "finished") {
                    pieces.push(Piece::Line(Style::Red, format!("claude ended: {}", one_line(cause, 40))));
                }
                pieces
            }
            _ => Vec::new(),
        }
    }
}

fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// `mcp__server__tool` as `server:tool`.
pub(super) fn tool_name(name: &str) -> String {
    let shown = match name.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
        Some((server, tool)) => format!("{server}:{tool}"),
        None => name.to_owned(),
    };
    one_line(&shown, 60)
}

/// The argument that says most about a tool call; the whole input where none is known.
pub(super) fn argument(input: &Value) -> String {
    const TELLING: [&str; 10] = [
        "command",
        "file_path",
        "notebook_path",
        "pattern",
        "query",
        "url",
        "path",
        "skill",
        "description",
        "prompt",
    ];
    if let Some(text) = TELLING.iter().find_map(|key| input[*key].as_str()) {
        return text.to_owned();
    }
    if let Some(question) = input["questions"][0]["question"].as_str() {
        return question.to_owned();
    }
    match input {
        Value::Object(fields) if fields.is_empty() => String::new(),
        Value::Null => String::new(),
        input => input.to_string(),
    }
}

fn result_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks
                .iter()
                .map(|block| match block["type"].as_str() {
                    Some("text") => str_of(block, "text"),
                    Some("image") => "(image)",
                    _ => "",
                })
                .filter(|text| !text.is_empty())
                .collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// The first line that says anything, and how many more there are.
fn summary(text: &str, width: usize) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.count()) {
        (None, _) => "(no output)".into(),
        (Some(first), 0) => one_line(first, width),
        (Some(first), 1) => format!("{} (+1 line)", one_line(first, width)),
        (Some(first), more) => format!("{} (+{more} lines)", one_line(first, width)),
    }
}

/// An event in one line, for `castra logs`.
pub(super) fn describe(event: &Event, width: usize) -> String {
    let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
    let text = match event.kind.as_str() {
        "assistant" | "user" => blocks_in_short(&data["message"]["content"]),
        "result" => match data["result"].as_str() {
            Some(text) => format!("{}: {text}", str_of(&data, "subtype")),
            None => format!("{} {}", str_of(&data, "subtype"), data["errors"]),
        },
        "system" => str_of(&data, "subtype").to_owned(),
        "state" => {
            format!("{} → {} ({})", str_of(&data, "from"), str_of(&data, "to"), str_of(&data, "cause"))
        }
        "input_accepted" => str_of(&data, "text").to_owned(),
        "permission_requested" => format!("{} {}", str_of(&data, "tool"), argument(&data["input"])),
        _ => event.data.get().to_owned(),
    };
    one_line(&text, width)
}

fn blocks_in_short(content: &Value) -> String {
    let Value::Array(blocks) = content else { return result_text(content) };
    let parts: Vec<String> = blocks
        .iter()
        .map(|block| match block["type"].as_str().unwrap_or_default() {
            "text" => str_of(block, "text").to_owned(),
            "tool_use" => format!("● {} {}", tool_name(str_of(block, "name")), argument(&block["input"])),
            "tool_result" => format!("⎿ {}", result_text(&block["content"])),
            other => format!("({other})"),
        })
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests;
