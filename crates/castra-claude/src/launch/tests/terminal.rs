//! The same tables for `mode: terminal`.

use super::*;

fn terminal(fields: Value) -> Value {
    with_fields(json!({"mode": "terminal"}), fields)
}

fn with_fields(mut base: Value, more: Value) -> Value {
    more.as_object().unwrap().iter().for_each(|(name, value)| base[name] = value.clone());
    base
}

#[test]
fn a_terminal_is_the_interactive_cli() {
    let launch = launch(&spec(terminal(json!({}))), &context()).unwrap();
    let id = "--session-id=00000000-0000-0000-0000-000000000001";
    let own = ["/c/claude", "--permission-mode=default", id, "--setting-sources=", "--add-dir=/s/work"];
    assert_eq!(launch.argv, own);
    let env = [
        ("CASTRA_RUN", RUN),
        ("CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD", "1"),
        ("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "1"),
        ("CLAUDE_CONFIG_DIR", "/s/home/.claude"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("HOME", "/s/home"),
        ("PATH", "/s/home/.local/bin:/usr/bin"),
        ("TERM", "xterm-256color"),
    ];
    assert_eq!(launch.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!((launch.files, launch.initialize), (vec![], vec![]));
    let settled = Settled { trusted: vec!["/s/work".into()], api_keys: vec![], bypass_accepted: false };
    assert_eq!(launch.settled, settled);
}

#[test]
fn what_goes_into_a_terminal_by_files_and_arguments() {
    let fields = json!({
        "system_prompt": "Be a crab.",
        "append_system_prompt": "Walk sideways.",
        "mcp_servers": {"x": {"type": "http", "url": "http://x"}},
        "agents": {"a": {"description": "d", "prompt": "p"}},
        "settings": {"model": "x", "env": {"ANTHROPIC_API_KEY": "in-settings"}},
        "tui": {"fullscreen": true, "focus": true},
        "permission_mode": "bypassPermissions",
        "model": "sonnet",
        "env": {"ANTHROPIC_API_KEY": "in-env", "TERM": "xterm"},
        "tmux": "crabs",
    });
    let launch = launch(&spec(terminal(fields)), &context()).unwrap();
    assert_eq!(
        launch.argv[1..],
        [
            "--allow-dangerously-skip-permissions",
            "--permission-mode=bypassPermissions",
            "--session-id=00000000-0000-0000-0000-000000000001",
            "--model=sonnet",
            "--mcp-config=/s/home/.castra/mcp.json",
            "--settings=/s/home/.castra/settings.json",
            "--system-prompt-file=/s/home/.castra/system-prompt.txt",
            "--append-system-prompt-file=/s/home/.castra/append-system-prompt.txt",
            r#"--agents={"a":{"description":"d","prompt":"p"}}"#,
            "--setting-sources=",
            "--add-dir=/s/work",
        ]
    );
    let content = |name: &str| {
        let file = launch.files.iter().find(|file| file.path.ends_with(name)).unwrap();
        assert_eq!(file.mode, 0o600);
        String::from_utf8(file.bytes.clone()).unwrap()
    };
    assert_eq!(
        (content("/system-prompt.txt"), content("append-system-prompt.txt")),
        ("Be a crab.".into(), "Walk sideways.".into())
    );
    let settings: Value = serde_json::from_str(&content("settings.json")).unwrap();
    assert_eq!(
        settings,
        json!({
            "model": "x",
            "env": {"ANTHROPIC_API_KEY": "in-settings"},
            "tui": "fullscreen",
            "viewMode": "focus",
            "skipDangerousModePermissionPrompt": true,
        })
    );
    assert_eq!((launch.env["CLAUDE_CODE_NO_FLICKER"].as_str(), launch.env["TERM"].as_str()), ("1", "xterm"));
    assert_eq!(
        launch.settled.claude_json(Some(json!({"userID": "u"}))),
        json!({
            "userID": "u",
            "hasCompletedOnboarding": true,
            "bypassPermissionsModeAccepted": true,
            "projects": {"/s/work": {"hasTrustDialogAccepted": true}},
            "customApiKeyResponses": {"approved": ["in-env", "in-settings"]},
        })
    );
    assert!(!format!("{launch:?}").contains("in-settings"), "no key in what is logged of the files");
}

#[test]
fn what_a_terminal_would_ignore_is_refused() {
    for (fields, field) in [
        (json!({"output_schema": {}}), "output_schema"),
        (json!({"skills": ["x"]}), "skills"),
        (json!({"forward_subagent_text": true}), "forward_subagent_text"),
        (json!({"include_hook_events": true}), "include_hook_events"),
        (json!({"limits": {"max_turns": 3}}), "limits.max_turns"),
        (json!({"limits": {"max_budget_usd": 1.0}}), "limits.max_budget_usd"),
        (json!({"file_checkpointing": true}), "file_checkpointing"),
    ] {
        match check(&spec(terminal(fields.clone())), &context()) {
            Err(Refusal::NotInTerminal { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{fields}: {other:?}"),
        }
    }
    // Its default is on, and means nothing here.
    assert_eq!(check(&spec(terminal(json!({"partials": true}))), &context()), Ok(()));
}
