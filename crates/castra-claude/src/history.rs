//! The name of a conversation by what was said in it, however that is spelled. Refuses to keep the words.
//!
//! An API that is sent the whole history with every request finds the session that already has it by this hash.
//! The rules: facts/seed-packages.md §3.

use crate::field::{flag, items, text};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Two names of one history, SHA-256 in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HistoryKeys {
    /// Of everything but thinking.
    pub full: String,
    /// Without tool calls and results, for clients that echo texts only. Several histories may share one: where
    /// that is so, it names none of them.
    pub texts: String,
}

/// Names `messages` (`{role, content}` each). `salt` is whatever makes equal words another conversation: folder,
/// model, system prompt, tools, permission mode, MCP servers.
pub fn history_keys(salt: &[&str], messages: &[Value]) -> HistoryKeys {
    HistoryKeys { full: roll(salt, messages, true), texts: roll(salt, messages, false) }
}

/// Each message's hash holds the one before it; lengths keep neighbours apart.
fn roll(salt: &[&str], messages: &[Value], tools: bool) -> String {
    let mut hash: [u8; 32] = Sha256::digest(b"castra history 1").into();
    let mut take = |bytes: &[u8]| {
        let mut next = Sha256::new();
        next.update(hash);
        next.update((bytes.len() as u64).to_be_bytes());
        next.update(bytes);
        hash = next.finalize().into();
    };
    salt.iter().for_each(|part| take(part.as_bytes()));
    for (role, blocks) in normal(messages, tools) {
        let mut bytes = String::new();
        canonical(&json!([role, blocks]), &mut bytes);
        take(bytes.as_bytes());
    }
    hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Messages of one role in a row are one, and so are texts in a row.
fn normal(messages: &[Value], tools: bool) -> Vec<(String, Vec<Value>)> {
    let mut all: Vec<(String, Vec<Value>)> = Vec::new();
    for message in messages {
        let role = text(message, "role").unwrap_or_default();
        let blocks = blocks(message, tools);
        match all.last_mut() {
            _ if blocks.is_empty() => {}
            Some((last, before)) if last == role => before.extend(blocks),
            _ => all.push((role.to_owned(), blocks)),
        }
    }
    for (_, blocks) in &mut all {
        *blocks = join_texts(std::mem::take(blocks));
    }
    all.retain(|(_, blocks)| !blocks.is_empty());
    all
}

fn blocks(message: &Value, tools: bool) -> Vec<Value> {
    let plain = text(message, "content").map(|text| json!({"text": text}));
    plain
        .into_iter()
        .chain(items(message, "content").iter().filter_map(|block| normal_block(block, tools)))
        .collect()
}

fn normal_block(block: &Value, tools: bool) -> Option<Value> {
    match text(block, "type")? {
        "text" => Some(json!({"text": text(block, "text")?})),
        "thinking" | "redacted_thinking" => None,
        "tool_use" => tools.then(|| json!({"call": [block["id"], block["name"], block["input"]]})),
        "tool_result" => {
            tools.then(|| json!({"result": [block["tool_use_id"], flag(block, "is_error"), join_texts(blocks(block, true))]}))
        }
        // Pictures and documents by their bytes alone; of other kinds everything counts but the cache marks.
        kind => {
            let mut bytes = String::new();
            let mut content = block.get("source").unwrap_or(block).clone();
            if let Value::Object(fields) = &mut content {
                fields.remove("cache_control");
            }
            canonical(&content, &mut bytes);
            Some(json!({"kind": kind, "digest": crate::permission::input_hash(bytes.as_bytes())}))
        }
    }
}

/// claude trims the end of a text, and drops an empty one.
fn join_texts(blocks: Vec<Value>) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for block in blocks {
        match (joined.last_mut().and_then(|last| last.get_mut("text")), text(&block, "text")) {
            (Some(Value::String(before)), Some(more)) => before.push_str(more),
            _ => joined.push(block),
        }
    }
    let trimmed = joined.into_iter().filter_map(|block| match text(&block, "text").map(str::trim_end) {
        Some("") => None,
        Some(text) => Some(json!({"text": text})),
        None => Some(block),
    });
    trimmed.collect()
}

/// Compact JSON with sorted keys and without nulls, whatever order the map type keeps.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{}:", Value::from(name.as_str()));
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                canonical(item, out);
            }
            out.push(']');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(messages: Value) -> HistoryKeys {
        history_keys(&["/w", "sonnet"], messages.as_array().unwrap())
    }

    fn said(role: &str, content: Value) -> Value {
        json!({"role": role, "content": content})
    }

    #[test]
    fn spelling_does_not_matter() {
        let base = keys(json!([
            said("user", json!("hello")),
            said("assistant", json!([{"type": "text", "text": "hi"}]))
        ]));
        for same in [
            json!([
                said(
                    "user",
                    json!([{"type": "text", "text": "hello \n", "cache_control": {"type": "ephemeral"}}])
                ),
                said("assistant", json!("hi"))
            ]),
            json!([said("user", json!("hel")), said("user", json!("lo")), said("assistant", json!("hi"))]),
            json!([{"role": "user", "content": "hello", "id": "x", "name": null},
                   said("assistant", json!([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"},
                                            {"type": "text", "text": ""}]))]),
            json!([
                said("user", json!("hello")),
                said("assistant", json!([])),
                said("assistant", json!("hi"))
            ]),
        ] {
            assert_eq!(keys(same.clone()), base, "{same}");
        }
        for other in [
            json!([said("user", json!("hello")), said("user", json!("hi"))]),
            json!([said("user", json!("hello!")), said("assistant", json!("hi"))]),
            json!([said("user", json!("hello"))]),
            json!([said("assistant", json!("hello")), said("user", json!("hi"))]),
        ] {
            assert_ne!(keys(other.clone()), base, "{other}");
        }
        let messages = [said("user", json!("hello"))];
        assert_ne!(history_keys(&["a", "b"], &messages), history_keys(&["ab"], &messages));
    }

    #[test]
    fn a_client_that_echoes_texts_only_is_found_by_the_texts() {
        let call = |input: Value| {
            json!([
                said("user", json!("list")),
                said(
                    "assistant",
                    json!([{"type": "text", "text": "I "}, {"type": "tool_use", "id": "t", "name": "Bash", "input": input}])
                ),
                said("user", json!([{"type": "tool_result", "tool_use_id": "t", "content": "a.txt"}])),
                said("assistant", json!("did.")),
            ])
        };
        let full = keys(call(json!({"b": 1, "a": {"d": null, "c": 2}})));
        assert_eq!(full, keys(call(json!({"a": {"c": 2}, "b": 1}))));
        let echoed = keys(json!([said("user", json!("list")), said("assistant", json!("I did."))]));
        assert_eq!(full.texts, echoed.texts);
        assert_ne!(full.full, echoed.full);
        let other = keys(call(json!({"b": 2})));
        assert_eq!((other.texts == full.texts, other.full == full.full), (true, false));
    }

    #[test]
    fn pictures_count_by_their_bytes() {
        let picture = |data: &str, title: &str| {
            keys(json!([said(
                "user",
                json!([{"type": "image", "source": {"type": "base64", "data": data}, "title": title}])
            )]))
        };
        assert_eq!(picture("aa", "x"), picture("aa", "y"));
        assert_ne!(picture("aa", "x"), picture("ab", "x"));
    }
}
