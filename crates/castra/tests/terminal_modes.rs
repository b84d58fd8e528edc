//! What a terminal needs keys for and a stream does not: slash commands, live changes, the other mode; and the screen
//! of a run that is over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::RunState;
use castra_proto::api::{MessageAccepted, Screen};
use castra_proto::spec::Mode;
use castra_testkit::{DEADLINE, Session, each, wait_until};
use serde_json::json;
use terminal::{CASTRA, SCRIPT, answered, data_of, screen, terminal};

fn command(session: &Session, command: &str) -> MessageAccepted {
    session.http.post(&session.path("/messages"), &json!({ "command": command })).expect(202)
}

fn shows(screen: &Screen, text: &str) -> bool {
    screen.rows.iter().any(|row| row.contains(text))
}

fn resumed(session: &Session, mode: &str) {
    session.act("stop");
    let reply = session.http.post(&session.path("/resume"), &json!({ "mode": mode }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    session.wait_idle();
}

#[test]
fn a_slash_command_is_a_call_of_its_own_and_has_a_result() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({}));
        session.wait_idle();
        let refused = session.http.post(&session.path("/messages"), &json!({"command": "hello"}));
        assert_eq!((refused.status, refused.text().contains("slash command")), (400, true), "{cli}");
        let calls = world.calls().len();
        let unknown = session.answer_to(&command(&session, "/nosuch"));
        let (said, ok) = answered(&unknown);
        assert!(ok && said.contains("/nosuch"), "{cli}: {said}");
        let context = session.answer_to(&command(&session, "/context"));
        assert!(answered(&context).0.contains("tokens"), "{cli}: {context:?}");
        assert_eq!(world.calls().len(), calls, "{cli}: no model was asked");
        // 2.1.329 shows the model the frame of a folded paste (docs/terminal.md).
        let heard = session.ask("/context is text");
        assert!(heard.starts_with("You said: ") && heard.contains("/context is text"), "{cli}: {heard}");
        assert_eq!(data_of(&session, "result").len(), 3, "{cli}");
    });
}

#[test]
fn modes_and_models_are_changed_while_it_lives() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        session.ask("hello");
        session.wait_idle();
        let patch = |change: serde_json::Value| session.http.patch(&session.path(""), &change);
        for mode in ["plan", "acceptEdits", "default"] {
            assert_eq!(patch(json!({ "permission_mode": mode })).status, 200, "{cli}: {mode}");
            assert_eq!(session.show().permission_mode, mode, "{cli}");
        }
        let refused = patch(json!({"permission_mode": "dontAsk"}));
        assert_eq!((refused.status, refused.text().contains("no way")), (400, true), "{cli}");
        assert_eq!(patch(json!({"model": "haiku", "effort": "low"})).status, 200, "{cli}");
        assert_eq!(session.show().effort.as_deref(), Some("low"), "{cli}");
        session.ask("who answers?");
        let model = session.show().model;
        assert!(model.as_ref().is_some_and(|model| model.contains("haiku")), "{cli}: {model:?}");
        assert!(session.wait_idle().pending.is_empty(), "{cli}");
    });
}

#[test]
fn one_conversation_is_a_stream_and_a_terminal_in_turn() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({"tui": {"focus": true}}));
        session.ask("the word is plum");
        resumed(&session, "stream");
        assert_eq!(session.show().spec.mode, Mode::Stream, "{cli}");
        assert_eq!(session.http.get(&session.path("/screen")).status, 400, "{cli}");
        assert!(session.ask("what did I say, one?").contains("plum"), "{cli}");
        resumed(&session, "terminal");
        let third = session.ask("what did I say, two?");
        assert!(third.contains("plum") && third.contains("one?"), "{cli}: {third}");
        wait_until("the screen", || shows(&screen(&session), "one?"), DEADLINE);
        let shown = session.wait_idle();
        assert_eq!((shown.run, shown.claude_session_ids.len()), (3, 1), "{cli}");
        assert_eq!(data_of(&session, "result").len(), 3, "{cli}");

        let stream = daemon.session(json!({"output_schema": {"type": "object"}}));
        stream.wait_idle();
        stream.act("stop");
        let refused = stream.http.post(&stream.path("/resume"), &json!({"mode": "terminal"}));
        assert_eq!((refused.status, refused.text().contains("output_schema")), (400, true), "{cli}");
        assert_eq!(stream.show().state, RunState::Ended, "{cli}");
    });
}

#[test]
fn the_screen_outlives_the_run_and_the_daemon() {
    let cli = &castra_testkit::clis()[0];
    let world = castra_testkit::World::new(CASTRA, &cli.path, terminal::SCRIPT);
    let mut daemon = world.daemon();
    let session = terminal(&daemon, json!({}));
    session.ask("plums are purple");
    wait_until(
        "the answer on the screen",
        || shows(&screen(&session), "You said: plums are purple"),
        DEADLINE,
    );
    session.act("stop");
    let before = screen(&session);
    assert!(shows(&before, "You said: plums are purple"), "{:?}", before.rows);
    daemon.kill9();
    daemon.start_again();
    assert_eq!(screen(&session).rows, before.rows);
}
