//! One record of a transcript, read as far as its order and its turn need it. Refuses to judge.

use crate::decode::{is_interrupt, is_synthetic};
use crate::fact::{Decoded, Fact};
use crate::field::{flag, items, string, text, uuid};
use crate::line::{LineId, StreamIn};
use crate::transcript::is_main;
use bytes::Bytes;
use castra_proto::{Kind, Timestamp};
use serde_json::Value;
use uuid::Uuid;

/// Types that are claude's own bookkeeping: state, and no events, as `stream_event` lines are none of a stream.
/// They stay in the record log and in the transcript. On 2.1.329 they are nine tenths of a transcript's bytes.
pub(crate) const BOOKKEEPING: [&str; 17] = [
    "ai-title",
    "agent-name",
    "api-request",
    "api-request-blob",
    "api-request-shape",
    "atis-latch",
    "custom-title",
    "file-history-delta",
    "file-history-snapshot",
    "last-prompt",
    "mode",
    "permission-mode",
    "queue-operation",
    "summary",
    "tag",
    "task-summary",
    "tools-used",
];

/// What a record is to its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Something that somebody said, or a task's end: begins a turn.
    Prompt,
    Assistant,
    /// claude's own words that answer nothing: "No response requested.".
    Filler,
    /// The API failed, or claude refused.
    ApiError,
    ToolResult,
    /// `[Request interrupted by user]`.
    Interrupt,
    /// `system/turn_duration`.
    TurnEnd,
    /// A link of the chain that is no event: most attachments.
    Link,
    /// `last-prompt`: where claude thinks that the conversation ends.
    Leaf,
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stream: StreamIn,
    pub(super) offset: u64,
    pub(super) at: u64,
    pub(super) kind: Kind,
    pub(super) value: Value,
    pub(super) bytes: Bytes,
    pub(super) uuid: Option<Uuid>,
    pub(super) parent: Option<Uuid>,
    /// The subagent whose transcript this is.
    pub(super) agent: Option<String>,
    pub(super) role: Role,
    /// Its own `timestamp`.
    pub(super) written: Option<Timestamp>,
}

impl Entry {
    /// None: bookkeeping.
    pub(super) fn read(
        stream: StreamIn,
        offset: u64,
        at: u64,
        kind: Kind,
        value: Value,
        bytes: Bytes,
    ) -> Option<Self> {
        let name = text(&value, "type")?;
        if name != "last-prompt" && BOOKKEEPING.contains(&name) {
            return None;
        }
        let agent = (!is_main(&value)).then(|| string(&value, "agentId").unwrap_or_default());
        Some(Self {
            stream,
            offset,
            at,
            uuid: uuid(&value, "uuid"),
            parent: uuid(&value, "parentUuid"),
            role: role(name, &value),
            written: value.get("timestamp").and_then(|time| serde_json::from_value(time.clone()).ok()),
            kind,
            agent,
            value,
            bytes,
        })
    }

    /// It makes no sense before what it hangs on.
    pub(super) fn needs_parent(&self) -> bool {
        !matches!(self.role, Role::Prompt | Role::Other | Role::Leaf)
    }

    pub(super) fn session_id(&self) -> Option<Uuid> {
        uuid(&self.value, "sessionId")
    }

    /// The event. `seq` is the record that releases it.
    pub(super) fn into_decoded(self, seq: u64) -> Decoded {
        let session_id = self.session_id();
        let name = text(&self.value, "type").unwrap_or_default().to_owned();
        let mut fact = crate::decode::fact(&name, self.value);
        match &mut fact {
            Fact::Assistant(assistant) => assistant.parent_tool_use_id = self.agent,
            Fact::User(user) => user.parent_tool_use_id = self.agent,
            // The transcript repeats nobody's message.
            Fact::UserReplay { .. } => fact = Fact::Other,
            _ => {}
        }
        Decoded {
            line: LineId { stream: self.stream, offset: self.offset },
            record_seq: seq,
            at: self.at,
            kind: self.kind,
            data: self.bytes,
            json: true,
            raw: None,
            note: None,
            session_id,
            fact,
        }
    }
}

fn role(name: &str, value: &Value) -> Role {
    match name {
        "last-prompt" => Role::Leaf,
        "assistant" if flag(value, "isApiErrorMessage") => Role::ApiError,
        "assistant" if is_synthetic(value) => Role::Filler,
        "assistant" => Role::Assistant,
        "user" => user(value),
        "system" if text(value, "subtype") == Some("turn_duration") => Role::TurnEnd,
        "attachment" if text(&value["attachment"], "type") != Some("queued_command") => Role::Link,
        _ => Role::Other,
    }
}

fn user(value: &Value) -> Role {
    let message = &value["message"];
    let blocks = items(message, "content");
    if blocks.iter().any(|block| text(block, "type") == Some("tool_result")) {
        return Role::ToolResult;
    }
    let said = blocks.iter().filter_map(|block| text(block, "text")).chain(text(message, "content"));
    if said.into_iter().any(is_interrupt) {
        return Role::Interrupt;
    }
    let task = text(&value["origin"], "kind") == Some("task-notification");
    if is_main(value) && !flag(value, "isMeta") && (task || crate::transcript::prompt(value).is_some()) {
        return Role::Prompt;
    }
    Role::Other
}
