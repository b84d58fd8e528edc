//! The message that claude is still writing: its text so far. State, never an event.

use crate::peek::{Delta, StreamEvent};

/// The open message, or nothing (`generation` 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenMessage {
    /// The Messages API's id, e.g. `msg_…`.
    pub message_id: Option<String>,
    /// Names this open message within the run; 0 when none is open. Grows with every message. It is the offset
    /// at which the message began, plus one: the same however often the records are read.
    pub generation: u64,
    /// The blocks that no `assistant` event has closed yet, by index.
    pub blocks: Vec<OpenBlock>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBlock {
    /// Of the block in its message.
    pub index: u32,
    pub kind: BlockKind,
    /// Text, thinking, or the JSON of a tool's input, so far.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Text,
    Thinking,
    ToolInput,
}

impl BlockKind {
    /// From a content block's `type`.
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "text" => Some(Self::Text),
            "thinking" | "redacted_thinking" => Some(Self::Thinking),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => Some(Self::ToolInput),
            _ => None,
        }
    }
}

impl OpenMessage {
    /// Takes one event of the API's stream, found at `offset` of stdout.
    pub(crate) fn apply(&mut self, event: &StreamEvent<'_>, offset: u64) {
        match &*event.kind {
            "message_start" => {
                let id = event.message.as_ref().map(|message| &*message.id).filter(|id| !id.is_empty());
                *self = Self { message_id: id.map(Into::into), generation: offset + 1, blocks: Vec::new() };
            }
            // Without its message_start a delta has no place: its text would lack the beginning.
            _ if self.generation == 0 => {}
            "content_block_start" => {
                let Some(block) = &event.content_block else { return };
                let Some(kind) = BlockKind::of(&block.kind) else { return };
                let text = if kind == BlockKind::Thinking { &block.thinking } else { &block.text };
                self.blocks.retain(|open| open.index != event.index);
                self.blocks.push(OpenBlock { index: event.index, kind, text: text.to_string() });
            }
            "content_block_delta" => {
                let Some(delta) = &event.delta else { return };
                let Some(block) = self.blocks.iter_mut().rev().find(|block| block.index == event.index)
                else {
                    return;
                };
                block.append(delta);
            }
            "message_stop" => *self = Self::default(),
            _ => {}
        }
    }

    /// An `assistant` event of `message_id` holds this kind of block whole: the first open one of it is closed.
    pub(crate) fn close_block(&mut self, message_id: Option<&str>, kind: BlockKind) {
        if self.generation == 0 || self.message_id.as_deref() != message_id {
            return;
        }
        if let Some(closed) = self.blocks.iter().position(|block| block.kind == kind) {
            self.blocks.remove(closed);
        }
    }

    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }
}

impl OpenBlock {
    fn append(&mut self, delta: &Delta<'_>) {
        match (&*delta.kind, self.kind) {
            ("text_delta", BlockKind::Text) => self.text.push_str(&delta.text),
            ("thinking_delta", BlockKind::Thinking) => self.text.push_str(&delta.thinking),
            ("input_json_delta", BlockKind::ToolInput) => self.text.push_str(&delta.partial_json),
            _ => {}
        }
    }
}
