//! What bounds a task on the real CLI: its time, its budget, its turn in the queue; and a resume of which nothing is left:
//! scenario 21 of facts/optio.md §5.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_testkit::{DEADLINE, Task, World, clis, each, wait_for, wait_until};
use serde_json::json;
use std::fs;
use task::{CASTRA, SCRIPT, WAITS, instructed, work};

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

/// Of those with one label so many, of another one for each of its values; the others go by them.
#[test]
fn so_many_with_a_label_run_at_once_and_the_others_go_by() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT)
        .with_env("CASTRA_TASKS_RUNNING", "10")
        .with_env("CASTRA_TASKS_LABELS", "team=blue 1:user 1");
    let daemon = world.daemon();
    let labelled = |name: &str, value: &str| {
        let mut spec = instructed(WAITS);
        spec["labels"] = json!({ name: value });
        daemon.task(spec)
    };
    let [blue, next_blue] = [labelled("team", "blue"), labelled("team", "blue")];
    let [ann, next_ann, bob] = ["ann", "ann", "bob"].map(|user| labelled("user", user));
    let reds = [labelled("team", "red"), labelled("team", "red")];
    for task in reds.iter().chain([&blue, &ann, &bob]) {
        task.wait_said(TaskEventKind::Progress);
    }
    let states = |tasks: [&Task; 2]| tasks.map(|task| task.show().state);
    assert_eq!(states([&next_blue, &next_ann]), [TaskState::Queued; 2]);
    fs::write(work(&blue).join("go"), "").unwrap();
    assert_eq!(blue.wait().state, TaskState::Done, "{:?}", blue.log());
    next_blue.wait_said(TaskEventKind::Progress);
    let expected = [TaskState::Running, TaskState::Queued];
    assert_eq!(states([&next_blue, &next_ann]), expected, "the other label's place is not free");
    fs::write(work(&ann).join("go"), "").unwrap();
    next_ann.wait_said(TaskEventKind::Progress);
    for task in reds.iter().chain([&next_blue, &next_ann, &bob]) {
        task.cancel();
        task.wait();
    }
}

/// A group has no agent, and takes nobody's place.
#[test]
fn so_many_run_on_a_host_at_once() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT)
        .with_env("CASTRA_TASKS_RUNNING", "10")
        .with_env("CASTRA_TASKS_HOSTS", "local 2");
    let daemon = world.daemon();
    let mut group = json!({"children": [instructed(WAITS), instructed(WAITS)], "group": {"limit": 2}});
    group["children"][1]["session"]["host"] = json!("local");
    let group = daemon.task(group);
    let ids = wait_for(
        "its children",
        || <[_; 2]>::try_from(group.show().children).ok().map(|children| children.map(|child| child.id)),
        DEADLINE,
    );
    let children = ids.map(|id| Task::of(&group.http, id));
    for child in &children {
        child.wait_said(TaskEventKind::Progress);
    }
    let next = daemon.task(instructed(WAITS));
    fs::write(work(&children[0]).join("go"), "").unwrap();
    let over = children[0].wait();
    assert_eq!(over.state, TaskState::Done, "{:?}", children[0].log());
    next.wait_said(TaskEventKind::Progress);
    let (over, begun) = (over.attempts[0].ended_at, next.show().attempts[0].started_at);
    assert!(over.is_some_and(|over| over <= begun), "{over:?}, {begun:?}");
    for task in [&group, &next] {
        task.cancel();
        task.wait();
    }
}

#[test]
fn who_waits_for_what_is_not_done_fails_with_its_name() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let holds = daemon.task(instructed(WAITS));
    holds.wait_said(TaskEventKind::Progress);
    let after = |needs: &[&Task]| {
        let mut spec = instructed("echo DONE >> optio.log");
        spec["depends_on"] = needs.iter().map(|task| task.id.clone()).collect();
        daemon.task(spec)
    };
    let fails = daemon.task(instructed("until [ -e go ]; do sleep 0.1; done; echo ERROR >> optio.log"));
    let cancelled = daemon.task(instructed(WAITS));
    let removed = daemon.task(instructed("echo DONE >> optio.log"));
    assert_eq!(removed.wait().state, TaskState::Done, "{:?}", removed.log());
    let waiting = [&fails, &cancelled, &removed].map(|one| after(&[one, &holds]));
    let second = after(&[&waiting[0]]);
    let reason = second.show().reason.expect("a reason");
    let expected = format!("waits for task {}, which is queued", waiting[0].id);
    assert_eq!((reason.code, reason.message), (ReasonCode::Waiting, expected));
    fails.wait_state(TaskState::Running);
    fs::write(work(&fails).join("go"), "").unwrap();
    cancelled.cancel();
    assert_eq!(removed.http.delete(&removed.path("")).status, 204);
    for (task, needed, word) in [
        (&waiting[0], &fails, "was failed"),
        (&waiting[1], &cancelled, "was cancelled"),
        (&waiting[2], &removed, "was removed"),
        (&second, &waiting[0], "was failed"),
    ] {
        let shown = task.wait();
        let reason = shown.reason.expect("a reason");
        assert_eq!((shown.state, reason.code), (TaskState::Failed, ReasonCode::Dependency), "{word}");
        assert!(reason.message.contains(&needed.id) && reason.message.ends_with(word), "{}", reason.message);
        assert_eq!((shown.attempts.len(), shown.session_id), (0, None), "{word}: claude was never started");
    }
    assert_eq!(holds.show().state, TaskState::Running, "{:?}", holds.log());
    holds.cancel();
    holds.wait();
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
        assert_eq!(world.times_heard("resumed"), 0, "{cli}");
    });
}
