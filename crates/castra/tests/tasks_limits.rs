//! What bounds a task on the real CLI: its time, its budget, its turn in the queue; and a resume of which nothing is left:
//! scenario 21 of facts/optio.md §5.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_testkit::{DEADLINE, World, clis, each, wait_until};
use serde_json::json;
use std::fs;
use task::{CASTRA, SCRIPT, instructed, work};

#[test]
fn time_and_money_that_are_over_fail_a_task_with_their_reason() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        for (field, limit, code) in [
            ("timeout_s", json!(4), ReasonCode::Timeout),
            ("budget_usd", json!(0.000_001), ReasonCode::Limit),
        ] {
            let mut spec = instructed("echo 'STATUS: begun' >> optio.log; sleep 8; echo more");
            spec[field] = limit;
            let task = daemon.task(spec);
            let shown = task.wait();
            let why = shown.reason.as_ref().map(|reason| reason.code);
            assert_eq!(
                (shown.state, why),
                (TaskState::Failed, Some(code)),
                "{cli}, {field}: {:?}",
                task.log()
            );
            let exit = task.session().show().exit.expect("an exit");
            assert_eq!(exit.reaped, castra_proto::session::Reaped::Proved, "{cli}, {field}");
        }
    });
}

#[test]
fn who_has_priority_leaves_the_queue_first() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "1");
    let daemon = world.daemon();
    let first = daemon.task(instructed(
        "echo 'STATUS: here' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo DONE >> optio.log",
    ));
    first.wait_said(TaskEventKind::Progress);
    let waiting = [0, 5, -1, 5].map(|priority| {
        let mut spec = instructed("echo DONE >> optio.log");
        spec["priority"] = json!(priority);
        daemon.task(spec)
    });
    assert!(waiting.iter().all(|task| task.show().state == TaskState::Queued));
    fs::write(work(&first).join("go"), "").unwrap();
    let begun = waiting.each_ref().map(|task| {
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{:?}", task.log());
        shown.attempts[0].started_at
    });
    assert!(begun[1] < begun[3] && begun[3] < begun[0] && begun[0] < begun[2], "{begun:?}");
}

/// The folder is there, the conversation is not: it begins again, with the task, and is told of no resume.
#[test]
fn scenario_21_resumed_without_a_transcript_it_begins_with_the_task() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task = daemon.task(instructed("echo more >> kept.txt; echo 'DONE: once' >> optio.log"));
        assert_eq!(task.wait().result.as_deref(), Some("once"), "{cli}");
        let projects = world.home().join("sessions").join(&task.session().id).join("home/.claude/projects");
        assert!(projects.is_dir(), "{cli}");
        fs::remove_dir_all(&projects).unwrap();
        assert_eq!(task.act("resume").status, 200, "{cli}");
        wait_until(
            "the second attempt's end",
            || task.show().attempts.get(1).is_some_and(|one| one.ended_at.is_some()),
            DEADLINE,
        );
        let shown = task.show();
        assert_eq!((shown.state, shown.attempt), (TaskState::Done, 2), "{cli}: {:?}", task.log());
        assert_eq!(fs::read_to_string(work(&task).join("kept.txt")).unwrap(), "more\nmore\n", "{cli}");
        let calls = world.calls();
        let heard = |word: &str| {
            calls.iter().any(|call| call.last_user.as_ref().is_some_and(|text| text.contains(word)))
        };
        assert!(!heard("resumed"), "{cli}");
    });
}
