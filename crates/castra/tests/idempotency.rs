//! The same request many times at once: one effect, equal answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::{ErrorCode, RunState};
use castra_testkit::{Reply, World, clis, fake_claude};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Barrier;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
reply.text = "You said: {{last_user}}"
"#;

/// `call` from `n` threads that start together.
fn at_once(n: usize, call: impl Fn(usize) -> Reply + Sync) -> Vec<Reply> {
    let barrier = Barrier::new(n);
    let call = |n| {
        barrier.wait();
        call(n)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n).map(|n| scope.spawn(move || call(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn count<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

#[test]
fn fifty_posts_with_one_key_are_one_turn() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let session = daemon.session(json!({}));
        let http = daemon.http();
        let path = session.path("/messages");
        let post =
            |text: &str| http.post_with(&path, &[("idempotency-key", "k-1")], &json!({ "text": text }));

        let replies = at_once(50, |_| post("once"));
        let answers = count(replies.iter().map(|reply| (reply.status, reply.text())));
        assert_eq!(answers.len(), 1, "{cli}: {answers:?}");
        let accepted = replies[0].expect(202);
        let answered = session.answer_to(&accepted);
        assert_eq!(answered.result.expect("a result").text, "You said: once", "{cli}");

        session.wait_idle();
        assert_eq!(world.heard(), ["once"], "{cli}");
        let kinds = count(session.events().iter().map(|event| event.kind.to_string()));
        let of = |kind: &str| kinds.get(kind).copied();
        assert_eq!(
            (of("input_accepted"), of("input_delivered"), of("result")),
            (Some(1), Some(1), Some(1)),
            "{cli}"
        );

        let late: castra_proto::api::MessageAccepted = post("once").expect(202);
        assert_eq!(late, accepted, "{cli}: also when it is long done");
        let other = post("twice").problem();
        assert_eq!((other.status, other.code), (422, ErrorCode::IdempotencyMismatch), "{cli}");
        assert_eq!(session.show().turns, 1, "{cli}");
    }
}

#[test]
fn ten_creations_with_one_key_are_one_session() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let http = daemon.http();
    let spec = world.spec(json!({"labels": {"a": "b"}}));
    let post = |spec: &Value| http.post_with("/api/v1/sessions", &[("idempotency-key", "s-1")], spec);
    let replies = at_once(10, |_| post(&spec));
    let ids =
        count(replies.iter().map(|reply| reply.expect::<Value>(201)["id"].as_str().unwrap().to_owned()));
    assert_eq!(ids.values().copied().collect::<Vec<_>>(), [10], "{ids:?}");
    assert_eq!(post(&world.spec(json!({}))).problem().code, ErrorCode::IdempotencyMismatch);
    let listed: Value = http.get("/api/v1/sessions?all").expect(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn of_twenty_resumes_one_wins() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let session = daemon.session(json!({}));
        session.ask("hello");
        session.act("stop");
        assert_eq!(claudes(&world, &cli.path), 0, "{cli}");

        let http = daemon.http();
        let path = session.path("/resume");
        let replies = at_once(20, |_| http.post(&path, &Value::Null));
        let statuses = count(replies.iter().map(|reply| reply.status));
        assert_eq!(statuses, BTreeMap::from([(200, 1), (409, 19)]), "{cli}");
        for reply in replies.iter().filter(|reply| reply.status == 409) {
            assert_eq!(reply.problem().code, ErrorCode::Conflict, "{cli}");
        }
        let shown = session.wait_state(RunState::Idle);
        assert_eq!(shown.run, 2, "{cli}");
        assert_eq!(session.ask("again"), "You said: again", "{cli}");
        assert_eq!(claudes(&world, &cli.path), 1, "{cli}: one claude and no other");
    }
}

/// Processes of this world whose program is this CLI.
fn claudes(world: &World, cli: &std::path::Path) -> usize {
    let program = |pid: i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let real = std::fs::canonicalize(cli).unwrap();
    world.processes().iter().filter(|one| program(one.pid).as_ref() == Some(&real)).count()
}
