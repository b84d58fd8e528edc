//! Framing, pacing and mishaps, without a clock.

use super::*;
use crate::message::{Ids, Text};
use crate::reply::ApiError;
use serde_json::{Value, json};

fn message(blocks: Vec<Block>) -> Message {
    Message::new(&Ids(uuid::Uuid::from_u128(7)), "claude-x".into(), blocks, 11)
}

fn text(text: &str) -> Block {
    Block::Text(Text::once(text))
}

fn tool() -> Block {
    Block::ToolUse { id: "toolu_1".into(), name: "Bash".into(), input: json!({"command": "echo \"é\""}) }
}

fn sent(steps: &[Step]) -> String {
    let texts = steps.iter().filter_map(|step| match step {
        Step::Send(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// `(event name, data)`, checking the framing on the way.
fn events(stream: &str) -> Vec<(String, Value)> {
    let frames = stream.split_terminator("\n\n").map(|frame| {
        let (event, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let event = event.strip_prefix("event: ").unwrap().to_owned();
        assert_eq!(data["type"], event.as_str());
        (event, data)
    });
    frames.collect()
}

fn incident(after: u64, what: Mishap) -> Incident {
    Incident { after, what }
}

#[test]
fn a_stream_has_the_events_of_the_real_api_in_order() {
    let thinking = Block::Thinking { text: Text::once("hm"), signature: "sig".into() };
    let steps: Vec<_> =
        Frames::new(message(vec![thinking, text("hi"), tool()]), Form::Events, None, vec![]).collect();
    let id = Ids(uuid::Uuid::from_u128(7)).message();
    let usage = |output| json!({"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": output});
    let input = json!({"command": "echo \"é\""}).to_string();
    let (first, second) =
        (input.chars().take(24).collect::<String>(), input.chars().skip(24).collect::<String>());
    assert_eq!(second, "", "the input fits one delta, which the next lines rely on");
    let want = [
        json!({"type": "message_start", "message": {"id": id, "type": "message", "role": "assistant",
            "model": "claude-x", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage(1)}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hi"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block":
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": first}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage(7)}),
        json!({"type": "message_stop"}),
    ];
    let events: Vec<_> = events(&sent(&steps)).into_iter().map(|(_, data)| data).collect();
    assert_eq!(events, want);
}

#[test]
fn an_object_is_one_valid_message() {
    let thinking = Block::Thinking { text: Text::once("h\nm"), signature: "sig".into() };
    let blocks = vec![thinking, text("quote \" and é"), tool()];
    let steps: Vec<_> = Frames::new(message(blocks), Form::Object, None, vec![]).collect();
    let object: Value = serde_json::from_str(&sent(&steps)).unwrap();
    let want = json!({
        "id": Ids(uuid::Uuid::from_u128(7)).message(), "type": "message", "role": "assistant", "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "h\nm", "signature": "sig"},
            {"type": "text", "text": "quote \" and é"},
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "echo \"é\""}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 10},
    });
    assert_eq!(object, want);
}

#[test]
fn an_empty_message_is_valid_too() {
    let steps: Vec<_> = Frames::new(message(vec![]), Form::Object, None, vec![]).collect();
    let object: Value = serde_json::from_str(&sent(&steps)).unwrap();
    assert_eq!((&object["content"], &object["stop_reason"]), (&json!([]), &json!("end_turn")));
    let steps: Vec<_> = Frames::new(message(vec![text("")]), Form::Events, None, vec![]).collect();
    assert_eq!(events(&sent(&steps)).last().map(|(name, _)| name.clone()).as_deref(), Some("message_stop"));
}

/// Content characters and mishaps, in order.
fn shape(frames: Frames) -> Vec<String> {
    let steps = frames.filter_map(|step| match step {
        Step::Send(text) => {
            let texts = events(&text).into_iter().filter_map(|(name, data)| match name.as_str() {
                "content_block_delta" => data["delta"]["text"].as_str().map(str::to_owned),
                "error" => Some(format!("error {}", data["error"]["type"].as_str().unwrap())),
                "message_stop" => Some("stop".into()),
                _ => None,
            });
            texts.reduce(|all, next| all + "+" + &next)
        }
        Step::Wait(length) => Some(format!("wait {}", length.as_millis())),
        Step::Forever => Some("forever".into()),
        Step::Cut => Some("cut".into()),
    });
    steps.collect()
}

#[test]
fn pace_and_mishaps_fall_on_exact_characters() {
    let ms = Duration::from_millis;
    let pace = Some(Pace { chars: 2, delay: ms(5) });
    let quick = Some(Pace { chars: 2, delay: ms(0) });
    let error =
        ApiError { status: 529, kind: "overloaded_error".into(), message: String::new(), retry_after: None };
    let table = [
        (None, vec![], vec!["abcdé", "stop"]),
        (quick, vec![], vec!["ab", "cd", "é", "stop"]),
        (pace, vec![], vec!["wait 5", "ab", "wait 5", "cd", "wait 5", "é", "stop"]),
        (None, vec![incident(3, Mishap::Stall(Some(ms(9))))], vec!["abc", "wait 9", "dé", "stop"]),
        (None, vec![incident(0, Mishap::Stall(None))], vec!["forever"]),
        (quick, vec![incident(3, Mishap::Cut)], vec!["ab", "c", "cut"]),
        (None, vec![incident(5, Mishap::Cut)], vec!["abcdé", "cut"]),
        (None, vec![incident(99, Mishap::Cut)], vec!["abcdé", "cut"]),
        (None, vec![incident(2, Mishap::Error(error))], vec!["ab", "error overloaded_error"]),
        (
            None,
            vec![incident(1, Mishap::Stall(Some(ms(9)))), incident(1, Mishap::Cut)],
            vec!["a", "wait 9", "cut"],
        ),
    ];
    for (pace, incidents, want) in table {
        let frames = Frames::new(message(vec![text("abcdé")]), Form::Events, pace, incidents.clone());
        assert_eq!(shape(frames), want, "{pace:?} {incidents:?}");
    }
}

#[test]
fn a_huge_text_comes_in_few_small_pieces() {
    let script =
        crate::Script::parse("[[rule]]\nreply.blocks = [{ text = \"0123456789\", size = \"10MB\" }]")
            .unwrap();
    let facts = crate::request::Facts::default();
    let scene = crate::template::Scene { facts: &facts, tool_result: None, captures: &[], call: 1 };
    let message = script.rules()[0].reply.render(&scene, &Ids(script.digest()));
    let (mut total, mut deltas, mut longest) = (0, 0, 0);
    for step in Frames::new(message, Form::Events, None, vec![]) {
        let Step::Send(text) = step else { panic!("{step:?}") };
        for (_, data) in events(&text) {
            if let Some(piece) = data["delta"]["text"].as_str() {
                total += piece.len();
                deltas += 1;
                longest = longest.max(piece.len());
            }
        }
    }
    assert_eq!((total, deltas, longest), (10_000_000, 400, 25_000));
}
