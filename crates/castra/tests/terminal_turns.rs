//! Turns on the real TUI: a newcomer's first prompt, memory, interruption, resuming, forking, clearing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::RunState;
use castra_proto::api::{MessageAccepted, MessageState};
use castra_testkit::{DEADLINE, Session, each, wait_until};
use serde_json::{Value, json};
use std::fs;
use terminal::{CASTRA, SCRIPT, answered, data_of, screen, terminal, type_keys, work};

/// How often somebody was asked something.
fn asked(session: &Session) -> usize {
    session.events_of("permission_requested").len() + session.events_of("requires_action").len()
}

#[test]
fn a_newcomer_reaches_the_prompt_without_a_dialog() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({}));
        let message = session.answer_to(&session.send("hello"));
        assert_eq!(answered(&message), ("You said: hello", true), "{cli}");
        let result = message.result.unwrap();
        assert!(result.usage["output_tokens"].as_u64().is_some_and(|n| n > 0), "{cli}: {result:?}");
        let shown = session.wait_idle();
        assert_eq!((shown.turns, shown.turn.n, shown.pending.len()), (1, 1, 0), "{cli}");
        assert!(shown.claude_session_id.is_some(), "{cli}");
        assert_eq!(asked(&session), 0, "{cli}");
        let states: Vec<Value> = data_of(&session, "state").iter().map(|data| data["to"].clone()).collect();
        assert_eq!(states, ["queued", "starting", "idle", "running", "idle"], "{cli}");
        assert_eq!(world.calls().len(), 1, "{cli}");
    });
}

/// `home: user` in a home without anything, and in one that has been lived in.
#[test]
fn in_the_users_own_home_the_prompt_is_reached_and_nothing_of_it_is_lost() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let path = world.user_home().join(".claude.json");
        let read = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
        assert_eq!(fs::read_dir(world.user_home()).unwrap().count(), 0, "{cli}: a newcomer's");
        let session = terminal(daemon, json!({"home": "user", "name": "newcomer"}));
        assert_eq!(session.ask("hello"), "You said: hello", "{cli}");
        assert_eq!(asked(&session), 0, "{cli}: no dialog");
        assert_eq!(read()["hasCompletedOnboarding"], true, "{cli}");
        let kept = fs::metadata(&path).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept) & 0o777, 0o600, "{cli}");
        session.act("stop");

        // What claude has made of it, and what others have put there.
        let folder = world.folder().canonicalize().unwrap();
        let mut lived_in = read();
        lived_in["projects"][folder.to_str().unwrap()] =
            json!({"hasTrustDialogAccepted": true, "ours": [1, 2]});
        lived_in["projects"]["/elsewhere"] =
            json!({"hasTrustDialogAccepted": false, "allowedTools": ["Bash"]});
        lived_in["oauthAccount"] = json!({"emailAddress": "someone@example.invalid"});
        lived_in["aKeyOfSomebodyElse"] = json!({"deep": [true, null, "漢字"]});
        fs::write(&path, lived_in.to_string()).unwrap();
        let session = terminal(daemon, json!({"home": "user", "name": "resident", "workdir": folder}));
        assert_eq!(session.ask("hello again"), "You said: hello again", "{cli}");
        assert_eq!(asked(&session), 0, "{cli}: no dialog");
        session.act("stop");
        let now = read();
        let missing: Vec<&String> =
            lived_in.as_object().unwrap().keys().filter(|key| now.get(key.as_str()).is_none()).collect();
        assert!(missing.is_empty(), "{cli}: {missing:?}");
        // In others claude counts.
        for key in [
            "oauthAccount",
            "aKeyOfSomebodyElse",
            "userID",
            "customApiKeyResponses",
            "hasCompletedOnboarding",
        ] {
            assert_eq!(now[key], lived_in[key], "{cli}: {key}");
        }
        let projects = &now["projects"];
        assert_eq!(projects["/elsewhere"], lived_in["projects"]["/elsewhere"], "{cli}");
        assert_eq!(projects[folder.to_str().unwrap()]["ours"], json!([1, 2]), "{cli}");
    });
}

#[test]
fn two_turns_share_one_memory_and_each_has_one_result() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        assert_eq!(session.ask("the word is plum"), "You said: the word is plum", "{cli}");
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        let shown = session.wait_idle();
        assert_eq!((shown.turns, shown.turn.n), (2, 2), "{cli}");
        assert_eq!(data_of(&session, "result").len(), 2, "{cli}");
    });
}

