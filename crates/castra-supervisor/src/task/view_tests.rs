//! The fold over what a session says: each way to an end, once.

use super::*;
use bytes::Bytes;
use castra_proto::SessionSpec;

fn event(seq: u64, kind: &str, data: Value) -> StoredEvent {
    StoredEvent {
        seq,
        at: Timestamp(seq as i64),
        run: 1,
        turn: 1,
        kind: Kind::parse(kind),
        data: Bytes::from(data.to_string()),
        raw: None,
    }
}

fn running() -> TaskView {
    TaskView { state: TaskState::Running, ..TaskView::default() }
}

fn instructed() -> TaskSpec {
    TaskSpec { instructions: Some("work".into()), ..TaskSpec::default() }
}

/// What comes of these events: state and reason of the outcome, and the kinds of the task's events.
fn told(
    spec: &TaskSpec,
    events: &[(&str, Value)],
) -> (Option<(TaskState, Option<ReasonCode>)>, Vec<TaskEventKind>) {
    let mut view = running();
    let mut said = Vec::new();
    for (n, (kind, data)) in events.iter().enumerate() {
        view.apply(&event(n as u64 + 1, kind, data.clone()), spec, &mut said);
    }
    assert_eq!(view.cursor, events.len() as u64);
    let outcome = view.outcome.map(|outcome| (outcome.state, outcome.reason.map(|reason| reason.code)));
    (outcome, said.into_iter().map(|event| event.kind).collect())
}

fn exit(cause: &str, code: Option<i32>) -> (&'static str, Value) {
    ("exit", json!({"cause": cause, "code": code, "signal": null}))
}

#[test]
fn the_first_word_ends_it() {
    use TaskEventKind::{Log, Outcome, Progress};
    let done = || ("status", json!({"said": "done", "message": "all of it"}));
    let error = || ("status", json!({"said": "error", "message": "no"}));
    let status = || ("status", json!({"said": "status", "percent": 10, "message": "begun"}));
    let line = || ("status", json!({"said": "line", "message": "DONE extra"}));
    let spec = instructed();
    for (events, outcome, kinds) in [
        (vec![status(), line(), done()], Some((TaskState::Done, None)), vec![Progress, Log, Outcome]),
        (vec![error()], Some((TaskState::Failed, Some(ReasonCode::Error))), vec![Outcome]),
        (vec![done(), error()], Some((TaskState::Done, None)), vec![Outcome]),
        (vec![error(), done()], Some((TaskState::Failed, Some(ReasonCode::Error))), vec![Outcome]),
        (vec![done(), exit("stopped", Some(0))], Some((TaskState::Done, None)), vec![Outcome]),
        (vec![status(), line()], None, vec![Progress, Log]),
    ] {
        assert_eq!(told(&spec, &events), (outcome, kinds), "{events:?}");
    }
}

#[test]
fn an_exit_is_what_the_completion_rule_makes_of_it() {
    let protocol = instructed();
    let by_exit = TaskSpec { completion: Some(vec![Completion::Exit]), ..instructed() };
    let plain = TaskSpec::default();
    let failed = |code| Some((TaskState::Failed, Some(code)));
    let done = Some((TaskState::Done, None));
    for (spec, cause, code, outcome) in [
        (&protocol, "finished", Some(0), failed(ReasonCode::NoDone)),
        (&by_exit, "finished", Some(0), done),
        (&by_exit, "crashed", Some(3), failed(ReasonCode::Exit)),
        (&protocol, "crashed", Some(3), failed(ReasonCode::Exit)),
        (&protocol, "lost", None, failed(ReasonCode::Lost)),
        (&by_exit, "lost", None, failed(ReasonCode::Lost)),
        (&protocol, "stopped", Some(0), failed(ReasonCode::Stopped)),
        (&plain, "stopped", Some(0), done),
        (&plain, "crashed", Some(1), failed(ReasonCode::Exit)),
        (&protocol, "timeout", None, failed(ReasonCode::Timeout)),
        (&protocol, "budget_exceeded", None, failed(ReasonCode::Limit)),
        (&protocol, "max_turns", None, failed(ReasonCode::Limit)),
        (&protocol, "memory_limit", None, failed(ReasonCode::Limit)),
        (&protocol, "spawn_failed", None, failed(ReasonCode::Start)),
        (&protocol, "start_timeout", None, failed(ReasonCode::Start)),
        // Of a newer castra: what it means cannot be known.
        (&protocol, "transcended", None, failed(ReasonCode::Lost)),
    ] {
        assert_eq!(told(spec, &[exit(cause, code)]).0, outcome, "{cause}");
    }
}

