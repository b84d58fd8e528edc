//! Tables, the recorded corpus, and the promise that decoding may start anew at any `hold`.

use super::*;
use crate::fact::{Lifecycle, SessionState, TaskPhase};
use crate::open::{BlockKind, OpenBlock};
use castra_proto::permission::PermissionKind;
use proptest::prelude::*;

fn record(seq: u64, stream: StreamIn, offset: u64, bytes: &[u8]) -> RecordIn {
    RecordIn { seq, at: seq * 10, stream, offset, bytes: Bytes::copy_from_slice(bytes) }
}

fn out_records(parts: &[&[u8]]) -> Vec<RecordIn> {
    let mut offset = 0;
    let with_offset = |(number, part): (usize, &&[u8])| {
        let record = record(number as u64 + 1, StreamIn::Out, offset, part);
        offset += part.len() as u64;
        record
    };
    parts.iter().enumerate().map(with_offset).collect()
}

fn decode_all(decoder: &mut Decoder, records: impl IntoIterator<Item = RecordIn>) -> Vec<Decoded> {
    let mut out = Vec::new();
    records.into_iter().for_each(|record| decoder.step(record, &mut out));
    out
}

fn decode(text: &str) -> Vec<Decoded> {
    decode_all(&mut Decoder::new(), out_records(&[text.as_bytes()]))
}

fn fact_of(line: &str) -> Fact {
    decode(&format!("{line}\n")).remove(0).fact
}

const DELTAS: [&str; 7] = [
    r#"{"type":"stream_event","event":{"message":{"id":"msg_1","content":[]},"type":"message_start"},"parent_tool_use_id":null}"#,
    r#"{"type":"stream_event","event":{"index":0,"content_block":{"type":"text","text":""},"type":"content_block_start"},"parent_tool_use_id":null}"#,
    r#"{"type":"stream_event","event":{"index":0,"delta":{"type":"text_delta","text":"Hel"},"type":"content_block_delta"},"parent_tool_use_id":null}"#,
    r#"{"type":"stream_event","event":{"index":0,"delta":{"type":"text_delta","text":"lo \u00e9"},"type":"content_block_delta"},"parent_tool_use_id":null}"#,
    r#"{"event":{"index":1,"content_block":{"type":"tool_use","id":"t","name":"Bash","input":{}},"type":"content_block_start"},"type":"stream_event"}"#,
    r#"{"type":"stream_event","event":{"index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a"},"type":"content_block_delta"}}"#,
    r#"{"type":"stream_event","event":{"index":0,"delta":{"type":"text_delta","text":"sub"},"type":"content_block_delta"},"parent_tool_use_id":"toolu_9"}"#,
];

#[test]
fn deltas_are_state_and_no_events() {
    let mut decoder = Decoder::new();
    let text: String = DELTAS.iter().map(|line| format!("{line}\n")).collect();
    let out = decode_all(&mut decoder, out_records(&[b"{\"type\":\"x\"}\n", text.as_bytes()]));
    assert_eq!(out.len(), 1);
    assert_eq!(
        decoder.open(),
        &OpenMessage {
            message_id: Some("msg_1".into()),
            generation: 14,
            blocks: vec![
                OpenBlock { index: 0, kind: BlockKind::Text, text: "Hello é".into() },
                OpenBlock { index: 1, kind: BlockKind::ToolInput, text: "{\"a".into() },
            ],
        }
    );
    assert_eq!(decoder.hold(), Some(2));
    let say = |decoder: &mut Decoder, seq, line: &str| {
        let offset = 13 + text.len() as u64 + seq * 1000;
        let mut out = Vec::new();
        decoder.step(record(seq, StreamIn::Out, offset, format!("{line}\n").as_bytes()), &mut out);
    };
    say(
        &mut decoder,
        3,
        r#"{"type":"assistant","message":{"id":"msg_other","content":[{"type":"text","text":"x"}]}}"#,
    );
    assert_eq!(decoder.open().blocks.len(), 2);
    say(
        &mut decoder,
        4,
        r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"text","text":"Hello é"}]}}"#,
    );
    assert_eq!(decoder.open().blocks.iter().map(|block| block.index).collect::<Vec<_>>(), [1]);
    say(&mut decoder, 5, r#"{"type":"stream_event","event":{"type":"message_stop"}}"#);
    assert_eq!((decoder.open(), decoder.hold()), (&OpenMessage::default(), None));
}

