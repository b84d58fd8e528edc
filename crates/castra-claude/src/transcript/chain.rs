//! The conversation in a transcript: the records on the way from its leaf to its root, and what hangs on them.

use super::{is_main, prompt, records};
use crate::field::{items, string, text, uuid};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// One record of a conversation as an event for the session that adopts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub uuid: Option<Uuid>,
    /// RFC 3339, as claude wrote it.
    pub timestamp: Option<String>,
    /// claude's type: `user` or `assistant`.
    pub kind: &'static str,
    /// A line as stdout would have had it, without newline.
    pub line: Vec<u8>,
}

/// The records of the conversation that ends the transcript, oldest first.
///
/// Follows `parentUuid` from the last main record, across compactions by `logicalParentUuid`. Results of parallel
/// calls hang beside the way; they belong to it. Branches that were left (a rewind, a second process) do not.
pub fn conversation(transcript: &[u8]) -> Vec<Value> {
    let all: Vec<Value> = records(transcript).filter(is_main).collect();
    let index: HashMap<&str, usize> =
        all.iter().enumerate().filter_map(|(at, record)| Some((text(record, "uuid")?, at))).collect();
    let leaf = all.iter().rposition(|record| {
        matches!(text(record, "type"), Some("user" | "assistant" | "attachment" | "system"))
            && text(record, "uuid").is_some()
    });

    let mut way = HashSet::new();
    let mut next = leaf;
    // A uuid that was seen ends the walk: a damaged file may hold a circle.
    while let Some(at) = next.filter(|at| way.insert(*at)) {
        let record = &all[at];
        let parent = text(record, "parentUuid").or_else(|| text(record, "logicalParentUuid"));
        next = parent.and_then(|parent| index.get(parent)).copied();
    }
    let calls: HashSet<&str> = way
        .iter()
        .flat_map(|at| items(&all[*at]["message"], "content"))
        .filter(|block| text(block, "type") == Some("tool_use"))
        .filter_map(|block| text(block, "id"))
        .collect();
    let results = |record: &Value| {
        let mut blocks = items(&record["message"], "content").iter();
        blocks.any(|block| text(block, "tool_use_id").is_some_and(|id| calls.contains(id)))
    };
    let kept: Vec<bool> =
        all.iter().enumerate().map(|(at, record)| way.contains(&at) || results(record)).collect();
    all.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(record, _)| record).collect()
}

/// The conversation as events: what was said, called and answered; without claude's own notes.
pub fn imported(transcript: &[u8]) -> Vec<Entry> {
    conversation(transcript).into_iter().filter_map(entry).collect()
}

fn entry(record: Value) -> Option<Entry> {
    let (kind, message) = match text(&record, "type")? {
        "assistant" => ("assistant", record["message"].clone()),
        "user" => {
            let blocks = items(&record["message"], "content");
            let answers = blocks.iter().any(|block| text(block, "type") == Some("tool_result"));
            if !answers && prompt(&record).is_none() {
                return None;
            }
            ("user", record["message"].clone())
        }
        "attachment" if text(&record["attachment"], "type") == Some("queued_command") => {
            let attachment = &record["attachment"];
            let by_a_person = text(attachment, "commandMode").is_none_or(|mode| mode == "prompt");
            if !by_a_person {
                return None;
            }
            ("user", json!({"role": "user", "content": attachment["prompt"]}))
        }
        _ => return None,
    };
    // A message that joined a turn is known by its own uuid, not by the attachment's.
    let uuid = uuid(&record["attachment"], "source_uuid").or_else(|| uuid(&record, "uuid"));
    let line = json!({
        "type": kind,
        "message": message,
        "parent_tool_use_id": null,
        "session_id": record["sessionId"],
        "uuid": uuid,
        "timestamp": record["timestamp"],
    });
    Some(Entry { uuid, timestamp: string(&record, "timestamp"), kind, line: line.to_string().into_bytes() })
}
