//! What became of a message when claude died: whether it is in the transcript, answered, a tool in flight.

use super::{is_main, prompt, records};
use crate::decode::is_synthetic;
use crate::field::{flag, items, text};
use memchr::memmem;
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

/// In what a message's uuid was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A `user` record: it was, or is, the prompt of a turn.
    User,
    /// An attachment: it joined a turn that was running a tool.
    Attachment,
}

/// Whether claude has written down the message. Only then it is delivered; claude keeps the last uuid only of
/// messages that it merged, which is why castra has one undelivered message inside it at a time.
pub fn find_uuid(transcript: &[u8], uuid: Uuid) -> Option<Found> {
    let name = uuid.to_string();
    // The uuid is also in every record that follows it; only lines that hold it are read.
    let lines = transcript.split(|byte| *byte == b'\n');
    let mut holding = lines.filter(|line| memmem::find(line, name.as_bytes()).is_some());
    holding.find_map(|line| is_message(&serde_json::from_slice(line).ok()?, &name))
}

fn is_message(record: &Value, name: &str) -> Option<Found> {
    match text(record, "type")? {
        "user" if text(record, "uuid") == Some(name) => Some(Found::User),
        "attachment" if text(&record["attachment"], "source_uuid") == Some(name) => Some(Found::Attachment),
        _ => None,
    }
}

/// What became of the turn that a message belongs to, when claude died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoff {
    /// The turn came to its end: with an answer, an API error, or an interrupt.
    pub answered: bool,
    /// A tool was called and no result of it is on disk: it may have run.
    pub tool_in_flight: bool,
}

/// None: the transcript does not know the message.
pub fn cutoff(transcript: &[u8], uuid: Uuid) -> Option<Cutoff> {
    let name = uuid.to_string();
    let mut rest = records(transcript).skip_while(|record| is_message(record, &name).is_none());
    let message = rest.next()?;
    // An attachment joined a turn whose earlier calls are before it.
    let mut calls = match is_message(&message, &name) {
        Some(Found::Attachment) => calls_before(transcript, &name),
        _ => BTreeSet::new(),
    };
    let mut answered = false;
    for record in rest.filter(is_main) {
        match text(&record, "type") {
            Some("assistant") => {
                answered = ends_turn(&record);
                calls.extend(ids(&record, "tool_use", "id"));
            }
            Some("user") if prompt(&record).is_some() => break,
            Some("user") => {
                for id in ids(&record, "tool_result", "tool_use_id") {
                    calls.remove(&id);
                }
                answered |= is_interrupted(&record);
            }
            _ => {}
        }
    }
    Some(Cutoff { answered, tool_in_flight: !answered && !calls.is_empty() })
}

fn calls_before(transcript: &[u8], name: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for record in records(transcript).take_while(|record| is_message(record, name).is_none()).filter(is_main)
    {
        if prompt(&record).is_some() {
            calls.clear();
        }
        calls.extend(ids(&record, "tool_use", "id"));
        for id in ids(&record, "tool_result", "tool_use_id") {
            calls.remove(&id);
        }
    }
    calls
}

fn ids<'a>(record: &'a Value, kind: &'a str, field: &'a str) -> impl Iterator<Item = String> + 'a {
    let blocks = items(&record["message"], "content").iter();
    blocks
        .filter(move |block| text(block, "type") == Some(kind))
        .filter_map(move |b| text(b, field))
        .map(str::to_owned)
}

/// On disk a record has the final stop reason, unlike in the stream; one that was cut off has none.
fn ends_turn(record: &Value) -> bool {
    if flag(record, "isApiErrorMessage") {
        return true;
    }
    // "No response requested.", which a resume puts behind a turn that was cut off, is no answer.
    !is_synthetic(record)
        && text(&record["message"], "stop_reason")
            .is_some_and(|reason| !matches!(reason, "tool_use" | "pause_turn"))
}

fn is_interrupted(record: &Value) -> bool {
    let message = &record["message"];
    let texts = items(message, "content").iter().filter_map(|block| text(block, "text"));
    texts.chain(text(message, "content")).any(crate::decode::is_interrupt)
}