#[test]
fn a_result_closes_the_open_message() {
    let mut decoder = Decoder::new();
    let text = format!("{}\n{{\"type\":\"result\",\"subtype\":\"error_during_execution\"}}\n", DELTAS[0]);
    assert_eq!(decode_all(&mut decoder, out_records(&[text.as_bytes()])).len(), 1);
    assert_eq!((decoder.open().generation, decoder.hold()), (0, None));
}

#[test]
fn odd_lines_are_kept_and_end_nothing() {
    let deep = format!("{{\"type\":\"assistant\",\"message\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let cases: [(&[u8], &str, bool, Option<Note>); 14] = [
        (b"garbage", "unknown", false, Some(Note::NotJson)),
        (b"{\"type\":\"assistant\"", "unknown", false, Some(Note::NotJson)),
        (b"{\"type\":\"stream_event\",\"event\":", "unknown", false, Some(Note::NotJson)),
        (b"[1]", "unknown", true, Some(Note::NotAMessage)),
        (b"5", "unknown", true, Some(Note::NotAMessage)),
        (b"null", "unknown", true, Some(Note::NotAMessage)),
        (b"{}", "unknown", true, Some(Note::NotAMessage)),
        (b"{\"type\":7}", "unknown", true, Some(Note::NotAMessage)),
        (b"{\"type\":\"a\",\"type\":\"b\"}", "unknown", true, Some(Note::NotAMessage)),
        (b"\0\0\0", "unknown", false, Some(Note::NotJson)),
        (b"{\"type\":\"user\",\"x\":\"\xff\"}", "unknown", false, Some(Note::NotUtf8)),
        (b"{\"type\":\"stream_event\",\"event\":5}", "stream_event", true, None),
        (b"{\"type\":\"brand_new\",\"x\":1}\r", "brand_new", true, None),
        (deep.as_bytes(), "assistant", true, None),
    ];
    for (line, kind, json, note) in cases {
        let mut bytes = line.to_vec();
        bytes.extend_from_slice(b"\n{\"type\":\"keep_alive\"}\n");
        let out = decode_all(&mut Decoder::new(), out_records(&[&bytes]));
        let shown = String::from_utf8_lossy(line);
        assert_eq!(out.len(), 2, "{shown}");
        assert_eq!((out[0].kind.as_str(), out[0].json, out[0].note), (kind, json, note), "{shown}");
        assert_eq!(out[0].data, line, "{shown}");
        assert_eq!(out[1].kind.as_str(), "keep_alive");
    }
}

#[test]
fn nothing_on_stdout_passes_for_castra() {
    let out = decode("{\"type\":\"permission_answered\"}\n");
    assert_eq!((out[0].kind.clone(), out[0].fact.clone()), (OwnKind::Unknown.into(), Fact::Other));
}

#[test]
fn a_line_in_one_record_is_shared_and_not_copied() {
    let input = record(1, StreamIn::Out, 0, b"{\"type\":\"user\"}\n{\"type\":\"user\"}\n");
    let range = input.bytes.as_ptr_range();
    let out = decode_all(&mut Decoder::new(), [input]);
    assert!(out.iter().all(|line| range.contains(&line.data.as_ptr())));
    assert_eq!(out[1].line, LineId { stream: StreamIn::Out, offset: 16 });
}

#[test]
fn a_line_over_many_records_is_named_by_where_it_began() {
    let out = decode_all(&mut Decoder::new(), out_records(&[b"{}\n{\"ty", b"pe\":\"us", b"er\"}\n"]));
    let line = &out[1];
    assert_eq!(
        (line.line.offset, line.record_seq, line.at, &line.data[..]),
        (3, 3, 30, &b"{\"type\":\"user\"}"[..])
    );
}

