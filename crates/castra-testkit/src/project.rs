//! What two runs of the same script have in common: kind, role, text, tool, input, outcome. Ids, times and
//! whatever else differs from run to run are left out (design.md §13.8).

use castra_proto::Event;
use serde_json::Value;

/// One thing that was said, done or decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projected {
    pub kind: String,
    pub role: Option<String>,
    pub text: Option<String>,
    pub tool: Option<String>,
    pub input: Option<Value>,
    pub outcome: Option<String>,
}

/// The projection of a session's events. Kinds that tell of castra's or claude's own business (`state`,
/// `system`, `queued`, `idle`, `stderr`, …) have none.
pub fn normalise(events: &[Event]) -> Vec<Projected> {
    events.iter().flat_map(one).collect()
}

/// The line of stdout that an event was made of, as claude wrote it.
pub fn line_of(event: &Event) -> Vec<u8> {
    match &event.raw {
        Some(raw) => unbase64(raw).expect("base64"),
        None => event.data.get().as_bytes().to_vec(),
    }
}

/// Standard alphabet, padded.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits.bytes() {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| *known == digit)?).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

fn one(event: &Event) -> Vec<Projected> {
    let kind = event.kind.as_str();
    let data: Value = serde_json::from_str(event.data.get()).unwrap_or(Value::Null);
    let this = Projected { kind: kind.to_owned(), ..Projected::default() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match kind {
        "assistant" | "user" => blocks(&data["message"], &this),
        "result" => {
            let failed = data["is_error"].as_bool().unwrap_or(false);
            let subtype = data["subtype"].as_str().unwrap_or_default();
            let outcome = format!("{subtype}{}", if failed { " is_error" } else { "" });
            vec![Projected { text: text(&data["result"]), outcome: Some(outcome), ..this }]
        }
        "input_accepted" => vec![Projected { text: text(&data["text"]), ..this }],
        "input_delivered" => vec![Projected { outcome: text(&data["outcome"]), ..this }],
        "permission_requested" => {
            let input = Some(data["input"].clone()).filter(|input| !input.is_null());
            vec![Projected { tool: text(&data["tool"]), input, ..this }]
        }
        "permission_answered" => {
            // Nobody answered what was superseded.
            let outcome = text(&data["answer"]["behavior"]).or_else(|| text(&data["state"]));
            vec![Projected { outcome, ..this }]
        }
        "exit" => vec![Projected { outcome: text(&data["cause"]), ..this }],
        "unknown" => vec![Projected { text: event.raw.clone().or(Some(data.to_string())), ..this }],
        _ => Vec::new(),
    }
}

/// One entry for each content block.
fn blocks(message: &Value, this: &Projected) -> Vec<Projected> {
    let role = message["role"].as_str().map(str::to_owned);
    let this = Projected { role, ..this.clone() };
    let Some(blocks) = message["content"].as_array() else {
        let text = message["content"].as_str().map(str::to_owned);
        return vec![Projected { text, ..this }];
    };
    let block = |block: &Value| {
        let this = this.clone();
        match block["type"].as_str()? {
            "text" => Some(Projected { text: block["text"].as_str().map(str::to_owned), ..this }),
            "tool_use" => Some(Projected {
                tool: block["name"].as_str().map(str::to_owned),
                input: Some(block["input"].clone()),
                ..this
            }),
            "tool_result" => {
                let failed = block["is_error"].as_bool().unwrap_or(false);
                let outcome = if failed { "error" } else { "ok" };
                Some(Projected {
                    text: Some(result_text(&block["content"])),
                    outcome: Some(outcome.into()),
                    ..this
                })
            }
            other => Some(Projected { outcome: Some(other.to_owned()), ..this }),
        }
    };
    blocks.iter().filter_map(block).collect()
}

fn result_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, data: &Value) -> Event {
        let whole = json!({
            "seq": 1, "at": "2026-11-21T07:30:45.000100Z", "run": 1, "turn": 1,
            "session_id": "01928f6e-7b5a-7000-8000-000000000001", "kind": kind, "data": data,
        });
        serde_json::from_str(&whole.to_string()).unwrap()
    }

    #[test]
    fn base64_reads_back() {
        for (text, bytes) in [("", &b""[..]), ("AA==", b"\0"), ("/w8=", b"\xff\x0f"), ("Zm9v", b"foo")] {
            assert_eq!(unbase64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(unbase64("Zm 9"), None);
    }

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        let events = [
            event("state", &json!({"from": "idle", "to": "running"})),
            event("input_accepted", &json!({"message_id": "m", "text": "go"})),
            event(
                "assistant",
                &json!({"uuid": "u1", "message": {"id": "msg_1", "role": "assistant", "content": [
                    {"type": "text", "text": "I will."},
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
                ]}}),
            ),
            event(
                "permission_requested",
                &json!({"request_id": "r", "tool": "Bash", "input": {"command": "ls"}}),
            ),
            event(
                "permission_answered",
                &json!({"request_id": "r", "by": "cli", "answer": {"behavior": "allow"}, "state": "decided"}),
            ),
            event(
                "user",
                &json!({"message": {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a"}]},
                ]}}),
            ),
            event(
                "result",
                &json!({"subtype": "success", "is_error": true, "result": "no", "duration_ms": 4}),
            ),
            event("exit", &json!({"cause": "stopped", "code": 0})),
        ];
        let line = |one: &Projected| {
            let input = one.input.as_ref().map(Value::to_string);
            let parts = [&one.role, &one.text, &one.tool, &input, &one.outcome];
            let parts = parts.map(|part| part.as_deref().unwrap_or("-").to_owned());
            format!("{}: {}", one.kind, parts.join(" | "))
        };
        assert_eq!(
            normalise(&events).iter().map(line).collect::<Vec<_>>(),
            [
                "input_accepted: - | go | - | - | -",
                "assistant: assistant | I will. | - | - | -",
                r#"assistant: assistant | - | Bash | {"command":"ls"} | -"#,
                r#"permission_requested: - | - | Bash | {"command":"ls"} | -"#,
                "permission_answered: - | - | - | - | allow",
                "user: user | a | - | - | ok",
                "result: - | no | - | - | success is_error",
                "exit: - | - | - | - | stopped",
            ]
        );
    }
}
