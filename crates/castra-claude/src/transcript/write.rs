//! A transcript by hand that `--resume` accepts.

use serde_json::{Value, json};
use uuid::Uuid;

/// One message of a conversation that is to be continued.
#[derive(Clone, Debug, PartialEq)]
pub enum Spoken {
    User(Vec<Value>),
    Assistant(Vec<Value>),
}

/// The bytes of a transcript for `session`, every record stamped with `timestamp` (RFC 3339).
///
/// What claude asks of it was measured (facts/seed-packages.md §3): a chain without gaps, a timestamp, block lists,
/// a `model` (without one `-p --resume` hangs for ever; a known one is adopted by the session), LF at the end
/// (else claude glues its next record to the last one). Thinking is left out: without its signature the API
/// refuses it. Empty messages are left out too.
pub fn write(session: Uuid, cwd: &str, model: &str, timestamp: &str, messages: &[Spoken]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parent = None;
    for (number, message) in messages.iter().enumerate() {
        let (role, blocks) = match message {
            Spoken::User(blocks) => ("user", blocks),
            Spoken::Assistant(blocks) => ("assistant", blocks),
        };
        let content: Vec<&Value> = blocks.iter().filter(|block| is_kept(block)).collect();
        if content.is_empty() {
            continue;
        }
        let uuid = Uuid::new_v5(&session, &(number as u64).to_be_bytes());
        let mut body = json!({"role": role, "content": content});
        if role == "assistant" {
            body["model"] = json!(model);
        }
        let record = json!({
            "type": role,
            "uuid": uuid,
            "parentUuid": parent,
            "timestamp": timestamp,
            "sessionId": session,
            "cwd": cwd,
            "isSidechain": false,
            "message": body,
        });
        bytes.extend_from_slice(record.to_string().as_bytes());
        bytes.push(b'\n');
        parent = Some(uuid);
    }
    bytes
}

fn is_kept(block: &Value) -> bool {
    match block["type"].as_str() {
        Some("thinking" | "redacted_thinking") | None => false,
        Some("text") => block["text"].as_str().is_some_and(|text| !text.trim().is_empty()),
        Some(_) => true,
    }
}
