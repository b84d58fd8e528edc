//! A CLI that misbehaves, by `fake-claude`: nothing of it ends the session's record, blocks the daemon, or passes
//! for a success.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::MessageState;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::{ErrorCode, Event, OwnKind, RunState};
use castra_testkit::{Daemon, Session, World, fake_claude, line_of, wait_for, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = "[[rule]]\nreply.text = \"never asked\"\n";
/// For what moves a hundred megabytes on a machine that others use too.
const LONG: Duration = Duration::from_secs(300);

fn world() -> World {
    World::new(CASTRA, fake_claude(), SCRIPT)
}

fn data(event: &Event) -> Value {
    serde_json::from_str(event.data.get()).unwrap()
}

/// The lines that made events behind `after`, in order.
fn lines(session: &Session, after: u64, wanted: impl Fn(&Event) -> bool) -> Vec<Vec<u8>> {
    session.events().iter().filter(|event| event.seq > after && wanted(event)).map(line_of).collect()
}

/// Another session on the same daemon answers: nothing is held up by the bad one.
fn others_are_well(daemon: &Daemon<'_>) {
    assert_eq!(daemon.session(json!({})).ask("echo well"), "well");
}

/// As `fake-claude` says them to `garbage`; the first eleven are not claude's in any way.
const GARBAGE: [&[u8]; 14] = [
    b"plain words",
    b"\0\0\0",
    b"[1,2,3]",
    b"5",
    b"\"text\"",
    b"null",
    b"{\"type\":",
    b"\xff\xfe\x00\x80 binary",
    b"\x1b[31mred\x1b[0m",
    b"{\"no\":\"type\"}",
    b"{\"type\":7}",
    b"{\"type\":\"never_heard_of\",\"x\":1}",
    b"{\"type\":\"permission_answered\",\"behavior\":\"allow\"}",
    b"{\"type\":\"exit\",\"cause\":\"finished\"}",
];

#[test]
fn lines_that_are_none_are_kept_byte_for_byte_and_end_nothing() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("garbage"), "that was all of it");
    let odd = |event: &Event| event.kind.is(OwnKind::Unknown) || event.kind.as_str() == "never_heard_of";
    assert_eq!(lines(&session, 0, odd), GARBAGE);
    let by_castra = |kind: &str| session.events().iter().filter(|event| event.kind.as_str() == kind).count();
    assert_eq!(
        (by_castra("permission_answered"), by_castra("exit")),
        (0, 0),
        "nothing on claude's stdout passes for castra's own word"
    );
    assert_eq!(session.ask("split"), "é in pieces");
    assert_eq!(session.ask("echo still here"), "still here");
    session.wait_idle();
}

#[test]
fn garbage_before_the_first_answer_is_kept_too() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({"env": {"FAKE_CLAUDE": "noise"}}));
    assert_eq!(session.ask("echo hello"), "hello");
    let odd = |event: &Event| event.kind.is(OwnKind::Unknown) || event.kind.as_str() == "never_heard_of";
    assert_eq!(lines(&session, 0, odd), GARBAGE);
}

#[test]
fn half_a_line_at_the_end_is_kept_and_the_run_is_over() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    session.send("half");
    let shown = session.wait_state(RunState::Ended);
    assert_eq!(shown.exit.map(|exit| (exit.cause, exit.code)), Some((ExitCause::Finished, Some(0))));
    let torn = lines(&session, 0, |event| event.kind.is(OwnKind::Unknown));
    assert_eq!(torn, [br#"{"type":"assistant","message":{"role":"assist"#]);
    let last = session.events().last().map(|event| event.kind.to_string());
    assert_eq!(last.as_deref(), Some("state"), "the end comes after everything that was said");
}

#[test]
fn a_line_of_64_mib_passes_whole() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let size = 64 << 20;
    let before = daemon.process().rss_kib();
    session.send("line 64MB");
    wait_until("the turn to be over", || session.show().turns == 1, LONG);
    let after = session.events_of("assistant");
    let [line] = &after[..] else { panic!("{} assistant events", after.len()) };
    let text = data(line)["message"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.len() == size && text.bytes().all(|byte| byte == b'x'), "{} bytes", text.len());
    println!("daemon: {} MiB before, {} MiB after", before >> 10, daemon.process().rss_kib() >> 10);
    assert_eq!(session.ask("echo small again"), "small again");
    others_are_well(&daemon);
}

