//! A TUI that misbehaves, by `fake-claude`: a screen that nobody knows, lost and late keys, floods, and what terminals
//! often get wrong. Nothing is typed into what was not recognised, and each message is entered once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::RunState;
use castra_proto::permission::PermissionKind;
use castra_testkit::{DEADLINE, Daemon, Session, World, fake_claude, proc, wait_for};
use serde_json::json;
use terminal::{CASTRA, PAINTED, data_of, screen, terminal, type_keys};

const SCRIPT: &str = "[[rule]]\nreply.text = \"never asked\"\n";

fn world() -> World {
    World::new(CASTRA, fake_claude(), SCRIPT)
}

fn faulty(daemon: &Daemon<'_>, fault: &str) -> Session {
    terminal(daemon, json!({"sandbox": "off", "env": {"FAKE_CLAUDE": fault}}))
}

/// All that the fake has read.
fn typed(world: &World, session: &Session) -> String {
    let home = world.home().join("sessions").join(&session.id).join("home/.claude/typed");
    String::from_utf8_lossy(&std::fs::read(home).unwrap()).into_owned()
}

#[test]
fn a_screen_that_nobody_knows_is_shown_and_nothing_is_typed_into_it() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "strange");
    let message = session.send("hello");
    let request = session.wait_permission();
    assert_eq!(session.wait_state(RunState::RequiresAction).pending, std::slice::from_ref(&request));
    assert_eq!(request.kind, PermissionKind::Dialog, "{request:?}");
    let picture = request.input.to_string();
    assert!(picture.contains("A new thing has come up!") && picture.contains("> Do it"), "{picture}");
    assert_eq!(typed(&world, &session), "", "not a key");
    let refused = session.answer(&request, &json!({"behavior": "allow"}));
    assert!((400..500).contains(&refused.status), "{}", refused.text());
    assert_eq!(typed(&world, &session), "", "not a key");

    // Somebody looks, and knows.
    type_keys(&session, &["Enter"]);
    assert_eq!(session.answer_to(&message).result.expect("a result").text, "hello");
    assert_eq!(session.wait_idle().pending, []);
    let heard = typed(&world, &session);
    assert!(heard.starts_with("\r\u{1b}[200~hello"), "{heard:?}");
}

/// Longer than a screen may be restless before somebody is asked to look: a blank one is none.
#[test]
fn a_first_screen_that_comes_late_and_in_pieces_asks_nobody() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "late 10500");
    assert_eq!(session.ask("hello"), "hello");
    assert_eq!(session.events_of("permission_requested").len(), 0);
}

#[test]
fn a_lost_enter_is_pressed_again_and_a_message_never_twice() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "lossy");
    for text in ["one", "two\nlines", "three"] {
        assert_eq!(session.ask(text), text);
    }
    assert_eq!(typed(&world, &session).matches("\u{1b}[200~").count(), 3, "pasted once each");
    assert_eq!(session.events_of("result").len(), 3);
    let said: Vec<_> =
        data_of(&session, "user").iter().map(|user| user["message"]["content"].clone()).collect();
    assert_eq!(said, ["one", "two\nlines", "three"]);
}

#[test]
fn a_text_that_is_drawn_late_is_entered_once_it_stands_there() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "slow 1500");
    let text = (1..=7).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    assert_eq!(session.ask(&text), text);
    let heard = typed(&world, &session);
    assert_eq!(heard.matches("line 7").count(), 1, "pasted once: {heard:?}");
    assert_eq!(session.events_of("result").len(), 1);
}

#[test]
fn a_flood_holds_nothing_up() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "none");
    session.wait_idle();
    let before = daemon.process().rss_kib();
    let message = session.send("spill 6000000");
    assert_eq!(faulty(&daemon, "none").ask("well"), "well", "another session is not held up");
    assert_eq!(session.answer_to(&message).result.expect("a result").text, "spilled");
    let grown = daemon.process().rss_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "6 MB of screen cost {grown} KiB");
    assert_eq!(session.ask("still there"), "still there");
    assert!(proc::process(session.show().pid.unwrap()).is_some());
}

#[test]
fn what_terminals_often_get_wrong_is_shown_right() {
    let world = world();
    let daemon = world.daemon();
    let session = faulty(&daemon, "none");
    session.wait_idle();
    let message = session.send("paint");
    let rows = wait_for(
        "the painting",
        || Some(screen(&session).rows).filter(|rows| rows.get(19).is_some_and(|row| row == "last")),
        DEADLINE,
    );
    let mut expected: Vec<String> = PAINTED.iter().map(|row| (*row).to_owned()).collect();
    expected[17] = format!("{}AB", " ".repeat(198));
    assert_eq!(rows.iter().map(|row| row.trim_end()).collect::<Vec<_>>()[..20], expected);
    type_keys(&session, &["q"]);
    assert_eq!(session.answer_to(&message).result.expect("a result").text, "painted");
    let rows = screen(&session).rows;
    assert!(rows.iter().any(|row| row.contains("? for shortcuts")), "the first screen is back: {rows:#?}");
}
