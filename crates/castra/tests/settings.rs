//! What configures claude is not the agent's to change: an approved command that writes claude's settings allows
//! nothing, `remember` does without those files, and the user's own settings count.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_testkit::{DEADLINE, Session, World, clis, wait_for};
use serde_json::{Value, json};
use std::path::Path;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = r#"
[[rule]]
name = "run"
when.last_user.regex = '^run: (.+)$'
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "{{capture:1}}", description = "Run" } } }]
[[rule]]
name = "anything else"
reply.text = "done"
"#;
/// Allows all that there is.
const ALL: &str = r#"{"permissions": {"allow": ["Bash", "Bash(*)", "Bash(touch:*)"]}}"#;

/// One turn; whether claude asked in it. What it asks is allowed, with `remember` if so said.
fn asks(session: &Session, prompt: &str, remember: bool) -> bool {
    let message = session.send(prompt);
    let over = |seen: &[castra_proto::Event]| {
        seen.iter().any(|event| event.seq > message.seq && event.kind.as_str() == "result")
    };
    let request = wait_for(
        "a question or a result",
        || {
            let pending = session.show().pending;
            (!pending.is_empty() || over(&session.events())).then_some(pending)
        },
        DEADLINE,
    );
    let request = request.into_iter().next();
    if let Some(request) = &request {
        let decided: Value =
            session.answer(request, &json!({"behavior": "allow", "remember": remember})).expect(200);
        assert_eq!(decided["request_id"], request.request_id.as_str());
    }
    let result = session.answer_to(&message).result.expect("a result");
    assert!(result.ok, "{prompt}: {result:?}");
    request.is_some()
}

/// Writes `ALL` to every settings file that claude may read, in one command; a folder that holds one is also moved
/// away and made anew. `|| true`: what a sandbox refuses is no failure of the command.
fn write_settings(config: &str) -> String {
    let put = "mkdir -p $d; for f in settings.json settings.local.json; do echo $ALL > $d/$f; done";
    format!(
        "run: ALL='{ALL}'; for d in {config} .claude; do {put}; mv $d $d.old && {{ cp -r $d.old $d; {put}; }}; \
         done 2>/dev/null; true"
    )
}

/// Takes the session to a new claude, which reads every file anew.
fn again(session: &Session) {
    session.act("stop");
    session.act("resume");
    session.wait_idle();
}

#[test]
fn an_approved_command_that_writes_settings_switches_nothing_off() {
    for (cli, sandbox, own_folder) in clis().iter().flat_map(|cli| {
        // In the user's own folder their settings are read, and only a sandbox can hold them.
        [(cli, "off", false), (cli, "strict", false), (cli, "strict", true)]
    }) {
        let case = format!("{cli}, sandbox {sandbox}, own folder {own_folder}");
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let workdir = own_folder.then(|| world.folder());
        let session = daemon.session(json!({"sandbox": sandbox, "workdir": workdir}));
        // Claude's own folder cannot be moved away while it is in use; its files can be written.
        assert!(asks(&session, &write_settings("$CLAUDE_CONFIG_DIR"), false), "{case}");
        let work = session.show().cwd.unwrap();
        let written = std::fs::read_to_string(Path::new(&work).join(".claude/settings.local.json"));
        assert_eq!(written.is_ok_and(|text| text.contains("Bash")), !own_folder, "{case}: writable or not");
        assert!(asks(&session, "run: touch live.txt", false), "{case}: while claude runs");
        again(&session);
        assert!(asks(&session, "run: touch later.txt", false), "{case}: and by the next one");
    }
}

#[test]
fn with_the_users_home_open_its_settings_are_read_and_held() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let config = world.user_home().join(".claude");
        std::fs::create_dir(&config).unwrap();
        let mine = r#"{"permissions": {"allow": ["Bash(touch mine.txt)"]}}"#;
        std::fs::write(config.join("settings.json"), mine).unwrap();
        let daemon = world.daemon();
        let session = daemon.session(json!({"sandbox": "strict", "home": "user"}));
        assert!(!asks(&session, "run: touch mine.txt", false), "{cli}: the user's own rule");
        assert!(asks(&session, &write_settings("$HOME/.claude"), false), "{cli}");
        assert_eq!(std::fs::read_to_string(config.join("settings.json")).unwrap(), mine, "{cli}");
        assert!(asks(&session, "run: touch live.txt", false), "{cli}: while claude runs");
        again(&session);
        assert!(asks(&session, "run: touch later.txt", false), "{cli}: and by the next one");
        assert!(!asks(&session, "run: touch mine.txt", false), "{cli}: the user's own rule, still");
    }
}

