//! The message that claude is still writing: its text so far. State, never an event.

/// The open message, or nothing (`generation` 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenMessage {
    /// The Messages API's id, e.g. `msg_…`.
    pub message_id: Option<String>,
    /// Names this open message within the run; 0 when none is open. Grows with every message.
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