/// claude itself stays, and waits for a next prompt.
#[test]
fn a_limit_that_claude_keeps_ends_it() {
    let result = |subtype: &str| ("result", json!({"type": "result", "subtype": subtype, "result": ""}));
    for (subtype, outcome) in [
        ("error_max_budget_usd", Some((TaskState::Failed, Some(ReasonCode::Limit)))),
        ("error_max_turns", Some((TaskState::Failed, Some(ReasonCode::Limit)))),
        ("success", None),
        ("error_during_execution", None),
    ] {
        assert_eq!(told(&instructed(), &[result(subtype)]).0, outcome, "{subtype}");
        let done = ("status", json!({"said": "done", "message": ""}));
        let first = told(&instructed(), &[done, result(subtype)]).0;
        assert_eq!(first, Some((TaskState::Done, None)), "{subtype}: what was done before stays so");
    }
}

#[test]
fn done_counts_only_where_the_protocol_does() {
    let spec = TaskSpec { completion: Some(vec![Completion::Exit]), ..instructed() };
    let events = [("status", json!({"said": "done"})), exit("finished", Some(0))];
    assert_eq!(told(&spec, &events), (Some((TaskState::Done, None)), vec![TaskEventKind::Outcome]));
}

#[test]
fn whoever_waits_for_a_person_says_so() {
    let mut view = running();
    let mut said = Vec::new();
    let spec = instructed();
    let to = |state: &str| json!({"from": "running", "to": state});
    for (seq, state, expected) in [
        (1, "requires_action", TaskState::NeedsInput),
        (2, "running", TaskState::Running),
        (3, "idle", TaskState::Running),
    ] {
        view.apply(&event(seq, "state", to(state)), &spec, &mut said);
        assert_eq!(view.state, expected, "{state}");
    }
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn the_same_content_is_no_new_version() {
    let mut view = running();
    let mut hand = |path: &str, sha: &str| {
        view.handed_over(path, 1, sha, "text/plain".into(), Timestamp(1)).map(|one| one.version)
    };
    assert_eq!(hand("a", "1"), Some(1));
    assert_eq!(hand("a", "1"), None);
    assert_eq!(hand("a", "2"), Some(2));
    assert_eq!(hand("b", "2"), Some(1));
    assert_eq!(hand("a", "1"), Some(3));
}

#[test]
fn what_counts_without_a_choice() {
    use castra_proto::spec::Mode;
    let spec = |protocol, mode, instructions: bool| TaskSpec {
        protocol,
        session: SessionSpec { mode, ..SessionSpec::default() },
        instructions: instructions.then(|| "work".into()),
        ..TaskSpec::default()
    };
    for (spec, counts) in [
        (spec(Protocol::Both, Mode::Stream, true), vec![Completion::Protocol]),
        (spec(Protocol::Log, Mode::Terminal, true), vec![Completion::Protocol, Completion::Exit]),
        (spec(Protocol::None, Mode::Stream, true), vec![Completion::Result]),
        (spec(Protocol::None, Mode::Terminal, true), vec![Completion::Exit]),
        (spec(Protocol::None, Mode::Stream, false), vec![]),
    ] {
        assert_eq!(completion(&spec), counts);
    }
}