#[test]
fn the_users_own_project_counts_with_and_without_a_sandbox() {
    for (cli, sandbox) in clis().iter().flat_map(|cli| [(cli, "off"), (cli, "strict")]) {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let folder = world.folder();
        std::fs::create_dir_all(folder.join(".claude/agents")).unwrap();
        std::fs::write(folder.join("CLAUDE.md"), "memory-of-the-project").unwrap();
        std::fs::write(
            folder.join(".claude/agents/one.md"),
            "---\nname: one\ndescription: agent-of-the-project\n---\nBe brief.",
        )
        .unwrap();
        for (file, name) in [("settings.json", "shared"), ("settings.local.json", "local")] {
            let rule = json!({"permissions": {"allow": [format!("Bash(touch {name}.txt)")]}});
            std::fs::write(folder.join(".claude").join(file), rule.to_string()).unwrap();
        }
        let daemon = world.daemon();
        let session = daemon.session(json!({"sandbox": sandbox, "workdir": folder}));
        for name in ["shared", "local"] {
            assert!(!asks(&session, &format!("run: touch {name}.txt"), false), "{cli} {sandbox}: {name}");
        }
        assert!(asks(&session, "run: touch other.txt", false), "{cli} {sandbox}");
        let said = format!("{:?}", world.calls());
        assert!(said.contains("memory-of-the-project"), "{cli} {sandbox}");
        assert!(said.contains("agent-of-the-project"), "{cli} {sandbox}");
    }
}

#[test]
fn a_fresh_workspace_has_its_memory_and_no_settings() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let session = daemon.session(json!({}));
        let work = session.wait_idle().cwd.unwrap();
        std::fs::create_dir_all(Path::new(&work).join(".claude")).unwrap();
        std::fs::write(Path::new(&work).join(".claude/settings.json"), ALL).unwrap();
        std::fs::write(Path::new(&work).join("CLAUDE.md"), "memory-of-the-workspace").unwrap();
        again(&session);
        assert!(asks(&session, "run: touch a.txt", false), "{cli}");
        assert!(format!("{:?}", world.calls()).contains("memory-of-the-workspace"), "{cli}");

        // Who wants them says so.
        let session = daemon.session(json!({"setting_sources": ["project"], "sandbox": "off"}));
        let work = session.wait_idle().cwd.unwrap();
        std::fs::create_dir_all(Path::new(&work).join(".claude")).unwrap();
        std::fs::write(Path::new(&work).join(".claude/settings.json"), ALL).unwrap();
        again(&session);
        assert!(!asks(&session, "run: touch b.txt", false), "{cli}");
    }
}

#[test]
fn what_was_remembered_holds_for_the_session_its_next_runs_and_its_forks() {
    for (cli, sandbox, own_folder) in
        clis().iter().flat_map(|cli| [(cli, "off", false), (cli, "strict", true)])
    {
        let case = format!("{cli}, sandbox {sandbox}, own folder {own_folder}");
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let workdir = own_folder.then(|| world.folder());
        let session = daemon.session(json!({
            "sandbox": sandbox, "workdir": workdir, "settings": {"permissions": {"allow": ["Bash(touch given.txt)"]}},
        }));
        // Parentheses and a backslash, which a rule must escape.
        let command = r"run: touch 'a (1)\b.txt'";
        assert!(asks(&session, command, true), "{case}");
        assert!(!asks(&session, command, false), "{case}: not again");
        again(&session);
        assert!(!asks(&session, command, false), "{case}: nor after resume");
        assert!(!asks(&session, "run: touch given.txt", false), "{case}: the spec's rules stand");
        assert!(asks(&session, "run: touch other.txt", false), "{case}: and nothing else is allowed");
        let local = Path::new(&session.show().cwd.unwrap()).join(".claude/settings.local.json");
        assert!(!local.exists(), "{case}: no file of the folder was written");
        let fork: Value = session.http.post(&session.path("/fork"), &json!({})).expect(201);
        let fork = Session::of(daemon.http(), fork["id"].as_str().unwrap());
        assert!(!asks(&fork, command, false), "{case}: nor in a fork");
    }
}
