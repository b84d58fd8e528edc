//! What is documented has a type, and what the real CLI wrote decodes into it.

#![allow(clippy::unwrap_used)]

use castra_claude::line::{RecordIn, StreamIn};
use castra_claude::message::answer::{FromClaude, FromHost};
use castra_claude::message::control::{ToClaude, ToHost};
use castra_claude::message::stdin::PlainIn;
use castra_claude::message::stdout::Plain;
use castra_claude::message::system::System;
use castra_claude::message::{Message, Stdin, Stdout, ToolResultView, ToolUse};
use castra_claude::{Decoded, Decoder, Fact};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// facts/claude-cli.md §2 and §8, word for word.
#[test]
fn every_documented_message_has_a_type() {
    let table: [(&[&str], &str); 7] = [
        (
            Plain::KNOWN,
            "assistant user stream_event result rate_limit_event tool_progress tool_use_summary auth_status \
             prompt_suggestion conversation_reset tombstone keep_alive control_response control_cancel_request \
             transcript_mirror command_lifecycle",
        ),
        (
            System::KNOWN,
            "init status api_retry session_state_changed task_started task_updated task_notification task_progress \
             background_tasks_changed permission_denied compact_boundary commands_changed hook_started hook_progress \
             hook_response model_fallback model_refusal_fallback model_refusal_no_fallback thinking_tokens informational \
             notification local_command_output files_persisted plugin_install memory_recall elicitation_complete \
             mirror_error worker_shutting_down bridge_state post_turn_summary task_summary turn_duration",
        ),
        (
            PlainIn::KNOWN,
            "user control_response keep_alive update_environment_variables assistant system bash_command",
        ),
        (
            ToClaude::KNOWN,
            "initialize interrupt set_permission_mode set_model set_max_thinking_tokens apply_flag_settings get_settings \
             mcp_status mcp_set_servers mcp_reconnect mcp_toggle mcp_call mcp_message get_context_usage get_session_cost \
             get_usage get_binary_version rewind_files rewind_conversation cancel_async_message stop_task \
             background_tasks side_question generate_session_title rename_session reload_plugins reload_skills \
             file_suggestions read_file seed_read_state message_rated set_mcp_permission_mode_override submit_feedback \
             end_session mcp_authenticate mcp_oauth_callback_url mcp_clear_auth claude_authenticate \
             claude_oauth_callback claude_oauth_wait_for_completion register_repo_root remote_control channel_enable \
             stage_file add_directory ultrareview_launch set_color",
        ),
        (
            ToHost::KNOWN,
            "can_use_tool hook_callback mcp_message elicitation request_user_dialog oauth_token_refresh \
             host_auth_token_refresh",
        ),
        (
            FromClaude::KNOWN,
            "initialize interrupt set_permission_mode get_settings mcp_status mcp_set_servers get_context_usage \
             get_session_cost get_usage get_binary_version rewind_files rewind_conversation cancel_async_message \
             side_question",
        ),
        (FromHost::KNOWN, "can_use_tool hook_callback mcp_message elicitation request_user_dialog"),
    ];
    for (known, documented) in table {
        let missing: Vec<&str> = documented.split_whitespace().filter(|name| !known.contains(name)).collect();
        assert_eq!(missing, [""; 0]);
    }
}

