//! A message about to be sent: its blocks, ids and usage. Owns the size of texts and refuses to hold a huge
//! one: a text is a unit and a length.

use serde_json::Value;

/// The longest text a block may ask for; the CLI was seen to swallow 21 MB lines.
pub(crate) const MAX_TEXT: u64 = 256 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Times(u64),
    Bytes(u64),
}

/// A text that is made while it is sent: `unit` again and again, up to `bytes` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    unit: String,
    bytes: u64,
}

impl Text {
    pub(crate) fn new(unit: String, length: Length) -> Self {
        let bytes = match length {
            Length::Times(times) => (unit.len() as u64).saturating_mul(times).min(MAX_TEXT),
            Length::Bytes(bytes) => bytes,
        };
        let bytes = if unit.is_empty() { 0 } else { bytes };
        Self { unit, bytes }
    }

    pub(crate) fn once(unit: impl Into<String>) -> Self {
        Self::new(unit.into(), Length::Times(1))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// At most `chars` characters from byte `from`; empty at the end. A character that would cross the
    /// end of the text is left out.
    pub(crate) fn chunk(&self, from: u64, chars: usize) -> String {
        let mut chunk = String::new();
        let mut at = from;
        let unit = self.unit.len() as u64;
        let mut taken = 0;
        while taken < chars && at < self.bytes {
            let offset = usize::try_from(at % unit.max(1)).unwrap_or(0);
            for c in self.unit[offset..].chars().take(chars - taken) {
                at += c.len_utf8() as u64;
                if at > self.bytes {
                    return chunk;
                }
                chunk.push(c);
                taken += 1;
            }
        }
        chunk
    }
}

/// The ids of one answer: the same script, conversation and call give the same ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids(pub(crate) uuid::Uuid);

impl Ids {
    fn part(self, name: &str) -> String {
        uuid::Uuid::new_v5(&self.0, name.as_bytes()).simple().to_string()[..24].to_owned()
    }

    pub(crate) fn message(self) -> String {
        format!("msg_{}", self.part("message"))
    }

    pub(crate) fn request(self) -> String {
        format!("req_{}", self.part("request"))
    }

    pub(crate) fn tool(self, block: usize) -> String {
        format!("toolu_{}", self.part(&format!("tool {block}")))
    }

    pub(crate) fn signature(self, block: usize) -> String {
        format!("castra{}", self.part(&format!("signature {block}")))
    }
}

/// A message about to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop_reason: String,
    pub(crate) usage: Usage,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Text(Text),
    Thinking { text: Text, signature: String },
    ToolUse { id: String, name: String, input: Value },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) cache_creation_input_tokens: u64,
    pub(crate) cache_read_input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Message {
    /// With the stop reason and the usage that the blocks suggest.
    pub(crate) fn new(ids: &Ids, model: String, blocks: Vec<Block>, input_tokens: u64) -> Self {
        let uses_tools = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
        let bytes: u64 = blocks
            .iter()
            .map(|block| match block {
                Block::Text(text) | Block::Thinking { text, .. } => text.bytes(),
                Block::ToolUse { input, .. } => input.to_string().len() as u64,
            })
            .sum();
        Self {
            id: ids.message(),
            model,
            blocks,
            stop_reason: if uses_tools { "tool_use" } else { "end_turn" }.to_owned(),
            usage: Usage {
                input_tokens,
                cache_creation_input_tokens: 0,
                cache_read_input_tokens: 0,
                output_tokens: (bytes / 4).max(1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_its_unit_repeated_and_never_splits_a_character() {
        let text = Text::new("aé".into(), Length::Bytes(7));
        let mut all = String::new();
        loop {
            let chunk = text.chunk(all.len() as u64, 2);
            assert!(chunk.chars().count() <= 2);
            if chunk.is_empty() {
                break;
            }
            all.push_str(&chunk);
        }
        assert_eq!(all, "aéaéa");
        assert_eq!(Text::new("ab".into(), Length::Times(3)).chunk(0, 100), "ababab");
        assert_eq!(Text::new("ab".into(), Length::Times(3)).chunk(3, 2), "ba");
        assert_eq!(Text::new(String::new(), Length::Bytes(9)).chunk(0, 5), "");
        assert_eq!(Text::new("x".into(), Length::Times(0)).chunk(0, 5), "");
    }

    #[test]
    fn ids_depend_on_their_seed_and_place_only() {
        let (one, two) = (Ids(uuid::Uuid::from_u128(1)), Ids(uuid::Uuid::from_u128(2)));
        assert_eq!(one.tool(0), Ids(uuid::Uuid::from_u128(1)).tool(0));
        assert_ne!(one.tool(0), one.tool(1));
        assert_ne!(one.tool(0), two.tool(0));
        assert!(one.tool(0).starts_with("toolu_") && one.message().starts_with("msg_"));
    }
}
