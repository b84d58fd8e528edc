//! Recorded events (claude 2.1.197, shortened) and what a person sees of them.

use super::*;
use serde_json::json;
use serde_json::value::to_raw_value;

fn event(kind: &str, data: &Value) -> Event {
    Event {
        seq: 1,
        at: castra_proto::Timestamp(0),
        session_id: "01928f6e-7b5a-7000-8000-000000000001".parse().unwrap(),
        run: 1,
        turn: 1,
        kind: Kind::parse(kind),
        data: to_raw_value(data).unwrap(),
        raw: None,
    }
}

fn partial(message: &str, block: u64, offset: u64, text: &str) -> Partial {
    Partial { message: message.into(), block, kind: "text".into(), offset, text: text.into() }
}

fn says(id: &str, content: Value) -> Value {
    json!({"type":"assistant","message":{"id":id,"role":"assistant","content":[content]},"parent_tool_use_id":null})
}

fn line(style: Style, text: &str) -> Piece {
    Piece::Line(style, text.into())
}

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

#[test]
fn one_event_at_a_time() {
    let bash = json!({"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls -la\npwd","description":"d"}});
    let mut inner = says("m", bash.clone());
    inner["parent_tool_use_id"] = json!("t0");
    let result = |content: Value, failed: bool| json!({"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":content,"is_error":failed}]}});
    let table: Vec<(&str, Value, Vec<Piece>)> = vec![
        ("assistant", says("m", json!({"type":"text","text":"Hello"})), vec![text("Hello"), Piece::EndText]),
        ("assistant", says("m", bash), vec![line(Style::Green, "● Bash  ls -la pwd")]),
        ("assistant", inner, vec![line(Style::Green, "  ● Bash  ls -la pwd")]),
        (
            "assistant",
            says("m", json!({"type":"tool_use","name":"mcp__files__stat","input":{"depth":2}})),
            vec![line(Style::Green, "● files:stat  {\"depth\":2}")],
        ),
        (
            "assistant",
            says("m", json!({"type":"tool_use","name":"TodoRead","input":{}})),
            vec![line(Style::Green, "● TodoRead")],
        ),
        ("assistant", says("m", json!({"type":"thinking","thinking":"hm"})), vec![]),
        ("user", result(json!("a\nb\n\nc\n"), false), vec![line(Style::Dim, "  ⎿ a (+2 lines)")]),
        ("user", result(json!([{"type":"text","text":"a"}]), false), vec![line(Style::Dim, "  ⎿ a")]),
        ("user", result(json!(""), false), vec![line(Style::Dim, "  ⎿ (no output)")]),
        ("user", result(json!("no such file"), true), vec![line(Style::Red, "  ⎿ failed: no such file")]),
        ("user", json!({"isReplay":true,"message":{"content":[{"type":"text","text":"hi"}]}}), vec![]),
        (
            "system",
            json!({"subtype":"api_retry","attempt":2,"max_retries":10,"error_status":529,"error":"overloaded"}),
            vec![line(Style::Yellow, "the model's API failed (529 overloaded); try 2 of 10")],
        ),
        ("system", json!({"subtype":"init"}), vec![]),
        (
            "limit",
            json!({"limit":"max_turns","value":3}),
            vec![line(Style::Yellow, "limit reached: max_turns")],
        ),
        ("exit", json!({"cause":"stopped","code":0}), vec![]),
        ("exit", json!({"cause":"crashed","code":1}), vec![line(Style::Red, "claude ended: crashed")]),
        (
            "permission_answered",
            json!({"state":"decided","answer":{"behavior":"allow"},"by":"cli"}),
            vec![line(Style::Dim, "  ⎿ allowed by cli")],
        ),
        (
            "permission_answered",
            json!({"state":"decided","answer":{"behavior":"deny"},"by":"token:7"}),
            vec![line(Style::Dim, "  ⎿ denied by token:7")],
        ),
        (
            "permission_answered",
            json!({"state":"superseded"}),
            vec![line(Style::Dim, "  ⎿ not needed any more")],
        ),
        ("stream_event", json!({"event":{}}), vec![]),
        ("something_new", json!({"any":1}), vec![]),
        ("assistant", json!("not an object"), vec![]),
    ];
    for (kind, data, expected) in table {
        assert_eq!(Progress::new(80).event(&event(kind, &data)), expected, "{kind} {data}");
    }
}

#[test]
fn streamed_text_is_shown_once() {
    let mut progress = Progress::new(80);
    let mut seen = progress.partial(&partial("m", 0, 0, "Hel"));
    assert_eq!(progress.words_so_far(), "Hel");
    seen.extend(progress.partial(&partial("m", 0, 3, "lo ")));
    // After a reconnect the daemon repeats from the start.
    seen.extend(progress.partial(&partial("m", 0, 0, "Hello wor")));
    seen.extend(progress.partial(&partial("m", 0, 2, "llo")));
    seen.extend(progress.event(&event("assistant", &says("m", json!({"type":"text","text":"Hello world"})))));
    assert_eq!(seen, [text("Hel"), text("lo "), text("wor"), text("ld"), Piece::EndText]);
    assert_eq!(progress.words_so_far(), "Hello world");
}