fn corpus(ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let versions = ["2.1.197", "2.1.329"].map(|version| std::fs::read_dir(root.join(version)).unwrap());
    let paths = versions.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<(PathBuf, Vec<u8>)> = paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    files.sort();
    assert!(files.len() >= 60, "{} files of {ending}", files.len());
    files
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[test]
fn the_recorded_corpus_holds_nothing_unknown() {
    let mut answers = BTreeSet::new();
    for (path, bytes) in corpus(".out.jsonl") {
        // Asked by castra's side, by request id; claude echoes answers to its own requests too.
        let input = std::fs::read(path.to_string_lossy().replace(".out.", ".in.")).unwrap();
        let mut asked = BTreeMap::new();
        for line in lines(&input) {
            let message = Stdin::parse(line).unwrap();
            let deliberate = String::from_utf8_lossy(line).contains("bogus_subtype");
            assert_eq!(message.is_unknown(), deliberate, "{}: {message:?}", path.display());
            if let Stdin::ControlRequest { request_id, request } = &message {
                asked.extend(request.name().map(|name| (request_id.clone(), name)));
            }
        }
        for line in lines(&bytes) {
            let message = Stdout::parse(line).unwrap();
            assert!(!message.is_unknown(), "{}: {}", path.display(), String::from_utf8_lossy(line));
            if let Stdout::Plain(Plain::ControlResponse(it)) = message {
                let response = it.response.unwrap();
                let name = response.request_id.as_ref().and_then(|id| asked.get(id));
                if let (Some(name), Some(payload)) = (name, response.response)
                    && FromClaude::KNOWN.contains(name)
                {
                    let answer = FromClaude::read(name, payload);
                    assert_eq!(answer.name(), Some(*name), "{}: {answer:?}", path.display());
                    answers.insert(*name);
                }
            }
        }
    }
    assert!(answers.len() >= 15, "{answers:?}");
}

fn decode(bytes: &[u8], size: usize) -> Vec<Decoded> {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    for (number, part) in bytes.chunks(size).enumerate() {
        let (seq, offset) = (number as u64 + 1, (number * size) as u64);
        let bytes = bytes::Bytes::copy_from_slice(part);
        decoder.step(RecordIn { seq, at: seq, stream: StreamIn::Out, offset, bytes }, &mut out);
    }
    decoder.finish(&mut out);
    assert_eq!(decoder.hold(), None);
    out
}

#[test]
fn the_recorded_corpus_decodes_byte_for_byte_however_it_is_cut() {
    for (path, bytes) in corpus(".out.jsonl") {
        let whole = decode(&bytes, 64 << 10);
        let events = lines(&bytes).filter(|line| Message::parse(line).unwrap().kind() != "stream_event");
        let kept: Vec<&[u8]> = whole.iter().map(|line| &line.data[..]).collect();
        assert_eq!(kept, events.collect::<Vec<_>>(), "{}", path.display());
        let small = decode(&bytes, 97);
        let names = |lines: &[Decoded]| {
            lines.iter().map(|l| (l.line, l.kind.clone(), l.fact.clone())).collect::<Vec<_>>()
        };
        assert_eq!(names(&small), names(&whole), "{}", path.display());
        assert!(whole.iter().all(|line| line.note.is_none() && line.json));
    }
}

/// What each recorded turn came to: `(scenario, subtype, ok, status)`.
#[test]
fn recorded_results_are_judged_as_they_were() {
    let mut seen = BTreeMap::<String, BTreeSet<(String, bool, Option<u16>)>>::new();
    for (path, bytes) in corpus(".out.jsonl") {
        let name = path.file_name().unwrap().to_string_lossy().replace(".out.jsonl", "");
        for line in decode(&bytes, 4096) {
            if let Fact::Result(result) = line.fact {
                assert_eq!(Message::parse(&line.data).unwrap().truly_succeeded(), result.ok);
                seen.entry(name.clone()).or_default().insert((
                    result.subtype,
                    result.ok,
                    result.api_error_status,
                ));
            }
        }
    }
    for (name, subtype, ok, status) in [
        ("hello", "success", true, None),
        ("text_error", "success", true, None),
        ("slash", "success", true, None),
        ("error_400", "success", false, Some(400)),
        ("error_401", "success", false, Some(401)),
        ("error_429", "success", true, None),
        ("error_529", "success", false, Some(529)),
        ("not_logged_in", "success", false, None),
        ("interrupt_tool", "error_during_execution", false, None),
        ("interrupt_ask", "error_during_execution", false, None),
        ("tool_deny_interrupt", "error_during_execution", false, None),
        ("end_session", "error_during_execution", false, None),
        ("no_such_session", "error_during_execution", false, None),
        ("max_turns", "error_max_turns", false, None),
    ] {
        assert_eq!(seen[name], BTreeSet::from([(subtype.to_owned(), ok, status)]), "{name}");
    }
}

#[test]
fn recorded_permission_requests_are_of_their_kinds() {
    use castra_proto::permission::PermissionKind::{Plan, Question, Tool};
    let mut seen = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, bytes) in corpus(".out.jsonl") {
        let name = path.file_name().unwrap().to_string_lossy().replace(".out.jsonl", "");
        for line in decode(&bytes, 4096) {
            if let Fact::PermissionAsked(asked) = line.fact {
                let kinds = seen.entry(name.clone()).or_default();
                kinds.insert(format!("{:?} {} {}", asked.kind, asked.tool, asked.suggestions.len()));
                assert_eq!(asked.unusual, [""; 0]);
            }
        }
    }
    for (name, kind, tool, suggestions) in [
        ("tool_allow", Tool, "Bash", 3),
        ("question", Question, "AskUserQuestion", 0),
        ("plan", Plan, "ExitPlanMode", 0),
        ("sdk_mcp", Tool, "mcp__x__echo", 1),
    ] {
        assert!(seen[name].contains(&format!("{kind:?} {tool} {suggestions}")), "{name}: {:?}", seen[name]);
    }
}

