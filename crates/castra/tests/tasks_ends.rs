//! How tasks end where something stands in the way, on the real CLI: a cancel that comes late, a start that cannot be,
//! what is left behind and cannot be taken, a removal that is cut short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::api::Page;
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, wait_for, wait_until};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use task::{CASTRA, SCRIPT, instructed, replies};

/// What it does is castra's alone: one version of the CLI is enough.
fn in_a_world(test: impl FnOnce(&World, &mut Daemon<'_>)) {
    let world = World::new(CASTRA, &clis()[0].path, SCRIPT);
    test(&world, &mut world.daemon());
}

/// An `after` hook that notes each call, and returns when the gate is there.
fn held_at_its_end(world: &World) -> (Value, PathBuf, PathBuf) {
    let (notes, gate) = (world.root().join("notes"), world.root().join("gate"));
    let text =
        format!("echo called >> {}; while [ ! -e {} ]; do sleep 0.1; done", notes.display(), gate.display());
    (json!([{"on": "after", "command": ["sh", "-c", text]}]), notes, gate)
}

#[test]
fn a_cancel_while_a_failed_attempt_ends_is_its_last_word() {
    in_a_world(|world, daemon| {
        let (hooks, notes, gate) = held_at_its_end(world);
        let mut spec = instructed("echo 'ERROR: so' >> optio.log");
        (spec["hooks"], spec["retries"]) = (hooks, json!(2));
        let task = daemon.task(spec);
        wait_until("its end to be held up", || notes.exists(), DEADLINE);
        task.cancel();
        std::fs::write(&gate, "").unwrap();
        let shown = task.wait();
        let reason = shown.reason.expect("a reason");
        let end = (shown.state, shown.attempt, reason.code, reason.message.as_str());
        assert_eq!(end, (TaskState::Failed, 1, ReasonCode::Error, "so"), "{:?}", task.log());
        let said = task.said(TaskEventKind::Log);
        assert!(said.len() == 1 && said[0].starts_with("is not tried again: cancelled by "), "{said:?}");
        assert_eq!(std::fs::read_to_string(notes).unwrap(), "called\n");
    });
}

/// Made until somebody has answered: the same request, so one task.
#[cfg(feature = "failpoints")]
fn made(daemon: &Daemon<'_>, spec: &Value) -> Option<Task> {
    let headers = [("Idempotency-Key", "the one")];
    let body = spec.to_string().into();
    let reply = daemon.http().try_call("POST".parse().unwrap(), "/api/v1/tasks", &headers, body).ok()?;
    let shown: castra_proto::Task = reply.expect(201);
    Some(Task::of(&daemon.http(), shown.id))
}

#[cfg(feature = "failpoints")]
#[test]
fn what_a_before_hook_has_said_is_no_word_on_a_deliverable() {
    in_a_world(|world, daemon| {
        let mut spec = instructed(
            "echo one > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log; sleep 2; \
             echo DONE >> optio.log; sleep 300",
        );
        spec["session"] = world.spec(spec["session"].take());
        spec["hooks"] = json!([{"on": "before", "command": ["true"]}]);
        daemon.kill9();
        // The session is there; that the attempt has begun is not on disk.
        daemon.start_doomed("task.begun");
        made(daemon, &spec);
        wait_until("the daemon to die", || daemon.is_over(), DEADLINE);
        daemon.start_again();
        let task = wait_for("an answer", || made(daemon, &spec), DEADLINE);
        assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
        let told = replies(&task);
        assert!(
            told.len() == 1 && told[0].ends_with("deliverable deliverables/a.txt: accepted."),
            "{told:?}"
        );
    });
}

#[test]
fn a_start_that_only_a_person_can_mend_is_not_tried_for_ever() {
    in_a_world(|world, daemon| {
        let mine = world.folder().join("mine");
        std::fs::create_dir(&mine).unwrap();
        std::fs::create_dir(world.folder().join("elsewhere")).unwrap();
        symlink(world.folder().join("elsewhere"), mine.join(".castra")).unwrap();
        let mut spec = instructed("true");
        (spec["session"]["workdir"], spec["retries"]) = (json!(mine), json!(1));
        let task = daemon.task(spec);
        let shown = task.wait();
        let reason = shown.reason.expect("a reason");
        let end = (shown.state, shown.attempt, reason.code);
        assert_eq!(end, (TaskState::Failed, 2, ReasonCode::Start), "{:?}", task.log());
        assert!(reason.message.contains("/mine/.castra/"), "{reason:?}");
        assert_eq!(std::fs::read_dir(world.folder().join("elsewhere")).unwrap().count(), 0);
    });
}

fn ended(task: &Task, attempt: usize) -> castra_proto::task::Attempt {
    let over = || task.show().attempts.get(attempt - 1).filter(|one| one.ended_at.is_some()).cloned();
    wait_for(&format!("attempt {attempt} to be over"), over, DEADLINE)
}

#[test]
fn a_parent_does_not_wait_for_a_child_that_was_removed() {
    in_a_world(|_, daemon| {
        let child = |name: &str, run: &str| {
            let instructions = format!("RUN: {run}");
            json!({"name": name, "instructions": instructions, "protocol": "log"})
        };
        let task = daemon.task(json!({
            "session": {"allowed_tools": ["Bash", "Read"]},
            "children": [
                child("good", "echo DONE >> optio.log"),
                child("bad", "echo 'ERROR: so' >> optio.log"),
            ],
            "group": {"order": "sequential"},
        }));
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Failed, "{:?}", task.log());
        let good = Task::of(&task.http, shown.children[0].id);
        assert_eq!(good.http.delete(&good.path("")).status, 204);
        assert_eq!(task.act("resume").status, 200);
        let reason = ended(&task, 2).reason.expect("a reason");
        let said = "its child good was removed; only `retry` makes it anew";
        assert_eq!((reason.code, reason.message.as_str()), (ReasonCode::Child, said), "{:?}", task.log());
        assert_eq!(task.act("retry").status, 200);
        let reason = ended(&task, 3).reason.expect("a reason");
        assert_eq!(reason.message, "its child bad was failed: so", "{:?}", task.log());
    });
}

