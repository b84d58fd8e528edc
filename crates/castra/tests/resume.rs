//! Conversations that outlive their run: resume, fork, and the adoption of what castra did not start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::{Page, TranscriptInfo};
use castra_proto::session::ExitCause;
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{Session, World, clis, each};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// Every transcript below a folder, with its bytes.
fn transcripts(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "jsonl") {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

fn projects(world: &World, session: &Session) -> PathBuf {
    world.home().join("sessions").join(&session.id).join("home/.claude/projects")
}

#[test]
fn a_stopped_session_is_resumed_with_its_memory() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({"name": "plum"}));
        session.ask("the word is plum");
        let before = session.show();

        let stopped = session.act("stop");
        let exit = stopped.exit.clone().expect("an exit");
        assert_eq!((stopped.state, exit.cause), (RunState::Ended, ExitCause::Stopped), "{cli}");
        let ended = session.try_send(&json!({"text": "anybody?"})).problem();
        assert_eq!(ended.code, ErrorCode::SessionEnded, "{cli}");
        assert!(ended.hint.is_some_and(|hint| hint.contains("resume")), "{cli}");

        world.cli(["resume", "plum"]).ok();
        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        let after = session.show();
        assert_eq!((after.run, after.claude_session_id), (2, before.claude_session_id), "{cli}");
        assert_ne!(after.pid, before.pid, "{cli}");

        let again = session.http.post(&session.path("/resume"), &Value::Null).problem();
        assert_eq!(again.code, ErrorCode::Conflict, "{cli}: what lives is not resumed");
    });
}

#[test]
fn a_fork_knows_everything_and_changes_nothing() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let parent = daemon.session(json!({}));
        parent.ask("the word is plum");
        parent.act("stop");
        let original = transcripts(&projects(world, &parent));
        assert_eq!(original.len(), 1, "{cli}: {original:?}");
        let events = parent.events().len();

        let fork = world.cli(["fork", &parent.id, "--name", "other", "--json"]).json();
        let fork = Session::of(daemon.http(), fork["id"].as_str().unwrap());
        let remembered = fork.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        fork.ask("the word is pear");

        assert_eq!(transcripts(&projects(world, &parent)), original, "{cli}: not a byte of the parent's");
        assert_eq!(parent.events().len(), events, "{cli}");
        let (child, parent_shown) = (fork.show(), parent.show());
        assert_ne!(child.claude_session_id, parent_shown.claude_session_id, "{cli}");
        assert_ne!(child.cwd, parent_shown.cwd, "{cli}: its work is a copy");

        parent.act("resume");
        let remembered = parent.ask("what did I say?");
        assert!(remembered.contains("plum") && !remembered.contains("pear"), "{cli}: {remembered}");
    });
}

#[test]
fn a_conversation_that_castra_did_not_start_is_adopted() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let output = Command::new(&cli.path)
            .args(["-p", "--output-format", "json", "the word is plum"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", world.user_home())
            .env("DISABLE_AUTOUPDATER", "1")
            .envs(world.model_env())
            .current_dir(world.folder())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{cli}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = said["session_id"].as_str().unwrap();
        let original = transcripts(&world.user_home().join(".claude/projects"));
        assert_eq!(original.len(), 1, "{cli}: {original:?}");

        let listed: Page<TranscriptInfo> =
            serde_json::from_value(world.cli(["sessions", "--all", "--json"]).json()).unwrap();
        let [info] = &listed.items[..] else { panic!("{cli}: {listed:?}") };
        assert_eq!(
            (info.id.as_str(), info.first_input.as_deref(), info.last_output.as_deref(), info.session_id),
            (id, Some("the word is plum"), Some("You said: the word is plum"), None),
            "{cli}"
        );
        assert_eq!(info.cwd.as_deref(), world.folder().to_str(), "{cli}");

        let path = format!("/api/v1/transcripts/{id}/adopt");
        let adopted: castra_proto::Session = daemon.http().post(&path, &world.spec(json!({}))).expect(201);
        let session = Session::of(daemon.http(), adopted.id.to_string());
        let history: Vec<String> =
            castra_testkit::normalise(&session.events()).into_iter().filter_map(|one| one.text).collect();
        assert!(history.contains(&"the word is plum".to_owned()), "{cli}: {history:?}");
        assert!(history.contains(&"You said: the word is plum".to_owned()), "{cli}: {history:?}");

        let remembered = session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
        assert_eq!(session.show().cwd.as_deref(), world.folder().to_str(), "{cli}");
        assert_eq!(
            transcripts(&world.user_home().join(".claude/projects")),
            original,
            "{cli}: an isolated session goes on in a copy"
        );
    });
}

#[test]
fn continue_takes_up_the_newest_session_of_the_folder() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let run = |words: &[&str]| world.castra(["run"]).args(world.run_flags()).args(words).run();
    assert_eq!(run(&["-c", "the word is plum"]).ok(), "You said: the word is plum\n", "none: a new one");
    let remembered = run(&["-c", "what did I say?"]).ok();
    assert!(remembered.contains("the word is plum"), "{remembered}");
    let sessions = world.cli(["ps", "--all", "--json"]).json();
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1), "{sessions}");
}
