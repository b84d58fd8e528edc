//! Permission requests with the real CLI: a tool asks, and each answer does what it says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::permission::{PermissionKind, PermissionState};
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{Session, each, wait_for};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "touch"
when.last_user.regex = '^touch (\S+)'
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch {{capture:1}}", description = "Touch" } } }]
[[rule]]
name = "refused"
when.tool_result.is_error = true
reply.text = "refused: {{tool_result}}"
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done"
"#;

fn work(session: &Session) -> PathBuf {
    session.show().cwd.expect("a folder").into()
}

/// What is in the folder, beside what claude puts there itself.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn result_of(session: &Session, message: &castra_proto::api::MessageAccepted) -> String {
    session.answer_to(message).result.expect("a result").text
}

#[test]
fn run_without_a_terminal_says_which_command_answers_and_waits() {
    each(CASTRA, SCRIPT, |cli, world, _| {
        let run = world.castra(["run", "--fresh"]).args(world.run_flags());
        let mut child = run.arg("touch a.txt").spawn();
        let mut stderr = child.stderr.take().unwrap();
        let mut said = String::new();
        let command = wait_for(
            "the command that answers",
            || {
                let mut bytes = [0; 4096];
                let read = stderr.read(&mut bytes).unwrap();
                assert!(read > 0, "{cli}: run ended without asking: {said}");
                said.push_str(&String::from_utf8_lossy(&bytes[..read]));
                let line = said.lines().find(|line| line.contains("castra approve "))?.to_owned();
                said.contains('\n').then_some(line)
            },
            castra_testkit::DEADLINE,
        );
        let (_, args) = command.split_once("castra ").unwrap();
        let args: Vec<&str> =
            args.split([' ', '`', '\'']).take_while(|word| !word.is_empty() && *word != "or").collect();
        world.cli(&args).ok();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
            (Some(0), "done\n"),
            "{cli}: {said}"
        );
    });
}

#[test]
fn what_is_asked_and_what_approve_does() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        assert_eq!(
            (request.kind, request.tool.as_str(), &request.input["command"], request.state),
            (PermissionKind::Tool, "Bash", &json!("touch a.txt"), PermissionState::Pending),
            "{cli}"
        );
        assert_eq!(
            session.wait_state(RunState::RequiresAction).pending,
            std::slice::from_ref(&request),
            "{cli}"
        );
        assert_eq!(files(&work(&session)), [""; 0], "{cli}: nothing runs before the answer");

        world.cli(["approve", &session.id]).ok();
        assert_eq!(result_of(&session, &message), "done", "{cli}");
        assert_eq!(files(&work(&session)), ["a.txt"], "{cli}");

        let again = session.answer(&request, &json!({"behavior": "deny"})).problem();
        assert_eq!(again.code, ErrorCode::PermissionGone, "{cli}: {again:?}");
        let nothing = world.cli(["approve", &session.id]);
        assert_eq!(nothing.code, 1, "{cli}: {nothing:#?}");
        assert!(nothing.stderr.contains("nothing waits for an answer"), "{cli}: {nothing:#?}");
    });
}

#[test]
fn deny_tells_claude_why() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        let message = session.send("touch a.txt");
        session.wait_permission();
        world.cli(["deny", &session.id, "--message", "not on a Sunday"]).ok();
        assert_eq!(result_of(&session, &message), "refused: not on a Sunday", "{cli}");
        assert_eq!(files(&work(&session)), [""; 0], "{cli}");
    });
}

#[test]
fn another_input_runs_instead_of_the_one_that_was_asked() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        let stale = json!({"behavior": "allow", "input_hash": "0".repeat(64)});
        assert_eq!(session.answer(&request, &stale).problem().code, ErrorCode::InputChanged, "{cli}");

        let input = json!({"command": "touch b.txt", "description": "Touch"}).to_string();
        world.cli(["approve", &session.id, "--input", &input]).ok();
        assert_eq!(result_of(&session, &message), "done", "{cli}");
        assert_eq!(files(&work(&session)), ["b.txt"], "{cli}");
    });
}

#[test]
fn remember_is_shown_and_then_nothing_is_asked_again() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        let first = session.send("touch a.txt");
        let request = session.wait_permission();
        assert!(!request.suggestions.is_empty(), "{cli}: {request:?}");
        let approved = world.cli(["approve", &session.id, "--remember"]);
        assert_eq!(approved.code, 0, "{cli}: {approved:#?}");
        assert!(approved.stderr.contains("from now on: "), "{cli}: {approved:#?}");
        assert_eq!(result_of(&session, &first), "done", "{cli}");

        std::fs::remove_file(work(&session).join("a.txt")).unwrap();
        assert_eq!(session.ask("touch a.txt"), "done", "{cli}");
        assert_eq!(files(&work(&session)), ["a.txt"], "{cli}");
        let asked =
            session.events().iter().filter(|event| event.kind.as_str() == "permission_requested").count();
        assert_eq!(asked, 1, "{cli}");
    });
}

#[test]
fn a_denial_with_interrupt_ends_the_turn() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = daemon.session(json!({}));
        let message = session.send("touch a.txt");
        let request = session.wait_permission();
        let answer = json!({"behavior": "deny", "message": "stop", "interrupt": true});
        let decided: Value = session.answer(&request, &answer).expect(200);
        assert_eq!(decided["request_id"], request.request_id.as_str(), "{cli}");
        let message = session.answer_to(&message);
        assert!(
            !message.result.is_some_and(|result| result.ok),
            "{cli}: a turn that was cut off is no success"
        );
        assert_eq!(files(&work(&session)), [""; 0], "{cli}");
        session.wait_idle();
    });
}
