//! The daemon is killed around the hooks of a task: they may be called again, and what the agent hears and what becomes
//! of the task is what comes of an undisturbed one.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "task/crash.rs"]
mod crash;
mod task;

use castra_proto::TaskState;
use castra_testkit::{DEADLINE, Task, World, clis, wait_until};
use crash::{Doomed, OF_FILES, Story, firings, first, hook, script, undisturbed};
use serde_json::{Value, json};
use task::{CASTRA, SCRIPT, instructed, replies};

const TASKS: &str = "/api/v1/tasks";

/// The first file is too long at first; the one that is none is shown to nobody.
fn judged(world: &World) -> Value {
    let mut body = instructed(&first("echo long"));
    body["session"] = world.spec(body["session"].take());
    let judge =
        hook(world, "deliverable", "case \"$told\" in *'\"text\":\"long'*) echo make it shorter;; esac");
    body["hooks"] = json!([hook(world, "before", ""), judge, hook(world, "after", "")]);
    body
}

/// What was told, and how often.
fn told(world: &World, task: &Task) -> Vec<(String, Value, usize)> {
    let mut told: Vec<_> = firings(world, &task.id).into_values().collect();
    told.sort_by_key(|told| format!("{told:?}"));
    told
}

fn each_told(times: [usize; 5]) -> Vec<(String, Value, usize)> {
    let [after, before, last, long, short] = times;
    let one = |point: &str, what: Value, times| (point.to_owned(), what, times);
    vec![
        one("after", json!("done"), after),
        one("before", Value::Null, before),
        one("deliverable", json!("last\n"), last),
        one("deliverable", json!("long\n"), long),
        one("deliverable", json!("short\n"), short),
    ]
}

#[test]
fn killed_around_a_hook() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let daemon = world.daemon();
    let task = undisturbed(&daemon, &judged(&world), |_, _| {});
    let expected = Story::of(&task, &world);
    assert_eq!(expected.end, (TaskState::Done, Some("short".into()), 1), "{expected:#?}");
    let revise =
        "deliverable deliverables/first.txt: please revise it and hand it over again: make it shorter";
    let heard = [&[revise], &OF_FILES[..]].concat();
    assert_eq!(expected.heard[0][1..], heard, "{expected:#?}");
    assert_eq!(told(&world, &task), each_told([1; 5]));

    let mut doomed = Doomed::new(daemon, &world, TASKS, judged(&world));
    doomed.dies_at(&[
        // Before the agent begins: not called yet; called, and settled.
        "task.hook",
        "task.settled",
        // The file that is to be revised: not called; called; called again, and settled; answered.
        "task.hook",
        "task.hooked",
        "task.settled",
        "task.reply",
        "task.commit",
        // The one that is taken.
        "task.hook",
        "task.hooked",
        "task.settled",
        "task.reply",
        "task.commit",
        // The one that is refused without a hook, and the last one.
        "task.reply",
        "task.hooked",
        "task.settled",
        "task.commit",
        // At the end.
        "task.stopped",
        "task.hook",
        "task.settled",
        "task.commit",
    ]);
    let task = doomed.task();
    assert_eq!(Story::of(&task, &world), expected);
    // Whoever was called and not written down was called again, with the same id.
    assert_eq!(told(&world, &task), each_told([1, 1, 2, 2, 2]));
}

/// What was left of the first call is ended before the second begins.
#[test]
fn killed_while_a_hook_runs() {
    let world = World::new(CASTRA, &clis()[0].path, SCRIPT);
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