#[test]
fn an_interrupt_ends_the_turn_and_the_session_goes_on() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({"allowed_tools": ["Bash"]}));
        for text in ["go on for ever", "sleep a while", "never answer"] {
            let turn = session.wait_idle().turn.n;
            let message = session.send(text);
            wait_until("the turn", || session.show().turn.n > turn, DEADLINE);
            if text.contains("sleep") {
                let asleep = work(&session).join("asleep");
                wait_until("the tool", || asleep.exists(), DEADLINE);
            }
            session.act("interrupt");
            let message = session.answer_to(&message);
            assert_eq!(message.state, MessageState::Interrupted, "{cli}: {text}: {message:?}");
            assert!(!message.result.is_some_and(|result| result.ok), "{cli}: {text}");
            assert_eq!(session.ask("still there?"), "still here", "{cli}: after {text}");
        }
    });
}

#[test]
fn messages_to_a_busy_session_arrive_once_and_in_order() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({}));
        let texts: Vec<String> = std::iter::once("count slowly".to_owned())
            .chain((1..=5).map(|n| format!("message {n}")))
            .collect();
        let sent: Vec<MessageAccepted> = texts.iter().map(|text| session.send(text)).collect();
        for (text, message) in texts.iter().zip(&sent) {
            let message = session.answer_to(message);
            let (said, ok) = answered(&message);
            assert!(ok && said.contains(text.as_str()), "{cli}: {text}: {message:?}");
        }
        let heard = world.heard();
        assert_eq!(heard, texts, "{cli}: the model hears each once, in order");
        let ids: Vec<Value> = sent.iter().map(|message| json!(message.message_id)).collect();
        for kind in ["input_accepted", "input_delivered"] {
            let of_kind: Vec<Value> =
                data_of(&session, kind).iter().map(|data| data["message_id"].clone()).collect();
            assert_eq!(of_kind, ids, "{cli}: {kind}");
        }
        assert_eq!(data_of(&session, "result").len(), texts.len(), "{cli}");
    });
}

/// Somebody may have left text there, and the cursor anywhere in it.
#[test]
fn a_draft_gives_way_to_a_message() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        session.wait_idle();
        let drafts: [(&str, &[&str]); 3] =
            [("behind", &[]), ("in front", &["Home"]), ("the middle", &["Left", "Left"])];
        for (draft, then) in drafts {
            for key in draft.chars() {
                type_keys(&session, &[&key.to_string()]);
            }
            let stands = || screen(&session).rows.iter().any(|row| row == &format!("❯\u{a0}{draft}"));
            wait_until(draft, stands, DEADLINE);
            then.iter().for_each(|key| type_keys(&session, &[key]));
            assert_eq!(session.ask("a message"), "You said: a message", "{cli}: {draft}");
        }
        assert_eq!(session.wait_idle().turns, 3, "{cli}");
    });
}

#[test]
fn a_stopped_session_is_resumed_with_its_memory_and_forked_without_a_change() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({"name": "plum"}));
        session.ask("the word is plum");
        let before = session.show();
        let stopped = session.act("stop");
        assert_eq!(stopped.state, RunState::Ended, "{cli}");
        session.act("resume");
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        let after = session.show();
        assert_eq!((after.run, after.claude_session_id), (2, before.claude_session_id), "{cli}");
        session.act("stop");
        let events = session.events().len();
        let fork: castra_proto::Session = session.http.post(&session.path("/fork"), &json!({})).expect(201);
        let fork = castra_testkit::Session::of(session.http.clone(), fork.id.to_string());
        let remembered = fork.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        assert_ne!(fork.show().claude_session_id, before.claude_session_id, "{cli}");
        assert_eq!(session.events().len(), events, "{cli}");
    });
}

#[test]
fn clear_begins_a_conversation_that_is_followed() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        session.ask("the word is plum");
        let before = session.show().claude_session_id.expect("a conversation");
        session.act("clear");
        let forgotten = session.ask("what did I say?");
        assert!(!forgotten.contains("plum"), "{cli}: {forgotten}");
        let shown = session.show();
        let after = shown.claude_session_id.expect("a conversation");
        assert_eq!(shown.claude_session_ids, [before, after], "{cli}");
        session.ask("the word is now pear");
        session.act("stop");
        session.act("resume");
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("pear") && !remembered.contains("plum"), "{cli}: {remembered}");
    });
}
