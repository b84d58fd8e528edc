//! The stdin line of a message, there and back.

use castra_claude::input::{self, Content};
use castra_proto::MessageId;
use castra_proto::api::SendMessage;
use serde_json::Value;
use uuid::Uuid;

/// The uuid that a message was written with.
pub(crate) fn message_line_id(line: &Value) -> Option<Uuid> {
    line["uuid"].as_str()?.parse().ok()
}

/// The stdin line of a message.
pub(crate) fn message_line(id: MessageId, body: SendMessage) -> Vec<u8> {
    let content = match (body.text.or(body.command), body.content) {
        (_, Some(blocks)) => Content::Blocks(blocks),
        (text, None) => Content::Text(text.unwrap_or_default()),
    };
    input::user(id.0, &content, body.context.as_deref(), body.priority)
}
