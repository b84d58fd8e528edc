//! The daemon is killed at each step of a task's life: what comes of it is what comes of an undisturbed one.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::task::TaskEventKind;
use castra_proto::{Task as Shown, TaskState};
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, wait_for, wait_until};
use serde_json::{Value, json};
use task::{CASTRA, SCRIPT, instructed};

const RUN: &str = "echo 'STATUS: 20% begun' >> optio.log; echo one > deliverables/a.txt; \
    echo DELIVERABLE: deliverables/a.txt >> optio.log; echo DELIVERABLE: nowhere >> optio.log; \
    echo left > deliverables/left.txt; sleep 2; echo 'DONE: all' >> optio.log; sleep 300";

/// What a person would tell of a task; the code of its messages, and ids, are others each time.
#[derive(Debug, PartialEq)]
struct Story {
    end: (TaskState, Option<String>, u32),
    deliverables: Vec<(String, u32, String)>,
    events: Vec<(TaskEventKind, String)>,
    /// What the model heard of castra, each once.
    heard: Vec<String>,
}

fn plain(text: &str) -> String {
    text.split_once("]: ").map_or(text, |(_, rest)| rest).to_owned()
}

/// What the model heard of castra, each once.
fn heard(world: &World) -> Vec<String> {
    let mut heard: Vec<String> = world
        .calls()
        .iter()
        .filter_map(|call| call.last_user.clone())
        .filter(|text| text.starts_with("System["))
        .map(|text| plain(&text))
        .collect();
    heard.sort();
    heard.dedup();
    heard
}

fn story(task: &Task, world: &World) -> Story {
    let shown = task.wait();
    let deliverables = shown.deliverables.iter();
    // How far its children are is looked at now and then.
    let passing = |kind| {
        kind == TaskEventKind::Attempt || kind == TaskEventKind::Progress && !shown.children.is_empty()
    };
    let events = task.events().into_iter().filter(|event| !passing(event.kind));
    Story {
        end: (shown.state, shown.result.clone(), shown.attempt),
        deliverables: deliverables.map(|one| (one.path.clone(), one.version, one.sha256.clone())).collect(),
        events: events.map(|event| (event.kind, plain(&event.message))).collect(),
        heard: heard(world),
    }
}

fn body(world: &World) -> Value {
    let mut body = instructed(RUN);
    body["session"] = world.spec(body["session"].take());
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
fn killed_at_each_step_of_a_task() {
    let cli = &clis()[0];
    let undisturbed = {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        story(&post(&daemon, &body(&world)).expect("an answer"), &world)
    };
    assert_eq!(undisturbed.end, (TaskState::Done, Some("all".into()), 1), "{undisturbed:?}");
    assert_eq!(undisturbed.deliverables.len(), 2, "{undisturbed:?}");
    for place in [
        "task.created",
        "task.start",
        "task.begun",
        "task.commit",
        "task.commit:2",
        "task.committed:2",
        "task.reply",
        "task.reply:2",
        "task.commit:4",
        "task.ending",
        "task.stopped",
    ] {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut daemon = world.daemon();
        let task = killed(&world, &mut daemon, place, &body(&world));
        assert_eq!(story(&task, &world), undisturbed, "{place}");
        let listed: castra_proto::api::Page<Shown> = task.http.get("/api/v1/tasks?all=true").expect(200);
        assert_eq!(listed.items.len(), 1, "{place}");
        let sessions: castra_proto::api::Page<castra_proto::Session> =
            task.http.get("/api/v1/sessions?all=true").expect(200);
        assert_eq!(sessions.items.len(), 1, "{place}");
    }
}

/// Made with the daemon dying at a place, and made again with the next one: one request is one task.
fn killed(world: &World, daemon: &mut Daemon<'_>, place: &str, body: &Value) -> Task {
    daemon.kill9();
    daemon.start_doomed(place);
    let before = post(daemon, body).map(|task| task.id);
    wait_until(&format!("the daemon to die at {place}"), || daemon.is_over(), DEADLINE);
    daemon.start_again();
    let task = wait_for("an answer", || post(daemon, body), DEADLINE);
    assert!(before.is_none_or(|id| id == task.id), "{place}: one request is one task");
    let damage: Value = serde_json::from_str(&world.cli(["check", "--json"]).ok()).unwrap();
    assert_eq!(damage["items"], json!([]), "{place}");
    task
}

/// A parent with work of its own and two children, each with a deliverable that is taken and one that is refused.
fn family(world: &World) -> Value {
    let child = |name: &str| {
        let run = format!(
            "echo {name} > deliverables/{name}.txt; echo DELIVERABLE: deliverables/{name}.txt >> optio.log; \
             echo DELIVERABLE: nowhere >> optio.log; sleep 2; echo 'DONE: {name}' >> optio.log; sleep 300"
        );
        json!({"name": name, "instructions": format!("RUN: {run}"), "protocol": "log"})
    };
    let own = "cat uploads/children/*/*.txt > deliverables/all.txt; \
        echo DELIVERABLE: deliverables/all.txt >> optio.log; sleep 2; echo 'DONE: all' >> optio.log; sleep 300";
    let mut body = instructed(own);
    body["session"] = world.spec(body["session"].take());
    body["group"] = json!({"order": "sequential"});
    body["children"] = json!([child("one"), child("two")]);
    body
}

/// The end, and all that was said, of a task and its children.
fn stories(task: &Task, world: &World) -> Vec<Story> {
    let shown = task.wait();
    let children = shown.children.iter().map(|child| child.id.to_string());
    let ids = std::iter::once(task.id.clone()).chain(children);
    ids.map(|id| story(&Task { http: task.http.clone(), id }, world)).collect()
}

fn a_family_is_killed_at(places: &[&str]) {
    let cli = &clis()[0];
    let undisturbed = {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        stories(&post(&daemon, &family(&world)).expect("an answer"), &world)
    };
    let ends: Vec<_> = undisturbed.iter().map(|story| story.end.clone()).collect();
    let done = |result: &str| (TaskState::Done, Some(result.to_owned()), 1);
    assert_eq!(ends, [done("all"), done("one"), done("two")], "{undisturbed:?}");
    for place in places {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut daemon = world.daemon();
        let task = killed(&world, &mut daemon, place, &family(&world));
        assert_eq!(stories(&task, &world), undisturbed, "{place}");
        let listed: castra_proto::api::Page<Shown> = task.http.get("/api/v1/tasks?all=true").expect(200);
        assert_eq!(listed.items.len(), 3, "{place}");
        let sessions: castra_proto::api::Page<castra_proto::Session> =
            task.http.get("/api/v1/sessions?all=true").expect(200);
        assert_eq!(sessions.items.len(), 3, "{place}");
    }
}

#[test]
fn a_family_of_tasks_is_killed_while_it_is_made() {
    a_family_is_killed_at(&["task.child", "task.child:2", "task.created:3", "task.commit:2"]);
}

#[test]
fn a_family_of_tasks_is_killed_while_children_run() {
    a_family_is_killed_at(&["task.committed:3", "task.start", "task.reply", "task.reply:4"]);
}

#[test]
fn a_family_of_tasks_is_killed_between_children_and_parent() {
    a_family_is_killed_at(&["task.ending", "task.stopped:2", "task.gathered", "task.start:3"]);
}

#[test]
fn a_family_of_tasks_is_killed_while_the_parent_ends() {
    a_family_is_killed_at(&["task.begun:3", "task.ending:3", "task.stopped:3"]);
}
