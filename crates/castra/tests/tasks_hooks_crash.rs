//! The daemon is killed around the hooks of a task: they may be called again, and what the agent hears and what becomes
//! of the task is what comes of an undisturbed one.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "task/crash.rs"]
mod crash;
#[path = "task/endpoint.rs"]
mod endpoint;
mod task;

use castra_proto::TaskState;
use castra_proto::task::TaskEventKind;
use castra_testkit::{DEADLINE, Task, World, clis, wait_until};
use crash::{Doomed, OF_FILES, Story, firings, first, hook, script, undisturbed};
use endpoint::Endpoint;
use hyper::Method;
use serde_json::{Value, json};
use std::fs;
use task::{CASTRA, SCRIPT, instructed, replies, work};

const TASKS: &str = "/api/v1/tasks";
/// Of the webhook, in Base64.
const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

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
    let task = undisturbed(&daemon, &judged(&world), |_, shown| shown.state.is_final());
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
    let called = || fs::read_to_string(&notes).unwrap_or_default().lines().count();
    wait_until("the hook to run", || called() == 1, DEADLINE);
    daemon.kill9();
    daemon.start_again();
    wait_until("the hook to run again", || called() == 2, DEADLINE);
    let first: i32 = fs::read_to_string(&notes).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(castra_testkit::proc::process(first).is_none(), "one at a time");
    fs::write(&gate, "").unwrap();
    let task = Task { http: daemon.http(), ..task };
    wait_until("the reply", || !replies(&task).is_empty(), DEADLINE);
    fs::write(notes, "").unwrap();
    task.cancel();
    task.wait();
    let told = replies(&task);
    assert!(told.len() == 1 && told[0].ends_with("hand it over again: make it shorter"), "{told:?}");
}

/// Hooks that are only told: of a state, a file that was put in, a message, the end. Whoever was not told is told by the
/// next daemon; whoever was, and it was not written down, is told again, with the same id.
#[test]
fn killed_around_a_hook_that_is_told() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let endpoint = Endpoint::new(|_| (204, String::new()));
    let mut running = hook(&world, "state", "");
    running["states"] = json!(["running"]);
    let after = json!({"on": "after", "webhook": {
        "url": endpoint.url(), "secret": format!("whsec_{KEY}"), "allow_private": true,
    }});
    let mut body = instructed("until [ -e look ]; do sleep 0.1; done; echo 'ATTENTION: look' >> optio.log");
    body["session"] = world.spec(body["session"].take());
    body["hooks"] = json!([running, hook(&world, "upload", ""), hook(&world, "message", ""), after]);
    let mut doomed = Doomed::new(world.daemon(), &world, TASKS, body);
    let times = |task: &Task| {
        told(&world, task).into_iter().map(|(point, _, times)| (point, times)).collect::<Vec<_>>()
    };
    let of = |points: &[(&str, usize)]| -> Vec<_> {
        points.iter().map(|(point, times)| ((*point).to_owned(), *times)).collect()
    };

    doomed.dies_at(&["hook.tell", "hook.told", "hook.settled"]);
    // The state was told again, and that is on disk; then comes what is told next.
    let task = doomed.begins("hook.tell");
    assert_eq!(times(&task), of(&[("state", 2)]));
    let work = work(&task);
    let headers = [("content-type", "application/octet-stream"), ("idempotency-key", "k")];
    // Perhaps it hangs up before it answers.
    let path = task.path("/uploads?name=a.txt");
    let _ = task.http.try_call(Method::POST, &path, &headers, "one".into());
    doomed.wait_killed("hook.tell, of an upload");
    assert_eq!(times(&task), of(&[("state", 2)]));

    doomed.dies_at(&["hook.told"]);
    assert_eq!(times(&task), of(&[("state", 2), ("upload", 1)]));
    doomed.dies_at(&["hook.settled"]);
    doomed.begins("hook.tell");
    assert_eq!(times(&task), of(&[("state", 2), ("upload", 2)]));
    fs::write(work.join("look"), "").unwrap();
    doomed.wait_killed("hook.tell, of a message");

    doomed.dies_at(&["hook.told"]);
    assert_eq!(times(&task), of(&[("message", 1), ("state", 2), ("upload", 2)]));
    doomed.dies_at(&["hook.settled"]);
    doomed.begins("hook.tell");
    let all = of(&[("message", 2), ("state", 2), ("upload", 2)]);
    assert_eq!(times(&task), all);
    let note = "a file was handed in: uploads/a.txt";
    let heard =
        |call: &castra_model::RequestLog| call.last_user.as_ref().is_some_and(|text| text.contains(note));
    wait_until("the agent to hear of the file", || world.calls().iter().any(|call| heard(call)), DEADLINE);
    let mut log = fs::File::options().append(true).open(work.join("optio.log")).unwrap();
    std::io::Write::write_all(&mut log, b"DONE: all\n").unwrap();
    doomed.wait_killed("hook.tell, of the end");
    assert_eq!(endpoint.asked().len(), 0);

    doomed.dies_at(&["hook.told"]);
    assert_eq!(endpoint.asked().len(), 1);
    let task = doomed.task();
    wait_until("the end again", || endpoint.asked().len() == 2, DEADLINE);
    let story = Story::of(&task, &world);
    assert_eq!(story.end, (TaskState::Done, Some("all".into()), 1), "{story:#?}");
    assert_eq!(
        story.heard.iter().map(|heard| heard[1..].to_vec()).collect::<Vec<_>>(),
        [[note]],
        "{story:#?}"
    );
    assert_eq!(story.said(TaskEventKind::Upload), ["uploads/a.txt, 3 bytes"], "{story:#?}");
    assert_eq!(times(&task), all);
    let asked = endpoint.asked();
    let ids =
        |n: usize| (asked[n].header("webhook-id"), &asked[n].body["id"], &asked[n].body["event"]["seq"]);
    assert_eq!(ids(0), ids(1));
    assert!(asked.iter().all(|asked| asked.is_signed(KEY)), "{asked:?}");
    assert_eq!(asked[0].body["event"]["data"]["to"], "done");
}
