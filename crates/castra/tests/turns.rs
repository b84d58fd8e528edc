//! Turns with the real CLI: memory, interruption, messages to a busy session, `/clear`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::{MessageAccepted, MessageState};
use castra_proto::{ErrorCode, RunState};
use castra_testkit::each;
use serde_json::{Value, json};
use std::time::Instant;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "{{last_user}}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 4, delay_ms = 100 }
[[rule]]
name = "endless"
when.last_user.contains = "for ever"
reply.text = "It begins, and then"
reply.stall = { after_chars = 10, forever = true }
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

#[test]
fn two_turns_share_one_memory() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = daemon.session(json!({}));
        assert_eq!(session.ask("the word is plum"), "You said: the word is plum", "{cli}");
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        let shown = session.wait_idle();
        assert_eq!((shown.turns, shown.turn.n), (2, 2), "{cli}");
    });
}

#[test]
fn an_interrupt_in_mid_stream_ends_the_turn_and_the_session_goes_on() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = daemon.session(json!({}));
        let live = session.follow(0);
        let message = session.send("go on for ever");
        live.until("the text that is being written", |seen| {
            seen.partials
                .iter()
                .any(|partial| partial["text"].as_str().is_some_and(|text| text.contains("It")))
                .then_some(())
        });
        let began = Instant::now();
        session.act("interrupt");
        let message = session.answer_to(&message);
        let took = began.elapsed();
        println!("{cli}: interrupt to the end of the turn: {} ms", took.as_millis());
        assert_eq!(message.state, MessageState::Interrupted, "{cli}: {message:?}");
        assert!(!message.result.is_some_and(|result| result.ok), "{cli}: what was cut off is no success");
        assert_eq!(session.ask("still there?"), "You said: still there?", "{cli}");
    });
}

#[test]
fn messages_to_a_busy_session_arrive_once_and_in_order() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        let texts: Vec<String> = std::iter::once("count slowly".to_owned())
            .chain((1..=5).map(|n| format!("message {n}")))
            .collect();
        let sent: Vec<MessageAccepted> = texts.iter().map(|text| session.send(text)).collect();
        for (text, message) in texts.iter().zip(&sent) {
            let message = session.answer_to(message);
            assert_eq!(message.state, MessageState::Answered, "{cli}: {text}: {message:?}");
            let result = message.result.expect("a result");
            assert!(result.ok && result.text.contains(text.as_str()), "{cli}: {text}: {result:?}");
        }
        let heard = world.heard();
        assert_eq!(heard, texts, "{cli}: the model hears each once, in order");

        let of_kind = |kind: &str| -> Vec<String> {
            let events = session.events();
            let events = events.iter().filter(|event| event.kind.as_str() == kind);
            let data = events.map(|event| serde_json::from_str::<Value>(event.data.get()).unwrap());
            data.map(|data| data["message_id"].as_str().unwrap().to_owned()).collect()
        };
        let ids: Vec<String> = sent.iter().map(|message| message.message_id.to_string()).collect();
        assert_eq!((of_kind("input_accepted"), of_kind("input_delivered")), (ids.clone(), ids), "{cli}");
    });
}

#[test]
fn what_a_busy_session_can_be_told_to_do_with_a_message() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = daemon.session(json!({}));
        let endless = session.send("go on for ever");
        session.wait_state(RunState::Running);
        let rejected = session.try_send(&json!({"text": "now", "if_busy": "reject"})).problem();
        assert_eq!(rejected.code, ErrorCode::SessionBusy, "{cli}");
        assert!(rejected.hint.is_some(), "{cli}: {rejected:?}");

        let queued = session.send("never mind");
        let path = session.path(&format!("/messages/{}", queued.message_id));
        let withdrawn: castra_proto::api::Message = session.http.delete(&path).expect(200);
        assert_eq!(withdrawn.state, MessageState::Withdrawn, "{cli}");

        let urgent: MessageAccepted =
            session.try_send(&json!({"text": "listen", "if_busy": "interrupt"})).expect(202);
        let urgent = session.answer_to(&urgent);
        assert_eq!(urgent.result.map(|result| result.text).as_deref(), Some("You said: listen"), "{cli}");
        assert_eq!(session.answer_to(&endless).state, MessageState::Interrupted, "{cli}");
    });
}

#[test]
fn clear_begins_a_conversation_that_is_followed() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = daemon.session(json!({}));
        session.ask("the word is plum");
        let before = session.show().claude_session_id.expect("a conversation");
        session.act("clear");
        let forgotten = session.ask("what did I say?");
        assert!(!forgotten.contains("plum"), "{cli}: {forgotten}");

        let shown = session.show();
        let after = shown.claude_session_id.expect("a conversation");
        assert_ne!(before, after, "{cli}");
        assert_eq!(shown.claude_session_ids, [before, after], "{cli}");

        session.ask("the word is now pear");
        session.act("stop");
        session.act("resume");
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("pear") && !remembered.contains("plum"), "{cli}: {remembered}");
        assert_eq!(session.show().claude_session_id, Some(after), "{cli}: the newest one was resumed");
    });
}
