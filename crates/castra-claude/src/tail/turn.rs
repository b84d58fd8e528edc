//! A turn that is open: what it has cost, said and called so far, and the result event that it comes to.

use super::sum::add;
use crate::fact::Decoded;
use crate::field::{items, number, string, text};
use crate::line::{LineId, StreamIn};
use crate::price::cost_usd;
use bytes::Bytes;
use castra_proto::Kind;
use serde_json::{Value, json};
use uuid::Uuid;

/// A tool call that has no result yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub id: String,
    pub tool: String,
    pub input: Value,
    /// Set: a subagent's.
    pub agent: Option<String>,
}

/// How a turn came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// claude's own figure, if it gave one; milliseconds.
    Over { duration_ms: Option<u64> },
    /// By Esc, as a record says.
    Interrupted,
    /// claude is idle, or takes another prompt, and no record says how this one ended.
    Unmarked,
}

/// One message of the model's.
#[derive(Clone, Debug)]
struct Answer {
    id: String,
    model: String,
    usage: Value,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// The record that began it.
    pub(super) began: Option<Uuid>,
    pub(super) at: u64,
    pub(super) session: Option<Uuid>,
    /// What began it, where that was no person.
    origin: Option<Value>,
    /// Ids of its messages and their usage, which each of a message's records repeats.
    messages: Vec<Answer>,
    text: String,
    stop_reason: Option<String>,
    /// The last thing said is that the API failed: its record, status.
    failed: Option<(Option<Uuid>, Option<u16>)>,
    /// A tool was called, and the model has not spoken since.
    in_tool: bool,
}

impl Turn {
    pub(super) fn begin(value: &Value, uuid: Option<Uuid>, session: Option<Uuid>, at: u64) -> Self {
        let origin = value.get("origin").filter(|origin| text(origin, "kind") != Some("human")).cloned();
        Self { began: uuid, at, session, origin, ..Self::default() }
    }

    /// Takes an assistant's record of the main conversation.
    pub(super) fn assistant(&mut self, value: &Value, uuid: Option<Uuid>, is_error: bool) {
        let message = &value["message"];
        let id = string(message, "id").unwrap_or_default();
        match self.messages.last_mut().filter(|last| last.id == id) {
            Some(last) => last.usage = message["usage"].clone(),
            None => {
                let model = string(message, "model").unwrap_or_default();
                self.messages.push(Answer { id, model, usage: message["usage"].clone() });
                self.text.clear();
            }
        }
        let blocks = items(message, "content");
        for said in blocks.iter().filter_map(|block| text(block, "text")) {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(said);
        }
        self.in_tool = blocks.iter().any(|block| text(block, "type") == Some("tool_use"));
        self.stop_reason = string(message, "stop_reason");
        self.failed =
            is_error.then(|| (uuid, number(value, "apiErrorStatus").or_else(|| status(&self.text))));
    }

    /// The model has said its last word in it, or has failed to.
    pub(super) fn is_answered(&self) -> bool {
        self.failed.is_some() || self.stop_reason.as_deref().is_some_and(|reason| reason != "tool_use")
    }

    /// It ended with the record `leaf`: the API failed, and claude waits again. 2.1.329 writes no `turn_duration` then.
    pub(super) fn failed_at(&self, leaf: Uuid) -> bool {
        self.failed.is_some_and(|(record, _)| record == Some(leaf))
    }

    /// The `result` event, as a stream would have had it, marked as `synthetic`. Its cost is reckoned: a terminal's
    /// transcript has none but for the whole process, at its end (`cost-state`, 2.1.329).
    pub(super) fn result(self, end: End, when: (u64, u64)) -> Decoded {
        let mut usage = json!({});
        self.messages.iter().for_each(|one| add(&mut usage, &one.usage));
        let costs = self.messages.iter().filter_map(|one| cost_usd(&one.model, &one.usage));
        let cost = costs.reduce(|sum, one| sum + one);
        let duration_ms = match end {
            End::Over { duration_ms: Some(duration_ms) } => duration_ms,
            _ => when.1.saturating_sub(self.at) / 1_000_000,
        };
        let cut_off = match end {
            End::Over { .. } => false,
            End::Interrupted => true,
            // A later CLI may have another sign of an end; what was answered was answered.
            End::Unmarked => !self.is_answered(),
        };
        let name = self.began.unwrap_or_default();
        let mut data = json!({
            "type": "result",
            "subtype": if cut_off { "error_during_execution" } else { "success" },
            "is_error": cut_off || self.failed.is_some() || self.stop_reason.as_deref() == Some("refusal"),
            "duration_ms": duration_ms,
            "num_turns": self.messages.len().max(1),
            "stop_reason": self.stop_reason,
            "session_id": self.session,
            "usage": usage,
            "uuid": Uuid::new_v5(&name, b"castra result"),
            "synthetic": true,
        });
        if cut_off {
            let reason = if self.in_tool { "aborted_tools" } else { "aborted_streaming" };
            data["terminal_reason"] = json!(reason);
            data["errors"] = json!([match (end, self.messages.is_empty()) {
                (End::Interrupted, _) => "interrupted by the user",
                (_, true) => "taken back before claude had answered",
                (_, false) => "it has no end in the transcript",
            }]);
        } else {
            data["terminal_reason"] = json!("completed");
            data["result"] = json!(self.text);
        }
        if let Some(cost) = cost {
            data["estimated_cost_usd"] = json!(cost);
        }
        if let Some((_, Some(status))) = self.failed {
            data["api_error_status"] = json!(status);
        }
        if let Some(origin) = self.origin {
            data["origin"] = origin;
        }
        synthetic("result", data, self.session, when)
    }
}

/// The status of an API error that only its text tells; claude's own words begin so.
fn status(said: &str) -> Option<u16> {
    said.strip_prefix("API Error: ")?.get(..3)?.parse().ok()
}

/// An event that castra makes where claude's stream would have had a line.
pub(super) fn synthetic(kind: &str, data: Value, session: Option<Uuid>, when: (u64, u64)) -> Decoded {
    let bytes = Bytes::from(data.to_string());
    let fact = crate::decode::fact(kind, data);
    Decoded {
        line: LineId { stream: StreamIn::Shim, offset: when.0 },
        record_seq: when.0,
        at: when.1,
        kind: Kind::of_claude(kind),
        data: bytes,
        json: true,
        raw: None,
        note: None,
        session_id: session,
        fact,
    }
}

/// `system/session_state_changed`.
pub(super) fn state_event(state: &str, session: Option<Uuid>, when: (u64, u64)) -> Decoded {
    let data = json!({
        "type": "system",
        "subtype": "session_state_changed",
        "state": state,
        "session_id": session,
        "synthetic": true,
    });
    synthetic("system", data, session, when)
}