#[test]
fn a_hundred_thousand_events_at_full_speed_arrive_each_once_and_in_order() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let live = session.follow(0);
    let (count, bytes) = (100_000, 100);
    let began = Instant::now();
    session.send(&format!("flood {count} {bytes}"));
    wait_until("the turn to be over", || session.show().turns == 1, LONG);
    let took = began.elapsed();
    println!("{count} events in {:.1} s", took.as_secs_f64());

    let head = session.show().head_seq;
    wait_until(
        "the subscriber to have all",
        || live.seen().events.last().is_some_and(|event| event.seq >= head),
        LONG,
    );
    let filling = "x".repeat(bytes);
    let seen = live.events();
    let said: Vec<String> = seen
        .iter()
        .filter(|event| event.kind.as_str() == "assistant")
        .map(|event| data(event)["message"]["content"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(said.len(), count);
    let wrong = said.iter().enumerate().find(|(n, text)| **text != format!("{n}:{filling}"));
    assert_eq!(wrong, None);
    let gap = seen.iter().zip(1..).find(|(event, seq)| event.seq != *seq).map(|(event, _)| event.seq);
    assert_eq!(gap, None, "seq has no gaps");
    let stored = session.events();
    let differs = stored.iter().zip(&seen).find(|(a, b)| a.seq != b.seq || a.data.get() != b.data.get());
    assert!(differs.is_none() && stored.len() >= seen.len(), "{:?}", differs.map(|(a, _)| a.seq));
}

#[test]
fn a_hundred_thousand_deltas_are_one_event_and_a_partial_without_holes() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let live = session.follow(0);
    session.send("deltas 100000 20");
    wait_until("the turn to be over", || session.show().turns == 1, LONG);
    assert_eq!(session.events_of("assistant").len(), 1);
    assert_eq!(session.events_of("stream_event").len(), 0, "deltas are never rows");
    let mut length = 0;
    for partial in &live.seen().partials {
        let text = partial["text"].as_str().unwrap();
        assert_eq!(partial["offset"].as_u64().unwrap(), length, "a hole");
        length += text.len() as u64;
    }
    assert!(length > 0, "the subscriber saw the text while it was written");
}

/// The next daemon reads the message from its beginning; what an event has closed is not open again meanwhile.
#[test]
fn a_block_that_was_closed_stays_closed_when_the_daemon_comes_back() {
    let world = world();
    let mut daemon = world.daemon();
    let session = daemon.session(json!({}));
    session.send("linger 100000 20");
    let closed = || session.events_of("assistant").len() == 1;
    wait_until("the block to be whole", closed, LONG);
    let live = session.follow(session.show().head_seq);
    live.until("the subscriber", |seen| (seen.connections == 1).then_some(()));
    daemon.kill9();
    daemon.start_again();
    live.until("the subscriber to be back", |seen| (seen.connections == 2).then_some(()));
    // Written behind all that is read again.
    session.act("interrupt");
    session.wait_idle();
    assert_eq!(live.seen().partials, [Value::Null; 0]);
}

#[test]
fn an_exit_before_the_result_is_never_a_success() {
    for (prompt, code, cause) in [("exit 0", 0, ExitCause::Finished), ("exit 3", 3, ExitCause::Crashed)] {
        let world = world();
        let daemon = world.daemon();
        let session = daemon.session(json!({}));
        let message = session.send(prompt);
        let shown = session.wait_state(RunState::Ended);
        assert_eq!(shown.exit.map(|exit| (exit.cause, exit.code)), Some((cause, Some(code))), "{prompt}");
        let message = session.answer_to(&message);
        assert_eq!((message.state, message.result), (MessageState::Interrupted, None), "{prompt}");

        let run = world.castra(["run", "--fresh"]).args(world.run_flags()).arg(prompt).run();
        assert_ne!(run.code, 0, "{prompt}: {run:#?}");
        assert!(run.stderr.contains("error: ") && run.stderr.contains("hint: "), "{prompt}: {run:#?}");
    }
}

#[test]
fn a_child_that_holds_stdout_open_delays_no_end_and_does_not_survive_it() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let message = session.send("hold");
    let shown = session.wait_state(RunState::Ended);
    assert_eq!(
        shown.exit.map(|exit| (exit.cause, exit.code, exit.reaped)),
        Some((ExitCause::Finished, Some(0), Reaped::Proved))
    );
    let message = session.answer_to(&message);
    assert_eq!(message.result.map(|result| result.text).as_deref(), Some("somebody holds my stdout"));
    let holders = || {
        world.processes().into_iter().filter(|one| one.arguments().ends_with("--hold")).collect::<Vec<_>>()
    };
    assert_eq!(holders(), [], "the end is said when the tree is empty");
}

