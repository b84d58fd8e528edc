//! Turns on the real TUI: a newcomer's first prompt, memory, interruption, errors, agents. Each message has one end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::RunState;
use castra_proto::api::{MessageAccepted, MessageState};
use castra_testkit::{DEADLINE, each, wait_until};
use serde_json::{Value, json};
use terminal::{CASTRA, SCRIPT, answered, data_of, terminal, work};

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
        let asked =
            session.events_of("permission_requested").len() + session.events_of("requires_action").len();
        assert_eq!(asked, 0, "{cli}");
        let states: Vec<Value> = data_of(&session, "state").iter().map(|data| data["to"].clone()).collect();
        assert_eq!(states, ["queued", "starting", "idle", "running", "idle"], "{cli}");
        assert_eq!(world.calls().len(), 1, "{cli}");
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
        let heard: Vec<String> = world.calls().iter().filter_map(|call| call.last_user.clone()).collect();
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

#[test]
fn what_a_turn_can_come_to() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({"allowed_tools": ["Bash"]}));
        let turn = |text: &str| session.answer_to(&session.send(text));
        let failed = turn("fail with 400").result.expect("a result");
        assert!(!failed.ok && failed.text.contains("scripted"), "{cli}: {failed:?}");
        assert!(failed.error.is_some(), "{cli}: {failed:?}");
        let refused = turn("refuse this").result.expect("a result");
        // The newer one asks the model once more, in the same turn.
        assert_eq!(refused.ok, cli.version != "2.1.197", "{cli}: {refused:?}");
        let continued = turn("run out of tokens");
        let (text, ok) = answered(&continued);
        assert!(ok && !text.is_empty(), "{cli}: {continued:?}");
        let agent = turn("use an agent");
        assert!(answered(&agent).1, "{cli}: {agent:?}");
        assert_eq!(session.ask("and now?"), "You said: and now?", "{cli}");
        session.wait_idle();
        let results = data_of(&session, "result");
        let by_agents =
            results.iter().filter(|result| result["origin"]["kind"] == "task-notification").count();
        assert_eq!(results.len() - by_agents, 5, "{cli}: {results:#?}");
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