#[test]
fn a_line_beyond_the_limit_comes_in_parts_and_the_next_one_whole() {
    let mut decoder = Decoder::with_max_line(8);
    let parts: [&[u8]; 3] = [b"aaaaaa", b"aaaaaaaaaa", b"aaa\n{ }\n"];
    let mut out = Vec::new();
    let mut records = out_records(&parts).into_iter();
    decoder.step(records.next().unwrap(), &mut out);
    decoder.step(records.next().unwrap(), &mut out);
    assert_eq!(decoder.hold(), Some(1), "also after parts were emitted");
    decoder.step(records.next().unwrap(), &mut out);
    let seen: Vec<(u64, usize, Option<Note>)> =
        out.iter().map(|line| (line.line.offset, line.data.len(), line.note)).collect();
    assert_eq!(
        seen,
        [
            (0, 8, Some(Note::Cut)),
            (8, 8, Some(Note::Cut)),
            (16, 3, Some(Note::Cut)),
            (20, 3, Some(Note::NotAMessage)),
        ]
    );
    assert_eq!(decoder.hold(), None);
}

#[test]
fn sixty_four_megabytes_in_a_line_are_a_line() {
    let mut text = String::from(r#"{"type":"result","subtype":"success","result":""#);
    text.push_str(&"x".repeat(64 << 20));
    text.push_str("\"}\n");
    let mut decoder = Decoder::new();
    let parts: Vec<&[u8]> = text.as_bytes().chunks(64 << 10).collect();
    let out = decode_all(&mut decoder, out_records(&parts));
    assert_eq!((out.len(), out[0].data.len()), (1, text.len() - 1));
    let Fact::Result(result) = &out[0].fact else { panic!("{:?}", out[0].kind) };
    assert_eq!((result.ok, result.text.as_ref().map(String::len)), (true, Some(64 << 20)));
}

#[test]
fn what_is_unfinished_at_the_end_is_torn() {
    for (tail, kind, note) in [
        (&b"{\"type\":\"ass"[..], "unknown", Some(Note::Torn)),
        (b"\xff", "unknown", Some(Note::Torn)),
        // Only its newline is missing.
        (b"{\"type\":\"assistant\"}", "assistant", None),
    ] {
        let mut decoder = Decoder::new();
        assert_eq!(decode_all(&mut decoder, out_records(&[tail])), []);
        let mut out = Vec::new();
        decoder.finish(&mut out);
        assert_eq!((out[0].kind.as_str(), out[0].note, &out[0].data[..]), (kind, note, tail));
        assert_eq!(decoder.hold(), None);
    }
}

#[test]
fn a_hole_in_the_log_tears_one_line() {
    let records = [
        record(1, StreamIn::Out, 0, b"{\"type\":\"a"),
        record(3, StreamIn::Out, 50, b"b\"}\n{\"type\":\"c\"}\n"),
    ];
    let out = decode_all(&mut Decoder::new(), records);
    let notes: Vec<(u64, Option<Note>)> = out.iter().map(|line| (line.line.offset, line.note)).collect();
    assert_eq!(notes, [(0, Some(Note::Torn)), (50, Some(Note::NotJson)), (54, None)]);
}

#[test]
fn stderr_is_text_and_keeps_its_bytes_where_it_is_not() {
    let records = [
        record(1, StreamIn::Err, 0, b"warning: \"x\"\n\nbad \xff\nta"),
        record(2, StreamIn::Out, 0, b"{\"type\":\"a\"}\n"),
        record(3, StreamIn::In, 0, b"ignored\n"),
        record(4, StreamIn::Shim, 0, b"ignored\n"),
    ];
    let mut decoder = Decoder::new();
    let mut out = decode_all(&mut decoder, records);
    decoder.finish(&mut out);
    let seen: Vec<_> = out.iter().map(|l| (l.kind.as_str(), &l.data[..], l.raw.as_deref(), l.note)).collect();
    assert_eq!(
        seen,
        [
            ("stderr", &br#"{"text":"warning: \"x\""}"#[..], None, None),
            ("stderr", br#"{"text":""}"#, None, None),
            ("stderr", "{\"text\":\"bad \u{fffd}\"}".as_bytes(), Some(&b"bad \xff"[..]), Some(Note::NotUtf8)),
            ("a", br#"{"type":"a"}"#, None, None),
            ("stderr", br#"{"text":"ta"}"#, None, Some(Note::Torn)),
        ]
    );
}

#[test]
fn success_is_what_truly_succeeded() {
    for (line, ok) in [
        (r#"{"type":"result","subtype":"success","is_error":false,"result":"Error: says the log"}"#, true),
        (r#"{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed"}"#, true),
        (r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":401}"#, false),
        (
            r#"{"type":"result","subtype":"success","is_error":false,"terminal_reason":"aborted_tools"}"#,
            false,
        ),
        (r#"{"type":"result","subtype":"error_during_execution","is_error":false}"#, false),
        (r#"{"type":"result","subtype":"error_max_turns"}"#, false),
        (r#"{"type":"result","subtype":5,"is_error":"no","num_turns":"3"}"#, false),
        (r#"{"type":"result"}"#, false),
    ] {
        let Fact::Result(result) = fact_of(line) else { panic!("{line}") };
        assert_eq!(result.ok, ok, "{line}");
    }
}

#[test]
fn facts_that_drive_a_session() {
    let id = Uuid::from_u128(5);
    for (line, fact) in [
        (format!(r#"{{"type":"user","isReplay":true,"uuid":"{id}"}}"#), Fact::UserReplay { uuid: Some(id) }),
        (
            r#"{"type":"system","subtype":"session_state_changed","state":"requires_action"}"#.into(),
            Fact::SessionState(SessionState::RequiresAction),
        ),
        (
            r#"{"type":"control_cancel_request","request_id":"r"}"#.into(),
            Fact::PermissionWithdrawn { request_id: "r".into() },
        ),
        (
            r#"{"type":"control_response","response":{"subtype":"error","request_id":"r","error":"no"}}"#
                .into(),
            Fact::ControlAnswered { request_id: "r".into(), result: Err("no".into()) },
        ),
        (
            r#"{"type":"control_response","response":{"subtype":"success","request_id":"r"}}"#.into(),
            Fact::ControlAnswered { request_id: "r".into(), result: Ok(Value::Null) },
        ),
        (
            format!(r#"{{"type":"command_lifecycle","command_uuid":"{id}","state":"started"}}"#),
            Fact::Lifecycle { uuid: Some(id), state: Lifecycle::Started },
        ),
        (
            r#"{"type":"system","subtype":"task_updated","task_id":"t","patch":{"status":"killed"}}"#.into(),
            Fact::Task {
                task_id: "t".into(),
                phase: TaskPhase::Updated,
                task_type: None,
                status: Some("killed".into()),
                summary: None,
            },
        ),
        (
            r#"{"type":"control_request","request_id":"r","request":{"subtype":"hook_callback","x":1}}"#
                .into(),
            Fact::HostRequest {
                request_id: "r".into(),
                subtype: "hook_callback".into(),
                request: serde_json::json!({"subtype": "hook_callback", "x": 1}),
            },
        ),
    ] {
        assert_eq!(fact_of(&line), fact, "{line}");
    }
}

#[test]
fn a_permission_request_names_its_input_by_the_input_s_own_bytes() {
    let ask = |input: &str, subtype: &str| {
        let line = format!(
            r#"{{"type":"control_request","request_id":"r","request":{{"subtype":"{subtype}","tool_name":"Bash","mcp_server_name":"m","message":"Name?","input":{input},"tool_use_id":"t","permission_suggestions":[{{"type":"setMode"}}]}}}}"#
        );
        match fact_of(&line) {
            Fact::PermissionAsked(asked) => *asked,
            fact => panic!("{fact:?}"),
        }
    };
    let asked = ask(r#"{"n":1.0,  "b":"\u0041"}"#, "can_use_tool");
    assert_eq!(
        asked,
        crate::permission::Asked {
            request_id: "r".into(),
            kind: PermissionKind::Tool,
            tool: "Bash".into(),
            tool_use_id: Some("t".into()),
            description: Some("Name?".into()),
            input: serde_json::json!({"n": 1.0, "b": "A"}),
            input_hash: crate::permission::input_hash(br#"{"n":1.0,  "b":"\u0041"}"#),
            unusual: vec![],
            suggestions: vec![serde_json::json!({"type": "setMode"})],
        }
    );
    let deep = ask(&format!("{}{}", "[".repeat(500), "]".repeat(500)), "can_use_tool");
    assert_eq!(
        (deep.input, deep.unusual),
        (Value::Null, vec!["it is nested too deeply to be shown".to_owned()])
    );
    let elicitation = ask("{}", "elicitation");
    assert_eq!((elicitation.kind, elicitation.tool.as_str()), (PermissionKind::Elicitation, "m"));
}

/// Starting anew at the hold of any cut gives the same lines after the cut, and the same open message.
fn check_restarts(records: &[RecordIn]) -> Result<(), TestCaseError> {
    let mut whole = Decoder::with_max_line(300);
    let (mut out, mut cuts) = (Vec::new(), Vec::new());
    for record in records {
        whole.step(record.clone(), &mut out);
        cuts.push((record.seq, whole.hold(), whole.open().clone()));
    }
    whole.finish(&mut out);
    for (cursor, hold, open) in cuts {
        let from = hold.unwrap_or(cursor + 1);
        prop_assert!(from <= cursor + 1);
        let mut anew = Decoder::with_max_line(300);
        let mut again = Vec::new();
        for record in records.iter().filter(|record| (from..=cursor).contains(&record.seq)) {
            anew.step(record.clone(), &mut again);
        }
        prop_assert_eq!(anew.open(), &open, "after {}", cursor);
        prop_assert_eq!(anew.hold(), hold, "after {}", cursor);
        again.clear();
        for record in records.iter().filter(|record| record.seq > cursor) {
            anew.step(record.clone(), &mut again);
        }
        let at_end = again.len();
        anew.finish(&mut again);
        let expected: Vec<&Decoded> = out.iter().filter(|line| line.record_seq > cursor).collect();
        let emitted: Vec<&Decoded> = again
            .iter()
            .enumerate()
            .filter(|(at, line)| *at < at_end || line.record_seq > cursor)
            .map(|(_, l)| l)
            .collect();
        prop_assert_eq!(emitted, expected, "after {}", cursor);
    }
    Ok(())
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = DELTAS
        .iter()
        .copied()
        .chain([
            r#"{"type":"stream_event","event":{"type":"message_stop"}}"#,
            r#"{"type":"assistant","message":{"id":"msg_1","content":[{"type":"text","text":"Hello."}]}}"#,
            r#"{"type":"result","subtype":"success","is_error":false,"session_id":"00000000-0000-0000-0000-000000000001"}"#,
            r#"{"type":"system","subtype":"session_state_changed","state":"idle"}"#,
            "",
            "not json",
        ])
        .map(|line| line.as_bytes().to_vec())
        .collect();
    prop_oneof![
        8 => proptest::sample::select(known),
        1 => proptest::collection::vec(any::<u8>().prop_filter("one line", |byte| *byte != b'\n'), 0..400),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_may_start_anew_at_any_hold(
        lines in proptest::collection::vec((any_line(), any::<bool>()), 1..20),
        sizes in proptest::collection::vec(1_usize..200, 1..20),
        ends in any::<bool>(),
    ) {
        let mut streams = [(StreamIn::Out, Vec::new(), 0), (StreamIn::Err, Vec::new(), 0)];
        for (line, to_stderr) in lines {
            let stream = &mut streams[usize::from(to_stderr)].1;
            stream.extend_from_slice(&line);
            stream.push(b'\n');
        }
        if !ends {
            streams[0].1.pop();
        }
        // The two streams in turns, in pieces of the given sizes.
        let (mut records, mut sizes) = (Vec::new(), sizes.iter().cycle());
        while streams.iter().any(|(_, bytes, at)| *at < bytes.len()) {
            for (stream, bytes, at) in &mut streams {
                let end = bytes.len().min(*at + sizes.next().unwrap());
                if *at < end {
                    records.push(record(records.len() as u64 + 1, *stream, *at as u64, &bytes[*at..end]));
                }
                *at = end;
            }
        }
        check_restarts(&records)?;
    }
}
