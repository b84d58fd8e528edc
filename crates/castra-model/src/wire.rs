//! The bytes of a message: server-sent events, or one JSON object in pieces. Pure; owns the framing of the
//! real API and refuses to build a large text in one piece.
//!
//! Source: Anthropic's API reference, "Streaming messages", and the events that the CLI forwards as
//! `stream_event`.

use crate::message::{Block, Message, Usage};
use crate::reply::ApiError;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Events,
    Object,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'a> {
    MessageStart { message: Start<'a> },
    ContentBlockStart { index: usize, content_block: Value },
    Ping,
    ContentBlockDelta { index: usize, delta: Delta<'a> },
    ContentBlockStop { index: usize },
    MessageDelta { delta: Stop<'a>, usage: Usage },
    MessageStop,
    Error { error: ErrorBody<'a> },
}

#[derive(Serialize)]
struct Start<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: [Value; 0],
    stop_reason: Option<&'a str>,
    stop_sequence: Option<&'a str>,
    usage: Usage,
}

#[derive(Serialize)]
struct Stop<'a> {
    stop_reason: &'a str,
    stop_sequence: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    r#type: &'a str,
    message: &'a str,
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::Ping => "ping",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Error { .. } => "error",
        }
    }

    fn push(&self, out: &mut String) {
        out.push_str("event: ");
        out.push_str(self.name());
        out.push_str("\ndata: ");
        out.push_str(&to_json(self));
        out.push_str("\n\n");
    }
}

/// Serializing these types into memory cannot fail: keys are strings, there is no foreign code.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What goes inside of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = to_json(&text);
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// An error's body, with the request's id as the real API has it.
pub(crate) fn error_object(error: &ApiError, request_id: &str) -> String {
    let ApiError { kind, message, .. } = error;
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
        .to_string()
}

impl Form {
    pub(crate) fn start(self, message: &Message) -> String {
        let Message { id, model, usage, .. } = message;
        let mut out = String::new();
        match self {
            Self::Events => Event::MessageStart {
                message: Start {
                    id,
                    r#type: "message",
                    role: "assistant",
                    model,
                    content: [],
                    stop_reason: None,
                    stop_sequence: None,
                    usage: Usage { output_tokens: 1, ..*usage },
                },
            }
            .push(&mut out),
            Self::Object => {
                let (id, model) = (escaped(id), escaped(model));
                out = format!(
                    r#"{{"id":"{id}","type":"message","role":"assistant","model":"{model}","content":["#
                );
            }
        }
        out
    }

    pub(crate) fn open(self, index: usize, block: &Block) -> String {
        let mut out = String::new();
        match self {
            Self::Events => {
                let content_block = match block {
                    Block::Text(_) => json!({"type": "text", "text": ""}),
                    Block::Thinking { .. } => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    Block::ToolUse { id, name, .. } => {
                        json!({"type": "tool_use", "id": id, "name": name, "input": {}})
                    }
                };
                Event::ContentBlockStart { index, content_block }.push(&mut out);
                if index == 0 {
                    Event::Ping.push(&mut out);
                }
            }
            Self::Object => {
                if index > 0 {
                    out.push(',');
                }
                match block {
                    Block::Text(_) => out.push_str(r#"{"type":"text","text":""#),
                    Block::Thinking { .. } => out.push_str(r#"{"type":"thinking","thinking":""#),
                    Block::ToolUse { id, name, .. } => {
                        let (id, name) = (escaped(id), escaped(name));
                        out.push_str(&format!(r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":"#));
                    }
                }
            }
        }
        out
    }

    pub(crate) fn piece(self, index: usize, block: &Block, piece: &str) -> String {
        let mut out = String::new();
        match self {
            Self::Events => {
                let delta = match block {
                    Block::Text(_) => Delta::Text { text: piece },
                    Block::Thinking { .. } => Delta::Thinking { thinking: piece },
                    Block::ToolUse { .. } => Delta::InputJson { partial_json: piece },
                };
                Event::ContentBlockDelta { index, delta }.push(&mut out);
            }
            Self::Object => match block {
                Block::Text(_) | Block::Thinking { .. } => out = escaped(piece),
                Block::ToolUse { .. } => piece.clone_into(&mut out),
            },
        }
        out
    }

    pub(crate) fn close(self, index: usize, block: &Block) -> String {
        let mut out = String::new();
        match self {
            Self::Events => {
                if let Block::Thinking { signature, .. } = block {
                    Event::ContentBlockDelta { index, delta: Delta::Signature { signature } }.push(&mut out);
                }
                Event::ContentBlockStop { index }.push(&mut out);
            }
            Self::Object => match block {
                Block::Text(_) => out.push_str("\"}"),
                Block::Thinking { signature, .. } => {
                    out = format!(r#"","signature":"{}"}}"#, escaped(signature));
                }
                Block::ToolUse { .. } => out.push('}'),
            },
        }
        out
    }

    pub(crate) fn finish(self, message: &Message) -> String {
        let Message { stop_reason, usage, .. } = message;
        let mut out = String::new();
        match self {
            Self::Events => {
                let delta = Stop { stop_reason, stop_sequence: None };
                Event::MessageDelta { delta, usage: *usage }.push(&mut out);
                Event::MessageStop.push(&mut out);
            }
            Self::Object => {
                let (stop_reason, usage) = (escaped(stop_reason), to_json(usage));
                out = format!(r#"],"stop_reason":"{stop_reason}","stop_sequence":null,"usage":{usage}}}"#);
            }
        }
        out
    }

    /// An error after the response has begun: an event, or, in an object, nothing that could be said.
    pub(crate) fn error(self, error: &ApiError) -> String {
        let mut out = String::new();
        if self == Self::Events {
            let ApiError { kind, message, .. } = error;
            Event::Error { error: ErrorBody { r#type: kind, message } }.push(&mut out);
        }
        out
    }
}
