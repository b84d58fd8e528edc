//! The daemon is killed around the hooks of a task: they may be called again, and what the agent hears and what becomes
//! of the task is what comes of an undisturbed one.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::task::TaskEventKind;
use castra_proto::{Task as Shown, TaskState};
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, wait_for, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use task::{CASTRA, SCRIPT, instructed, replies};

const RUN: &str = "echo long > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log; sleep 2; \
    echo short > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log; sleep 2; \
    echo 'DONE: all' >> optio.log; sleep 300";

/// What a person would tell of a task.
#[derive(Debug, PartialEq)]
struct Story {
    end: (TaskState, Option<String>, u32),
    deliverables: Vec<(String, u32, String)>,
    events: Vec<(TaskEventKind, String)>,
    replies: Vec<String>,
    /// Firings that the hooks were told of, each once.
    fired: BTreeSet<String>,
}

fn plain(text: &str) -> String {
    text.split_once("]: ").map_or(text, |(_, rest)| rest).to_owned()
}

fn story(task: &Task, world: &World) -> Story {
    let shown = task.wait();
    let events = task.events().into_iter().filter(|event| event.kind != TaskEventKind::Attempt);
    let told = std::fs::read_to_string(world.root().join("notes")).unwrap_or_default();
    Story {
        end: (shown.state, shown.result, shown.attempt),
        deliverables: (shown.deliverables.into_iter())
            .map(|one| (one.path, one.version, one.sha256))
            .collect(),
        events: events.map(|event| (event.kind, plain(&event.message))).collect(),
        replies: replies(task).iter().map(|text| plain(text)).collect(),
        fired: told.lines().map(|line| line.split_once(' ').unwrap().0.to_owned()).collect(),
    }
}

/// Each hook writes down for which point and about what it was called.
fn body(world: &World) -> Value {
    let notes = world.root().join("notes");
    let hook = |on: &str, then: &str| {
        let text = format!(
            "told=$(cat); case \"$told\" in *'\"text\":\"long'*) what=long;; *'\"text\":\"short'*) what=short;; *) what=none;; esac; \
             echo \"$CASTRA_HOOK:$what $$\" >> {}; {then}",
            notes.display()
        );
        json!({"on": on, "command": ["sh", "-c", text]})
    };
    let mut body = instructed(RUN);
    body["session"] = world.spec(body["session"].take());
    let judge = hook("deliverable", "if [ $what = long ]; then echo make it shorter; fi");
    body["hooks"] = json!([hook("before", ""), judge, hook("after", "")]);
    body
}

/// Posted until somebody has answered: the same request, so one task.
fn post(daemon: &Daemon<'_>, body: &Value) -> Option<Task> {
    let headers = [("Idempotency-Key", "the one")];
    let sent = body.to_string().into();
    let reply = daemon.http().try_call("POST".parse().unwrap(), "/api/v1/tasks", &headers, sent).ok()?;
    let shown: Shown = reply.expect(201);
    Some(Task { http: daemon.http(), id: shown.id.to_string() })
}

#[test]
fn killed_around_a_hook() {
    let cli = &clis()[0];
    let undisturbed = {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        story(&post(&daemon, &body(&world)).expect("an answer"), &world)
    };
    assert_eq!(undisturbed.end, (TaskState::Done, Some("all".into()), 1), "{undisturbed:?}");
    let expected = [
        "deliverable deliverables/a.txt: please revise it and hand it over again: make it shorter",
        "deliverable deliverables/a.txt: accepted.",
    ];
    assert_eq!(undisturbed.replies, expected);
    let fired = ["after:none", "before:none", "deliverable:long", "deliverable:short"];
    assert_eq!(undisturbed.fired, fired.map(str::to_owned).into());
    // The first is `before`, the second asks for a revision, the fourth is `after`.
    for place in [
        "task.hook",
        "task.settled",
        "task.hook:2",
        "task.hooked",
        "task.settled:2",
        "task.reply",
        "task.hooked:2",
        "task.hook:4",
        "task.settled:4",
    ] {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut daemon = world.daemon();
        daemon.kill9();
        daemon.start_doomed(place);
        let body = body(&world);
        post(&daemon, &body);
        wait_until(&format!("the daemon to die at {place}"), || daemon.is_over(), DEADLINE);
        daemon.start_again();
        let task = wait_for("an answer", || post(&daemon, &body), DEADLINE);
        assert_eq!(story(&task, &world), undisturbed, "{place}");
    }
}

/// What was left of the first call is ended before the second begins.
#[test]
fn killed_while_a_hook_runs() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut daemon = world.daemon();
    let (notes, gate) = (world.root().join("notes"), world.root().join("gate"));
    let text = format!(
        "echo $$ >> {}; while [ ! -e {} ]; do sleep 0.1; done; echo make it shorter",
        notes.display(),
        gate.display()
    );
    let mut body = instructed("echo x > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log");
    body["hooks"] = json!([{"on": "deliverable", "command": ["sh", "-c", text]}]);
    let task = daemon.task(body);
    let called = || std::fs::read_to_string(&notes).unwrap_or_default().lines().count();
    wait_until("the hook to run", || called() == 1, DEADLINE);
    daemon.kill9();
    daemon.start_again();
    wait_until("the hook to run again", || called() == 2, DEADLINE);
    let first: i32 = std::fs::read_to_string(&notes).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(castra_testkit::proc::process(first).is_none(), "one at a time");
    std::fs::write(&gate, "").unwrap();
    let task = Task { http: daemon.http(), ..task };
    wait_until("the reply", || !replies(&task).is_empty(), DEADLINE);
    std::fs::write(notes, "").unwrap();
    task.cancel();
    task.wait();
    let told = replies(&task);
    assert!(told.len() == 1 && told[0].ends_with("hand it over again: make it shorter"), "{told:?}");
}