#[test]
fn of_what_is_left_behind_and_cannot_be_taken_it_is_said_why_once() {
    in_a_world(|_, daemon| {
        let mut spec = instructed(
            "mkfifo deliverables/pipe; ln -s /etc/passwd deliverables/link; truncate -s 65M deliverables/big; \
             echo good > deliverables/good; echo DELIVERABLE: deliverables/link >> optio.log; echo DONE >> optio.log",
        );
        // It runs between two looks at how the attempt ends.
        spec["hooks"] = json!([{"on": "after", "command": ["true"]}]);
        let task = daemon.task(spec);
        let shown = task.wait();
        let paths: Vec<_> = shown.deliverables.iter().map(|one| one.path.as_str()).collect();
        assert_eq!((shown.state, paths), (TaskState::Done, vec!["good"]), "{:?}", task.log());
        let mut said = task.said(TaskEventKind::Rejected);
        said.sort();
        let expected = [
            "deliverables/big: it has 68157440 bytes; at most 67108864 are taken. Hand over less, or in parts.",
            "deliverables/link: this is no path of a file. Write it as `deliverables/name`, without `..` and without links.",
            "deliverables/pipe: it is a folder or a link, not a file. Hand over each file by itself, or pack the folder.",
        ];
        assert_eq!(said, expected, "{:?}", task.log());
    });
}

#[cfg(feature = "failpoints")]
#[test]
fn a_removal_that_is_cut_short_is_made_up_for() {
    in_a_world(|world, daemon| {
        let run = "echo one > deliverables/a.txt; echo DONE >> optio.log";
        let task = daemon.task(json!({
            "session": {"allowed_tools": ["Bash", "Read"]},
            "children": [{"name": "one", "instructions": format!("RUN: {run}"), "protocol": "log"}],
        }));
        let kept = daemon.task(instructed(run));
        for one in [&task, &kept] {
            assert_eq!(one.wait().state, TaskState::Done, "{:?}", one.log());
        }
        let there = |folder: &str| std::fs::read_dir(world.home().join(folder)).unwrap().count();
        assert_eq!((there("sessions"), there("blobs")), (2, 2));
        daemon.kill9();
        daemon.start_doomed("task.removed");
        assert!(
            daemon
                .http()
                .try_call("DELETE".parse().unwrap(), &task.path(""), &[], Default::default())
                .is_err()
        );
        wait_until("the daemon to die", || daemon.is_over(), DEADLINE);
        daemon.start_again();
        wait_until("its session to go", || there("sessions") == 1, DEADLINE);
        let tasks: Page<castra_proto::Task> = daemon.http().get("/api/v1/tasks?all=true").expect(200);
        let ids: Vec<String> = tasks.items.iter().map(|one| one.id.to_string()).collect();
        let sessions: Page<castra_proto::Session> =
            daemon.http().get("/api/v1/sessions?all=true").expect(200);
        assert_eq!((ids, sessions.items.len(), there("blobs")), (vec![kept.id.clone()], 1, 1));
        assert_eq!(kept.http.get(&kept.path("/deliverables/a.txt")).text(), "one\n");
    });
}
