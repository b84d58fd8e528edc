//! `castra backup`, and the database put back later: what the logs have beyond it is brought forward, what they do
//! not have is said, and an old cursor is never answered with other events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use castra_proto::api::{Message, MessageAccepted, MessageState};
use castra_proto::session::ExitCause;
use castra_proto::{ErrorCode, Event, RunState};
use castra_testkit::{DEADLINE, Daemon, Session, World, each, normalise, wait_for, wait_until};
use hyper::Method;
use serde_json::{Value, json};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "tool"
when.last_user.contains = "touch it"
reply.blocks = [
    { tool_use = { name = "Bash", input = { command = "echo touched >> touched", description = "Touch" } } },
]
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "it is done"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// Puts the backup in the database's place, as docs/api.md says, and starts another daemon.
fn restore(world: &World, daemon: &mut Daemon<'_>) {
    daemon.kill9();
    for name in ["castra.db", "castra.db-wal", "castra.db-shm"] {
        let _ = std::fs::remove_file(world.home().join(name));
    }
    std::fs::copy(world.root().join("backup.db"), world.home().join("castra.db")).unwrap();
    daemon.start_again();
}

fn backup(world: &World) {
    world.cli(["backup", world.root().join("backup.db").to_str().unwrap()]).ok();
}

/// What a person would call the conversation: who said what, and how it went.
fn story(session: &Session) -> Vec<String> {
    normalise(&session.events()).iter().map(|one| format!("{one:?}")).collect()
}

fn allow(session: &Session) {
    let request = session.wait_permission();
    let answer = session.answer(&request, &json!({"behavior": "allow"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn message(session: &Session, accepted: &MessageAccepted) -> Message {
    session.http.get(&session.path(&format!("/messages/{}", accepted.message_id))).expect(200)
}

/// Status of a stream that is to continue behind `id`.
fn continued(session: &Session, id: &str) -> u16 {
    let path = session.path("/events?limit=1");
    let headers = [("accept", "text/event-stream"), ("last-event-id", id)];
    session.http.status_of(Method::GET, &path, &headers)
}

#[test]
fn what_came_after_the_backup_is_brought_forward() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let live = daemon.session(json!({"name": "live"}));
        live.ask("first of the living");
        let over = daemon.session(json!({"name": "over"}));
        over.ask("first of the other");
        over.act("stop");
        over.wait_state(RunState::Ended);
        let steady = daemon.session(json!({"name": "steady"}));
        steady.ask("first of the steady");
        for session in [&live, &steady] {
            session.wait_idle();
        }
        let kept = [&live, &over, &steady].map(Session::events);
        backup(world);

        // The same run goes on, with a permission; a run ends and another begins; an ended session has two more.
        let second = live.send("second: touch it");
        allow(&live);
        assert_eq!(live.answer_to(&second).state, MessageState::Answered);
        live.act("stop");
        live.wait_state(RunState::Ended);
        live.act("resume");
        let third = live.send("third");
        assert_eq!(live.answer_to(&third).state, MessageState::Answered);
        // A daemon of its own for what follows: what is put back has an older epoch than the shims know.
        for _ in 0..2 {
            daemon.kill9();
            daemon.start_again();
        }
        for text in ["second of the other", "third of the other"] {
            over.act("resume");
            over.ask(text);
            over.act("stop");
            over.wait_state(RunState::Ended);
        }
        let asked = steady.send("second of the steady: touch it");
        allow(&steady);
        assert_eq!(steady.answer_to(&asked).state, MessageState::Answered);
        let late = daemon.session(json!({"name": "late"}));
        late.ask("who knows me");
        let pids = [&live, &steady, &late].map(|session| session.wait_idle().pid);
        let before = [&live, &over, &steady].map(story);
        let head = live.events().last().unwrap().seq;
        let calls = world.calls().len();

        restore(world, daemon);
        let shown = wait_for(
            "the second run of the living",
            || Some(live.show()).filter(|shown| shown.run == 2 && shown.state == RunState::Idle),
            DEADLINE,
        );
        assert_eq!((shown.pid, shown.queued, shown.pending.len()), (pids[0], 0, 0), "{cli}");
        wait_until("the third run of the other", || over.show().run == 3, DEADLINE);
        let shown = over.wait_state(RunState::Ended);
        assert_eq!(shown.exit.map(|exit| exit.cause), Some(ExitCause::Stopped), "{cli}");
        wait_until("the steady one's turn", || steady.show().turns == 2, DEADLINE);
        assert_eq!(steady.wait_idle().pid, pids[1]);
        // The same conversations, from seq 1 without a gap; and what the backup held is as it was.
        for (session, (before, kept)) in [&live, &over, &steady].iter().zip(before.iter().zip(&kept)) {
            assert_eq!(&story(session), before, "{cli}");
            let events = session.events();
            let text = |event: &Event| serde_json::to_string(event).unwrap();
            let (old, now): (Vec<_>, Vec<_>) =
                (kept.iter().map(text).collect(), events.iter().map(text).collect());
            assert_eq!(now[..old.len()], old[..], "{cli}");
            assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "{cli}");
        }
        for accepted in [&second, &third] {
            assert_eq!(message(&live, accepted).state, MessageState::Answered, "{cli}");
        }
        assert_eq!(message(&steady, &asked).state, MessageState::Answered, "{cli}");
        assert_eq!(world.calls().len(), calls, "{cli}: nothing is said to the model again");

        // What no row knows is named by its path, and its processes are left alone.
        let doctor: Value = serde_json::from_str(&world.cli(["doctor", "--json"]).stdout).unwrap();
        let line =
            doctor["items"].as_array().unwrap().iter().find(|line| line["name"] == "sessions").unwrap();
        assert_eq!(line["ok"], false);
        assert!(line["detail"].as_str().unwrap().ends_with(&format!("/sessions/{}", late.id)), "{line}");
        assert!(castra_testkit::proc::process(pids[2].unwrap()).is_some());

        // A cursor of the stream that is no more.
        let shared = kept[0].last().unwrap().seq;
        let newest = live.events().last().unwrap().seq;
        let mark =
            daemon.http().get("/healthz").json::<Value>()["stream_id"].as_str().unwrap()[..8].to_owned();
        for (id, status) in [
            (shared.to_string(), 200),
            ((shared + 1).to_string(), 410),
            (head.to_string(), 410),
            (format!("{newest}.{mark}"), 200),
            (format!("{}.{mark}", newest + 1), 410),
            (format!("{}.{mark}", shared + 1), 200),
            (format!("{}.00000000", shared + 1), 410),
            (format!("{shared}.00000000"), 200),
        ] {
            assert_eq!(continued(&live, &id), status, "{cli}: Last-Event-ID {id}, shared to {shared}");
        }
        let beyond = newest + 1;
        let refused = live.http.get(&live.path(&format!("/events?after={beyond}"))).problem();
        assert_eq!(refused.code, ErrorCode::Gone, "{cli}");

        // And all of it goes on.
        assert!(live.ask("what did I say").contains("third"), "{cli}");
        over.act("resume");
        assert!(over.ask("what did I say").contains("second of the other"), "{cli}");
        assert_eq!(over.show().run, 4);
        world.cli(["check"]).ok();
    });
}