/// A daemon that was killed behind the event that closed a block has that block open again, until it has read the
/// shim's log to its end.
#[test]
fn a_text_that_was_shown_whole_is_not_shown_again() {
    let mut progress = Progress::new(80);
    let whole = |words: &str| event("assistant", &says("m", json!({"type":"text","text":words})));
    progress.event(&whole("Hello world"));
    let mut seen = progress.partial(&partial("m", 0, 0, "Hello"));
    seen.extend(progress.partial(&partial("m", 0, 5, " world")));
    assert_eq!((seen.as_slice(), progress.words_so_far()), ([].as_slice(), "Hello world"));
    // The next block of that message is known for another one once it differs, and not later than when it is whole.
    seen.extend(progress.partial(&partial("m", 1, 0, "Hel")));
    seen.extend(progress.partial(&partial("m", 1, 3, "p is")));
    seen.extend(progress.partial(&partial("m", 1, 7, " near")));
    seen.extend(progress.event(&whole("Help is near.")));
    seen.extend(progress.partial(&partial("m", 2, 0, "Hello")));
    seen.extend(progress.event(&whole("Hello")));
    assert_eq!(
        seen,
        [text("Help is"), text(" near"), text("."), Piece::EndText, text("Hello"), Piece::EndText]
    );
    // Another message may well begin with the same words.
    assert_eq!(progress.partial(&partial("n", 0, 0, "Hello")), [text("Hello")]);
}

#[test]
fn who_said_it_is_shown_unless_it_was_typed_here() {
    let mut progress = Progress::new(80);
    let (mine, other) = (MessageId::now(), MessageId::now());
    let said = |id: MessageId, by: &str| {
        event("input_accepted", &json!({"message_id": id, "by": by, "text": "hello\nyou"}))
    };
    assert_eq!(progress.event(&said(other, "cli")), [], "only a conversation shows what people say");
    progress.show_input = true;
    progress.typed_here(mine);
    assert_eq!(progress.event(&said(mine, "cli")), []);
    assert_eq!(progress.event(&said(other, "cli")), [line(Style::Bold, "cli> hello you")]);
    assert_eq!(progress.event(&said(other, "token:7")), [line(Style::Bold, "token:7> hello you")]);
}

#[test]
fn a_message_that_is_cut_off_ends_its_line() {
    let mut progress = Progress::new(80);
    progress.partial(&partial("m", 0, 0, "Hel"));
    assert_eq!(progress.partial(&partial("n", 0, 0, "New")), [Piece::EndText, text("New")]);
    assert_eq!(
        progress.event(&event("result", &json!({"subtype":"error_during_execution"}))),
        [Piece::EndText]
    );
    progress.partial(&partial("o", 0, 0, "One"));
    let other = event("assistant", &says("p", json!({"type":"text","text":"Two"})));
    assert_eq!(progress.event(&other), [Piece::EndText, text("Two"), Piece::EndText]);
}

#[test]
fn offsets_count_bytes_and_a_hole_is_never_papered_over() {
    let mut progress = Progress::new(80);
    progress.partial(&partial("m", 0, 0, "é"));
    assert_eq!(progress.partial(&partial("m", 0, 2, "ü")), [text("ü")]);
    assert_eq!(progress.partial(&partial("m", 0, 9, "later")), []);
    let whole = event("assistant", &says("m", json!({"type":"text","text":"éü and later"})));
    assert_eq!(progress.event(&whole), [text(" and later"), Piece::EndText]);
}

#[test]
fn nothing_from_the_agent_reaches_the_terminal_raw() {
    let evil = "\u{1b}[2J\u{202e}\r";
    let events = [
        event("assistant", &says("m", json!({"type":"text","text":evil}))),
        event("assistant", &says("m", json!({"type":"tool_use","name":evil,"input":{"command":evil}}))),
        event("assistant", &says("m", json!({"type":"tool_use","name":"X","input":{evil:evil}}))),
        event("user", &json!({"message":{"content":[{"type":"tool_result","content":evil}]}})),
        event("system", &json!({"subtype":"api_retry","error":evil})),
        event("system", &json!({"subtype":"permission_denied","tool_name":evil,"message":evil})),
        event("limit", &json!({"limit":evil})),
        event("exit", &json!({"cause":evil})),
        event("permission_answered", &json!({"by":evil})),
    ];
    let mut progress = Progress::new(80);
    let mut pieces = progress.partial(&partial("m", 0, 0, evil));
    for event in &events {
        pieces.extend(progress.event(event));
        let line = describe(event, 80);
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\r']), "{line:?}");
    }
    for piece in pieces {
        if let Piece::Line(_, text) | Piece::Text(text) = piece {
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text:?}");
        }
    }
}

#[test]
fn log_lines() {
    let table: &[(&str, Value, &str)] = &[
        ("assistant", says("m", json!({"type":"text","text":"Hi\nthere"})), "Hi there"),
        ("user", json!({"message":{"content":[{"type":"tool_result","content":"ok"}]}}), "⎿ ok"),
        ("user", json!({"message":{"content":"plain"}}), "plain"),
        ("result", json!({"subtype":"success","result":"42"}), "success: 42"),
        ("state", json!({"from":"idle","to":"running","cause":"message"}), "idle → running (message)"),
        ("queued", json!({"message_ids":[]}), "{\"message_ids\":[]}"),
    ];
    for (kind, data, expected) in table {
        assert_eq!(describe(&event(kind, data), 80), *expected);
    }
}
