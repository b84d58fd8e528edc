//! The fold, shown on lines as the two CLI versions write them.

use super::*;
use castra_claude::decode::Decoder;
use castra_claude::line::{RecordIn, StreamIn};

const M: &str = "00000000-0000-4000-8000-00000000000a";

fn replay() -> String {
    format!(
        r#"{{"type":"user","message":{{"role":"user","content":"x"}},"uuid":"{M}","session_id":"5e000000-0000-4000-8000-000000000001","isReplay":true}}"#
    )
}

fn state(state: &str) -> String {
    format!(
        r#"{{"type":"system","subtype":"session_state_changed","state":"{state}","session_id":"5e000000-0000-4000-8000-000000000001"}}"#
    )
}

fn result(subtype: &str, reason: &str) -> String {
    format!(
        r#"{{"type":"result","subtype":"{subtype}","is_error":false,"result":"done","num_turns":1,"duration_ms":5,"total_cost_usd":0.5,"terminal_reason":"{reason}","usage":{{"input_tokens":3}},"session_id":"5e000000-0000-4000-8000-000000000001"}}"#
    )
}

fn lifecycle(state: &str) -> String {
    format!(r#"{{"type":"command_lifecycle","command_uuid":"{M}","state":"{state}"}}"#)
}

/// Folds the lines over a run that is idle, with one message inside claude; says what was added.
fn fold(lines: &[String]) -> (View, Vec<String>) {
    let mut view = View { state: RunState::Idle, run: 1, ready: true, ..View::default() };
    view.in_flight = Some(InFlight { message: M.parse().unwrap(), turn_began: false });
    let given = Given { init_id: "init".into(), permission_timeout_s: Some(5) };
    let (mut decoder, mut decoded, mut offset) = (Decoder::new(), Vec::new(), 0);
    for (seq, line) in lines.iter().enumerate() {
        let bytes = Bytes::from(format!("{line}\n"));
        let length = bytes.len() as u64;
        decoder.step(
            RecordIn { seq: seq as u64 + 1, at: 0, stream: StreamIn::Out, offset, bytes },
            &mut decoded,
        );
        offset += length;
    }
    let mut added = Added::default();
    for line in decoded {
        view.apply(line, &given, &mut added);
    }
    let mut said: Vec<String> = (added.events.iter())
        .filter(|event| matches!(event.kind, Kind::Own(_)))
        .map(|event| format!("{} turn {} {}", event.kind, event.turn, String::from_utf8_lossy(&event.data)))
        .collect();
    said.extend(added.effects.iter().map(|effect| match effect {
        Effect::Delivered { turn, .. } => format!("delivered in turn {turn}"),
        Effect::Answered { result, event, .. } => format!("answered {:?} by event {event:?}", result.text),
        Effect::Interrupted { result, .. } => {
            format!("interrupted {:?}", result.as_ref().map(|r| &r.subtype))
        }
        other => format!("{other:?}"),
    }));
    (view, said)
}

#[test]
fn a_turn_from_message_to_result() {
    let (view, said) = fold(&[state("running"), replay(), result("success", "completed"), state("idle")]);
    assert_eq!(
        said,
        [
            r#"state turn 1 {"cause":"turn_started","from":"idle","to":"running"}"#,
            &format!(r#"input_delivered turn 1 {{"message_id":"{M}"}}"#),
            r#"state turn 1 {"cause":"turn_over","from":"running","to":"idle"}"#,
            "delivered in turn 1",
            r#"answered "done" by event Some(4)"#,
        ]
    );
    assert_eq!((view.turn.n, view.results, view.cost_usd()), (1, 1, 0.5));
    assert_eq!(view.usage, json!({"input_tokens": 3}));
    assert_eq!(view.in_flight, None);
}

#[test]
fn an_interrupt_is_no_answer() {
    let (_, said) =
        fold(&[state("running"), replay(), result("error_during_execution", "aborted_streaming")]);
    assert_eq!(said.last().unwrap(), r#"interrupted Some("error_during_execution")"#);
}

#[test]
fn what_the_cli_handles_by_itself_is_answered_though_it_is_never_repeated() {
    let (_, said) = fold(&[state("running"), result("success", "completed"), state("idle")]);
    assert!(said.contains(&"delivered in turn 1".to_owned()), "{said:?}");
    assert!(said.last().unwrap().starts_with(r#"answered "done""#), "{said:?}");
}

#[test]
fn a_result_before_the_message_is_seen_is_not_its_answer() {
    // A background task's turn ends; then the message's own begins without a pause.
    let (view, said) = fold(&[
        state("running"),
        result("success", "completed"),
        replay(),
        result("success", "completed"),
        state("idle"),
    ]);
    assert!(said.contains(&"delivered in turn 2".to_owned()), "{said:?}");
    assert!(said.contains(&r#"answered "done" by event Some(5)"#.to_owned()), "{said:?}");
    assert_eq!(view.turn.n, 2);
}

#[test]
fn a_message_completed_without_a_turn_is_interrupted() {
    let (_, said) = fold(&[lifecycle("queued"), lifecycle("started"), lifecycle("completed")]);
    assert_eq!(said.last().unwrap(), "interrupted None");
}

#[test]
fn a_permission_waits_with_its_deadline_and_can_be_taken_back() {
    let ask = r#"{"type":"control_request","request_id":"r1","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"touch a"},"tool_use_id":"t1"}}"#;
    let (view, said) = fold(&[state("running"), ask.into()]);
    assert_eq!(view.state, RunState::RequiresAction);
    assert_eq!(
        (view.pending[0].tool.as_str(), view.pending[0].deadline),
        ("Bash", Some(Timestamp(5_000_000)))
    );
    assert!(said.iter().any(|said| said.starts_with("permission_requested turn 1")), "{said:?}");
    let cancel = r#"{"type":"control_cancel_request","request_id":"r1"}"#;
    let (view, said) = fold(&[state("running"), ask.into(), cancel.into()]);
    assert_eq!((view.pending.len(), view.state), (0, RunState::Running));
    assert!(said.iter().any(|said| said.starts_with("Withdrawn")), "{said:?}");
}

#[test]
fn running_again_after_a_permission_is_the_same_turn() {
    let (view, _) = fold(&[state("running"), state("requires_action"), state("running"), replay()]);
    assert_eq!(view.turn.n, 1);
}

#[test]
fn clear_is_followed() {
    let other = state("idle").replace("5e000000", "6e000000");
    let (view, _) = fold(&[state("running"), other]);
    assert_eq!(view.claude_session_ids.len(), 2);
    assert_eq!(view.claude_session_id, view.claude_session_ids.last().copied());
}

#[test]
fn bytes_that_are_no_message_are_kept() {
    let (_, said) = fold(&["\u{1}garbage".into(), "[1]".into()]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|said| said.starts_with("unknown turn 0")), "{said:?}");
}
