//! Many tasks: a queue with a limit, through two kills of the daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::task::{Task as Shown, TaskEventKind};
use castra_proto::{Session, TaskState};
use castra_testkit::{Task, World, clis, wait_until};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use task::CASTRA;

const TASKS: usize = 200;
const AT_ONCE: usize = 5;
/// A start of claude and a turn for each, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(1200);

const SCRIPT: &str = r#"
[[rule]]
reply.text = "did it"
"#;

/// How many attempts there were at the same time: a place is free again when the task that had it is over.
fn most_at_once(tasks: &[Shown]) -> usize {
    let attempts: Vec<_> = tasks.iter().flat_map(|task| &task.attempts).collect();
    let at = |moment| {
        let began = attempts.iter().filter(|attempt| attempt.started_at <= moment);
        began.filter(|attempt| attempt.ended_at.is_none_or(|ended| ended > moment)).count()
    };
    attempts.iter().map(|attempt| at(attempt.started_at)).max().unwrap_or_default()
}

#[test]
fn two_hundred_queued_tasks_end_each_once_through_two_kills() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", &AT_ONCE.to_string());
    let mut daemon = world.daemon();
    for n in 0..TASKS {
        let spec = json!({
            "instructions": format!("Task number {n}."),
            "protocol": "none",
            "metadata": n,
            "session": world.spec(json!({})),
        });
        let reply = daemon.http().post("/api/v1/tasks", &spec);
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    // What the model was asked says how far they are; nobody asks the daemon meanwhile.
    for kill_at in [TASKS / 3, 2 * TASKS / 3] {
        wait_until(&format!("{kill_at} turns"), || world.calls().len() >= kill_at, LONG);
        daemon.kill9();
        daemon.start_again();
    }
    wait_until("all turns", || world.calls().len() >= TASKS, LONG);
    let open = || daemon.http().pages::<Shown>("/api/v1/tasks?limit=500");
    wait_until("all of them to be over", || open().is_empty(), LONG);

    let tasks: Vec<Shown> = daemon.http().pages("/api/v1/tasks?all=true&limit=500");
    for task in &tasks {
        let handle = Task::of(&daemon.http(), task.id);
        assert_eq!(
            (task.state, task.attempt, task.result.as_deref()),
            (TaskState::Done, 1, Some("did it")),
            "{:?}",
            handle.log()
        );
        assert_eq!(handle.said(TaskEventKind::State), ["queued", "starting", "running", "done"]);
    }
    let numbers: BTreeSet<_> = tasks.iter().filter_map(|task| task.metadata.clone()?.as_u64()).collect();
    assert_eq!((tasks.len(), numbers.len()), (TASKS, TASKS));
    assert_eq!(most_at_once(&tasks), AT_ONCE);
    let sessions: Vec<Session> = daemon.http().pages("/api/v1/sessions?all=true&limit=500");
    assert_eq!((sessions.len(), world.calls().len()), (TASKS, TASKS), "one session and one turn for each");
}
