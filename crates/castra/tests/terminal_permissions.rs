//! Dialogs of the real TUI: seen as permission requests, answered by API or at the keyboard, and both sides learn of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::api::{MessageAccepted, MessageState};
use castra_proto::permission::{PermissionKind, PermissionState};
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{DEADLINE, Session, each, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use terminal::{CASTRA, data_of, screen, terminal, type_keys, work};

const SCRIPT: &str = r#"
[[rule]]
name = "still"
when.last_user.contains = "still there"
reply.text = "You said: {{last_user}}"
[[rule]]
name = "refused"
when.tool_result.is_error = true
reply.text = "refused: {{tool_result}}"
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done"
[[rule]]
name = "touch"
when.last_user.regex = '^touch (\S+)'
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch {{capture:1}}", description = "Touch" } } }]
[[rule]]
name = "write"
when.last_user.regex = '^write (\S+)'
reply.blocks = [{ tool_use = { name = "Write", input = { file_path = "{{cwd}}/{{capture:1}}", content = "1. Yes\n2. No\n" } } }]
[[rule]]
name = "question"
when.last_user.contains = "ask me"
reply.blocks = [
    { tool_use = { name = "AskUserQuestion", input = { questions = [ { question = "Which?", header = "Choice", multiSelect = false, options = [ { label = "Plum", description = "the first" }, { label = "Pear", description = "the second" } ] } ] } } },
]
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn result_of(session: &Session, message: &MessageAccepted) -> String {
    let message = session.answer_to(message);
    assert_eq!(message.state, MessageState::Answered, "{message:?}");
    message.result.expect("a result").text
}

fn shows_dialog(session: &Session) -> bool {
    screen(session).rows.iter().any(|row| row.contains("Do you want to"))
}

/// As a person does: claude may lose a key right after it has drawn a dialog, and whoever sees that presses again.
fn press(session: &Session, key: &str) {
    let mut pressed = Instant::now();
    type_keys(session, &[key]);
    let gone = || {
        let shown = shows_dialog(session);
        if shown && pressed.elapsed() > Duration::from_secs(5) {
            pressed = Instant::now();
            type_keys(session, &[key]);
        }
        !shown
    };
    wait_until("the dialog to be gone", gone, DEADLINE);
}

/// Nothing waits any more, on either side.
fn wait_settled(session: &Session) {
    let shown = session.wait_idle();
    assert_eq!(shown.pending, [], "{shown:?}");
    wait_until("the dialog to be gone", || !shows_dialog(session), DEADLINE);
}

#[test]
fn a_dialog_is_answered_by_the_api() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        assert_eq!(
            (request.kind, request.tool.as_str(), &request.input["command"], request.state),
            (PermissionKind::Tool, "Bash", &json!("touch a.txt"), PermissionState::Pending),
            "{cli}"
        );
        let shown = session.wait_state(RunState::RequiresAction);
        assert_eq!(shown.pending, std::slice::from_ref(&request), "{cli}");
        assert!(screen(&session).rows.iter().any(|row| row.contains("touch a.txt")), "{cli}");
        assert!(!work(&session).join("a.txt").exists(), "{cli}: nothing runs before the answer");
        assert_eq!(session.answer(&request, &json!({"behavior": "allow"})).status, 200, "{cli}");
        let again = session.answer(&request, &json!({"behavior": "deny"})).problem();
        assert_eq!((again.status, again.code), (409, ErrorCode::PermissionGone), "{cli}");
        assert_eq!(result_of(&session, &message), "done", "{cli}");
        assert!(work(&session).join("a.txt").exists(), "{cli}");
        wait_settled(&session);

        // The turn goes on, and claude hears why.
        let message = session.send("touch b.txt");
        let request = session.wait_permission();
        let denied = session.answer(&request, &json!({"behavior": "deny", "message": "not on a Sunday"}));
        assert_eq!(denied.status, 200, "{cli}");
        let said = result_of(&session, &message);
        assert!(said.starts_with("refused: ") && said.contains("not on a Sunday"), "{cli}: {said}");
        wait_settled(&session);

        // A file's own lines look like options.
        let message = session.send("write c.txt");
        let request = session.wait_permission();
        assert_eq!(request.tool, "Write", "{cli}: {request:?}");
        let stop = json!({"behavior": "deny", "message": "no", "interrupt": true});
        assert_eq!(session.answer(&request, &stop).status, 200, "{cli}");
        let message = session.answer_to(&message);
        assert!(!message.result.is_some_and(|result| result.ok), "{cli}: what was cut off is no success");
        wait_settled(&session);
        assert!(!work(&session).join("b.txt").exists() && !work(&session).join("c.txt").exists(), "{cli}");

        let behaviors: Vec<Value> = data_of(&session, "permission_answered")
            .iter()
            .map(|data| data["answer"]["behavior"].clone())
            .collect();
        assert_eq!(behaviors, ["allow", "deny", "deny"], "{cli}");
        assert_eq!(session.ask("still there?"), "You said: still there?", "{cli}");
    });
}

#[test]
fn a_dialog_is_answered_at_the_keyboard_while_the_api_waits() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        press(&session, "1");
        assert_eq!(result_of(&session, &message), "done", "{cli}");
        assert!(work(&session).join("a.txt").exists(), "{cli}");
        wait_settled(&session);
        let late = session.answer(&request, &json!({"behavior": "deny"})).problem();
        assert_eq!((late.status, late.code), (409, ErrorCode::PermissionGone), "{cli}");

        let message = session.send("touch b.txt");
        session.wait_permission();
        press(&session, "Esc");
        let message = session.answer_to(&message);
        assert!(!message.result.is_some_and(|result| result.ok), "{cli}: {:?}", message.state);
        wait_settled(&session);
        assert!(!work(&session).join("b.txt").exists(), "{cli}");
        assert_eq!(data_of(&session, "permission_requested").len(), 2, "{cli}");
    });
}

#[test]
fn a_question_is_answered_by_its_label() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        let message = session.send("ask me");
        let request = session.wait_permission();
        assert_eq!(
            (request.kind, request.tool.as_str()),
            (PermissionKind::Question, "AskUserQuestion"),
            "{cli}"
        );
        let mut input = request.input.clone();
        input["answers"] = json!({"Which?": "Pear"});
        let answer = json!({"behavior": "allow", "updated_input": input});
        assert_eq!(session.answer(&request, &answer).status, 200, "{cli}");
        assert_eq!(result_of(&session, &message), "done", "{cli}");
        let told = data_of(&session, "user");
        assert!(told.iter().any(|user| user["message"].to_string().contains("Pear")), "{cli}: {told:?}");
        wait_settled(&session);
    });
}

/// What keys cannot say is refused before anything is typed, and the request stays.
#[test]
fn what_a_dialog_cannot_be_told_is_refused() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        for answer in [
            json!({"behavior": "allow", "updated_input": {"command": "touch b.txt"}}),
            json!({"behavior": "allow", "remember": true}),
            json!({"behavior": "allow", "input_hash": "0".repeat(64)}),
        ] {
            let refused = session.answer(&request, &answer);
            assert!((400..500).contains(&refused.status), "{cli}: {answer}: {}", refused.text());
        }
        assert_eq!(session.show().pending.len(), 1, "{cli}");
        assert_eq!(session.answer(&request, &json!({"behavior": "allow"})).status, 200, "{cli}");
        assert_eq!(result_of(&session, &message), "done", "{cli}");
    });
}