#[test]
fn a_cli_that_never_reads_holds_up_nobody_but_itself() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("deaf"), "I do not listen any more");
    let big = "z".repeat(4 << 20);
    let unread = session.send(&big);
    let waiting = session.send("and this");
    others_are_well(&daemon);
    assert_eq!(daemon.http().get("/healthz").status, 200);

    let stopped = session.act("stop");
    assert_eq!(stopped.exit.map(|exit| exit.cause), Some(ExitCause::Stopped));
    for message in [&unread, &waiting] {
        let path = session.path(&format!("/messages/{}", message.message_id));
        let now: castra_proto::api::Message = session.http.get(&path).expect(200);
        assert_eq!(now.state, MessageState::Queued, "claude never had it: it waits for the next run");
    }
    session.act("resume");
    let answer = session.answer_to(&unread).result.expect("a result");
    assert!(answer.text == big, "{} bytes", answer.text.len());
    let answer = session.answer_to(&waiting).result.expect("a result");
    assert_eq!(answer.text, "and this");
}

#[test]
fn a_start_that_hangs_is_ended_in_time_and_says_so() {
    for start in ["hang", "deaf"] {
        let world = world();
        let daemon = world.daemon();
        let session = daemon.session(json!({"start_timeout_s": 2, "env": {"FAKE_CLAUDE": start}}));
        let message = session.send("anybody?");
        let shown = session.wait_state(RunState::Ended);
        assert_eq!(shown.exit.map(|exit| exit.cause), Some(ExitCause::StartTimeout), "{start}");
        let path = session.path(&format!("/messages/{}", message.message_id));
        let message: castra_proto::api::Message = session.http.get(&path).expect(200);
        assert_eq!(message.state, MessageState::Queued, "{start}: it was never delivered, and is not lost");

        let flag = format!("FAKE_CLAUDE={start}");
        let spec = world.root().join("spec.json");
        std::fs::write(&spec, r#"{"start_timeout_s": 2}"#).unwrap();
        let run = world.castra(["run", "--fresh", "--env", &flag, "--spec"]).arg(&spec).arg("anybody?").run();
        assert_eq!(run.code, 124, "{start}: {run:#?}");
        assert!(run.stderr.contains("error: ") && run.stderr.contains("hint: "), "{start}: {run:#?}");
    }
}

#[test]
fn a_start_that_exits_at_once_says_what_was_on_stderr() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({"env": {"FAKE_CLAUDE": "exit 9"}}));
    let shown = session.wait_state(RunState::Ended);
    assert_eq!(shown.exit.as_ref().map(|exit| (exit.cause, exit.code)), Some((ExitCause::Crashed, Some(9))));
    let stderr = session.events_of("stderr");
    let said: String = stderr.iter().map(|event| event.data.get().to_owned()).collect();
    assert!(said.contains("fake-claude was told to leave"), "{said}");
}

#[test]
fn what_is_not_claude_is_not_run_as_claude() {
    let folder = tempfile::tempdir().unwrap();
    let impostor = folder.path().join("claude");
    std::fs::copy(fake_claude(), &impostor).unwrap();
    std::fs::write(folder.path().join("claude.version"), "GNU sed 4.9").unwrap();
    let world = World::new(CASTRA, &impostor, SCRIPT).with_env("CASTRA_CLAUDE_INSTALL", "never");
    let daemon = world.daemon();
    let refused = daemon.http().post("/api/v1/sessions", &world.spec(json!({}))).problem();
    assert_eq!(refused.code, ErrorCode::CliStartFailed, "{refused:?}");
    assert!(refused.detail.contains("GNU sed 4.9"), "{refused:?}");
    assert!(refused.detail.contains(impostor.to_str().unwrap()), "{refused:?}");
    assert!(refused.hint.is_some(), "{refused:?}");
}

#[test]
fn memory_over_the_limit_ends_the_run_and_says_so() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({"limits": {"memory_mb": 128}}));
    assert_eq!(session.ask("hog 8MB"), "it is heavy");
    session.send("hog 400MB");
    let shown =
        wait_for("the run to be ended", || Some(session.show()).filter(|shown| shown.state.is_final()), LONG);
    assert_eq!(shown.exit.map(|exit| exit.cause), Some(ExitCause::MemoryLimit));
}
