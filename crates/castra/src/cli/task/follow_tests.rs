//! What is told of events and ends, and which exit code an end is.

use super::*;
use castra_proto::task::{Progress, Reason};
use castra_proto::{TaskId, TaskSpec};
use serde_json::{Value, json};

fn event(kind: TaskEventKind, level: Level, message: &str, data: Value) -> TaskEvent {
    TaskEvent {
        seq: 7,
        at: Timestamp(0),
        task_id: TaskId::now(),
        attempt: 1,
        kind,
        level,
        message: message.into(),
        data,
    }
}

fn task(state: TaskState, reason: Option<ReasonCode>) -> Task {
    let reason = reason.map(|code| Reason { code, message: "why".into(), tail: Vec::new() });
    Task {
        id: TaskId::now(),
        name: None,
        state,
        since: Timestamp(0),
        attempt: 1,
        attempts: Vec::new(),
        progress: Progress::default(),
        result: None,
        reason,
        session_id: None,
        deliverables: Vec::new(),
        parent: None,
        children: Vec::new(),
        labels: Default::default(),
        metadata: None,
        priority: 0,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        spec: TaskSpec::default(),
    }
}

#[test]
fn an_end_is_an_exit_code() {
    let table = [
        (TaskState::Done, None, None),
        (TaskState::Failed, Some(ReasonCode::Error), Some((1, "the task failed: why"))),
        (TaskState::Failed, Some(ReasonCode::NoDone), Some((1, "the task failed: why"))),
        (TaskState::Failed, Some(ReasonCode::Timeout), Some((TIMED_OUT, "the task failed: why"))),
        (TaskState::Cancelled, Some(ReasonCode::Cancelled), Some((1, "the task was cancelled why"))),
        (TaskState::Cancelled, None, Some((1, "the task was cancelled"))),
        (TaskState::Running, None, Some((1, "the task is running"))),
    ];
    for (state, reason, expected) in table {
        let failure = outcome(&task(state, reason), &Out::plain()).err();
        let told = failure.as_ref().map(|failure| (failure.exit, failure.message.as_deref().unwrap()));
        assert_eq!(told, expected, "{state} {reason:?}");
    }
}

#[test]
fn progress_is_a_line_and_what_the_end_tells_is_none() {
    use TaskEventKind::{Deliverable, Log, Outcome, Progress, Rejected, Reply, State};
    let table = [
        (Progress, Level::Info, "reading", json!({"percent": 5}), Some("  5%  reading")),
        (Progress, Level::Info, "reading", json!({"percent": null}), Some("      reading")),
        (Log, Level::Info, "a\nb", json!({}), Some("      a\n      b")),
        (Log, Level::Info, "a\u{1b}[2Jb", json!({}), Some("      a\\x1b[2Jb")),
        (Deliverable, Level::Event, "a.md, version 1", json!({}), Some("      deliverable a.md, version 1")),
        (Rejected, Level::Warning, "/etc: outside", json!({}), Some("      not taken: /etc: outside")),
        (State, Level::Event, "running", json!({"to": "running"}), Some("      running")),
        (Reply, Level::Debug, "System[x]: taken", json!({}), None),
        (Outcome, Level::Event, "done: all", json!({}), None),
    ];
    for (kind, level, message, data, expected) in table {
        let line = progress(&event(kind, level, message, data), &Out::plain());
        assert_eq!(line.as_deref(), expected, "{kind} {message}");
    }
}

#[test]
fn an_end_is_a_final_state() {
    let state = |to: &str| may_be_the_end(&event(TaskEventKind::State, Level::Event, to, json!({"to": to})));
    let ends: Vec<TaskState> = TaskState::ALL.into_iter().filter(|to| state(to.as_str())).collect();
    assert_eq!(ends, [TaskState::Done, TaskState::Failed, TaskState::Cancelled]);
    assert!(!may_be_the_end(&event(TaskEventKind::Log, Level::Info, "x", json!({"to": "done"}))));
}

#[test]
fn a_line_of_the_log_keeps_its_column() {
    let said = line(12, Timestamp(1_000_000), Level::Warning, "a\nb");
    assert_eq!(said, "    12  00:00:01  warning  a\n                           b");
}
