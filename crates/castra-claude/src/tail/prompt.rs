//! What somebody typed, as the transcript has it, and whether it is a message that castra sent.

use crate::fact::{Decoded, Fact};
use crate::field::{items, string, text};
use crate::tail::Told;
use crate::terminal::typing::same_prompt;
use serde_json::Value;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As it is recorded; of several text blocks one after the other. See [`same_prompt`].
    pub text: String,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It begins a turn.
    Typed,
    /// It was typed while another turn ran, and now has its own.
    Queued,
    /// It was typed while a tool ran, and joins that turn.
    Joined,
    /// A slash command; it has no turn of its own, though what it makes of itself may have one.
    Command,
    /// A shell command of the composer's `!` mode.
    Shell,
    /// claude itself: a background task is over.
    System,
}

impl Prompt {
    pub(super) fn of(value: &Value) -> Option<Self> {
        if text(value, "type") == Some("attachment") {
            let attachment = &value["attachment"];
            let by_a_person = text(attachment, "commandMode").is_none_or(|mode| mode == "prompt");
            let source = if by_a_person { Source::Joined } else { Source::System };
            return Some(Self { text: said(&attachment["prompt"]), source });
        }
        if text(&value["origin"], "kind") == Some("task-notification") {
            return Some(Self { text: said(&value["message"]["content"]), source: Source::System });
        }
        if let Some(text) = crate::transcript::prompt(value) {
            let queued = self::text(value, "promptSource") == Some("queued");
            return Some(Self { text, source: if queued { Source::Queued } else { Source::Typed } });
        }
        // 2.1.197 has some commands as a line of the system's.
        let whole = string(&value["message"], "content").or_else(|| string(value, "content"))?;
        if let Some(command) = between(&whole, "<bash-input>", "</bash-input>") {
            return Some(Self { text: command.to_owned(), source: Source::Shell });
        }
        let name = between(&whole, "<command-name>", "</command-name>")?;
        let arguments = between(&whole, "<command-args>", "</command-args>").unwrap_or_default();
        let text = format!("{name} {arguments}").trim_end().to_owned();
        Some(Self { text, source: Source::Command })
    }
}

fn said(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| text(block, "text")).collect();
            texts.join("\n")
        }
        _ => items(content, "content").iter().filter_map(|block| text(block, "text")).collect(),
    }
}

fn between<'a>(whole: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let rest = &whole[whole.find(open)? + open.len()..];
    Some(&rest[..rest.find(close)?])
}

impl Told {
    /// The event; where it is the first of `sent` (message and text) that somebody typed, claude's own word that it
    /// has the message, as a replay is in a stream. The index of that message is the second.
    pub fn delivered(mut self, sent: &[(Uuid, &str)]) -> (Decoded, Option<usize>) {
        let Some(prompt) = self.prompt.take().filter(|prompt| prompt.source != Source::System) else {
            return (self.line, None);
        };
        let found = sent.iter().position(|(_, text)| same_prompt(text, &prompt.text));
        if let Some(index) = found {
            self.line.fact = Fact::UserReplay { uuid: Some(sent[index].0) };
        }
        (self.line, found)
    }
}