#[test]
fn helpers_see_through_what_misled_others() {
    let view = |value: Value| value.to_string();
    let line = view(
        json!({"type": "result", "subtype": "success", "is_error": false, "result": null, "total_cost_usd": 0.5,
        "num_turns": 2}),
    );
    let message = Message::parse(line.as_bytes()).unwrap();
    assert_eq!(
        (message.result_text(), message.truly_succeeded(), message.cost_usd(), message.num_turns()),
        (None, true, Some(0.5), Some(2))
    );
    for (value, succeeded, api_error) in [
        (
            json!({"type": "result", "subtype": "success", "is_error": true, "api_error_status": 401}),
            false,
            true,
        ),
        (
            json!({"type": "result", "subtype": "success", "is_error": true, "result": "Not logged in"}),
            false,
            true,
        ),
        (json!({"type": "result", "subtype": "error_max_turns", "is_error": true}), false, false),
        (
            json!({"type": "result", "subtype": "success", "is_error": false, "result": "Error: x"}),
            true,
            false,
        ),
        (json!({"type": "assistant", "error": "rate_limit"}), false, true),
        (
            json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "API Error: x"}]}}),
            false,
            false,
        ),
    ] {
        let line = view(value);
        let message = Message::parse(line.as_bytes()).unwrap();
        assert_eq!((message.truly_succeeded(), message.is_api_error()), (succeeded, api_error), "{line}");
    }
}

#[test]
fn helpers_read_texts_calls_and_results() {
    let line = json!({"type": "assistant", "message": {"content": [
        {"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}]}})
    .to_string();
    let message = Message::parse(line.as_bytes()).unwrap();
    assert_eq!(message.texts(), ["a"]);
    assert_eq!(message.tool_calls(), [ToolUse { id: "t", name: "Bash", input: &json!({"command": "ls"}) }]);
    let line = json!({"type": "user", "message": {"content": [
        {"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": [{"type": "text", "text": "no"}]},
        {"type": "tool_result", "tool_use_id": "u", "content": "yes"}]}})
    .to_string();
    let message = Message::parse(line.as_bytes()).unwrap();
    assert!(message.is_tool_result());
    assert_eq!(
        message.tool_results(),
        [
            ToolResultView { tool_use_id: "t", is_error: true, text: "no".into() },
            ToolResultView { tool_use_id: "u", is_error: false, text: "yes".into() },
        ]
    );
}

#[test]
fn unknown_fields_and_messages_are_kept() {
    let line = json!({"type": "keep_alive", "new": [1]}).to_string();
    let Some(Stdout::Plain(Plain::KeepAlive(message))) = Stdout::parse(line.as_bytes()) else {
        panic!("{line}")
    };
    assert_eq!(message.extra["new"], json!([1]));
    for value in [json!({"type": "brand_new", "x": 1}), json!({"type": "command_lifecycle", "state": 5})] {
        let parsed = Stdout::parse(value.to_string().as_bytes());
        assert_eq!(parsed, Some(Stdout::Plain(Plain::Unknown(value))));
    }
}
