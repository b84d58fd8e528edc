//! Tables: a spec in, argv, environment, files and the first line out; or the refusal.

use super::*;
use castra_proto::spec::{Home, Limits, Thinking};
use serde_json::from_value;

const RUN: &str = "01928f6e-7b5a-7000-8000-000000000001";
const NEW: Uuid = Uuid::from_u128(1);

fn context() -> LaunchContext {
    LaunchContext {
        claude: "/c/claude".into(),
        home: "/s/home".into(),
        config_dir: "/s/home/.claude".into(),
        workdir: "/s/work".into(),
        files_dir: "/s/home/.castra".into(),
        inherited: BTreeMap::from([("PATH".into(), "/usr/bin".into())]),
        run_id: RUN.parse().unwrap(),
        conversation: Conversation::New(NEW),
        is_root: false,
        allow_root_bypass: false,
        demo: None,
        file_texts: BTreeMap::new(),
        own_server: None,
        remembered: Vec::new(),
    }
}

fn spec(json: Value) -> SessionSpec {
    from_value(json).unwrap()
}

/// The arguments that follow the ones that every session has.
fn own_arguments(spec: Value, context: &LaunchContext) -> Vec<String> {
    let argv = launch(&self::spec(spec), context).unwrap().argv;
    let always = [
        "/c/claude",
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--replay-user-messages",
        "--permission-prompt-tool",
        "stdio",
    ];
    assert_eq!(argv[..always.len()], always);
    let mut own = argv[always.len()..].to_vec();
    // A fresh workspace: none of claude's own settings, and CLAUDE.md all the same.
    let fresh = ["--setting-sources=", "--add-dir=/s/work"];
    if let Some(at) = own.windows(2).position(|two| two == fresh) {
        own.drain(at..at + 2);
    }
    own
}

#[test]
fn a_plain_session() {
    let launch = launch(&SessionSpec::default(), &context()).unwrap();
    assert_eq!(
        launch.argv[10..],
        [
            "--include-partial-messages",
            "--permission-mode=default",
            "--session-id=00000000-0000-0000-0000-000000000001",
            "--setting-sources=",
            "--add-dir=/s/work",
        ]
    );
    let env = [
        ("CASTRA_RUN", RUN),
        ("CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD", "1"),
        ("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "1"),
        ("CLAUDE_CONFIG_DIR", "/s/home/.claude"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("HOME", "/s/home"),
        ("PATH", "/s/home/.local/bin:/usr/bin"),
    ];
    assert_eq!(launch.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(launch.files, []);
    let first: Value = serde_json::from_slice(&launch.initialize).unwrap();
    let id = format!("castra-init-{RUN}");
    assert_eq!(
        first,
        json!({"type": "control_request", "request_id": id, "request": {"subtype": "initialize"}})
    );
    assert_eq!(launch.initialize.iter().position(|byte| *byte == b'\n'), Some(launch.initialize.len() - 1));
}

#[test]
fn every_field_that_is_an_argument() {
    let id = "--session-id=00000000-0000-0000-0000-000000000001";
    for (fields, arguments) in [
        (json!({"model": "sonnet"}), vec!["--model=sonnet"]),
        (json!({"fallback_model": "a,b"}), vec!["--fallback-model=a,b"]),
        (json!({"effort": "max"}), vec!["--effort=max"]),
        (json!({"thinking": 3000}), vec!["--max-thinking-tokens=3000"]),
        (json!({"thinking": "disabled"}), vec!["--thinking=disabled"]),
        (json!({"betas": ["a", "b"]}), vec!["--betas=a", "--betas=b"]),
        (
            json!({"allowed_tools": ["Bash(git *)", "Bash(mkdir a,b)"]}),
            vec!["--allowedTools=Bash(git *)", "--allowedTools=Bash(mkdir a,b)"],
        ),
        (json!({"disallowed_tools": ["Write"]}), vec!["--disallowedTools=Write"]),
        (json!({"tools": ["Bash", "Read"]}), vec!["--tools=Bash,Read"]),
        (json!({"tools": []}), vec!["--tools="]),
        (json!({"plugins": ["/p"]}), vec!["--plugin-dir=/p"]),
        (json!({"setting_sources": ["user", "local"]}), vec!["--setting-sources=user,local"]),
        (json!({"setting_sources": []}), vec!["--setting-sources="]),
        (json!({"add_dirs": ["/a", "-b"]}), vec!["--add-dir=/a", "--add-dir=-b"]),
        (
            json!({"limits": {"max_turns": 3, "max_budget_usd": 0.5}}),
            vec!["--max-turns=3", "--max-budget-usd=0.5"],
        ),
        (
            json!({"extra_args": ["--debug-file", "/tmp/d", "--bare"]}),
            vec!["--debug-file", "/tmp/d", "--bare"],
        ),
    ] {
        let mut fields = fields;
        fields["partials"] = json!(false);
        let mut expected = vec!["--permission-mode=default", id];
        expected.extend(arguments);
        assert_eq!(own_arguments(fields, &context()), expected);
    }
    for (fields, switch) in [
        (json!({"partials": false, "include_hook_events": true}), "--include-hook-events"),
        (json!({"partials": false, "strict_mcp_config": true}), "--strict-mcp-config"),
    ] {
        assert_eq!(own_arguments(fields, &context()), [switch, "--permission-mode=default", id]);
    }
}

#[test]
fn conversations() {
    let to = Uuid::from_u128(2);
    for (conversation, arguments) in [
        (Conversation::Resume(NEW), vec!["--resume=00000000-0000-0000-0000-000000000001"]),
        (
            Conversation::ResumeFork { from: NEW, to },
            vec![
                "--resume=00000000-0000-0000-0000-000000000001",
                "--session-id=00000000-0000-0000-0000-000000000002",
                "--fork-session",
            ],
        ),
        (Conversation::ResumeFile("/t/x.jsonl".into()), vec!["--resume=/t/x.jsonl"]),
    ] {
        let context = LaunchContext { conversation, ..context() };
        let mut expected = vec!["--permission-mode=default"];
        expected.extend(arguments);
        assert_eq!(own_arguments(json!({"partials": false}), &context), expected);
    }
    let relative = LaunchContext { conversation: Conversation::ResumeFile("x.jsonl".into()), ..context() };
    assert_eq!(
        check(&SessionSpec::default(), &relative),
        Err(Refusal::NotAbsolute { path: "x.jsonl".into() })
    );
}

#[test]
fn what_may_be_secret_is_in_files_and_in_the_first_line_never_in_argv() {
    let secret = "s3cret";
    let spec = spec(json!({
        "mcp_servers": {"x": {"type": "http", "url": "http://x", "headers": {"Authorization": secret}}},
        "settings": {"env": {"TOKEN": secret}},
        "agents": {"a": {"description": "d", "prompt": secret}},
        "system_prompt": secret,
        "append_system_prompt_file": "notes.md",
        "output_schema": {"type": "object"},
        "skills": ["one"],
        "forward_subagent_text": true,
        "env": {"TOKEN": secret},
    }));
    let context =
        LaunchContext { file_texts: BTreeMap::from([("notes.md".into(), "notes".into())]), ..context() };
    let launch = launch(&spec, &context).unwrap();
    assert!(!launch.argv.join(" ").contains(secret), "{:?}", launch.argv);
    assert!(launch.argv.contains(&"--mcp-config=/s/home/.castra/mcp.json".to_owned()));
    assert!(launch.argv.contains(&"--settings=/s/home/.castra/settings.json".to_owned()));
    let files: Vec<(&str, u32, Value)> = launch
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.mode, serde_json::from_slice(&file.bytes).unwrap()))
        .collect();
    assert_eq!(
        files,
        [
            ("/s/home/.castra/mcp.json", 0o600, json!({"mcpServers": spec.mcp_servers})),
            ("/s/home/.castra/settings.json", 0o600, json!({"env": {"TOKEN": secret}})),
        ]
    );
    let first: Value = serde_json::from_slice(&launch.initialize).unwrap();
    assert_eq!(
        first["request"],
        json!({
            "subtype": "initialize",
            "systemPrompt": [secret],
            "appendSystemPrompt": "notes",
            "agents": {"a": {"description": "d", "prompt": secret}},
            "jsonSchema": {"type": "object"},
            "skills": ["one"],
            "forwardSubagentText": true,
        })
    );
    assert!(!format!("{launch:?}").contains("Authorization"), "a file's content is not for logs");
}

#[test]
fn only_the_allow_list_is_inherited() {
    let kept = [
        "LANG",
        "LC_ALL",
        "TERM",
        "TZ",
        "HTTPS_PROXY",
        "https_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
    ];
    let dropped = [
        "AWS_SECRET_ACCESS_KEY",
        "ANTHROPIC_API_KEY",
        "CLAUDECODE",
        "CLAUDE_CONFIG_DIR",
        "HOME",
        "LD_PRELOAD",
        "CASTRA_TOKEN",
        "CLAUDE_CODE_MAX_RETRIES",
        "lang",
        "SHELL",
    ];
    let inherited = kept.iter().chain(&dropped).map(|name| (name.to_string(), "theirs".to_owned())).collect();
    let env = launch(&SessionSpec::default(), &LaunchContext { inherited, ..context() }).unwrap().env;
    let theirs: Vec<&str> =
        env.iter().filter(|(_, value)| *value == "theirs").map(|(name, _)| name.as_str()).collect();
    let mut expected = kept.to_vec();
    expected.sort_unstable();
    assert_eq!(theirs, expected);
    assert_eq!(env["PATH"], "/s/home/.local/bin:/usr/local/bin:/usr/bin:/bin");
}

#[test]
fn the_users_own_home_keeps_its_configuration_where_it_is() {
    let spec = SessionSpec { home: Home::User, ..SessionSpec::default() };
    assert_eq!(launch(&spec, &context()).unwrap().env.get("CLAUDE_CONFIG_DIR"), None);
    let elsewhere = LaunchContext { config_dir: "/else".into(), ..context() };
    assert_eq!(launch(&spec, &elsewhere).unwrap().env["CLAUDE_CONFIG_DIR"], "/else");
}

#[test]
fn a_demo_talks_to_the_scripted_model_only() {
    let demo = Some(Demo { base_url: "http://127.0.0.1:9".into(), api_key: "made-up".into() });
    let inherited =
        BTreeMap::from([("NO_PROXY".into(), "x".into()), ("HTTP_PROXY".into(), "http://p".into())]);
    let context = LaunchContext { demo, inherited, ..context() };
    let env = launch(&spec(json!({"demo": true})), &context).unwrap().env;
    for (name, value) in [
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9"),
        ("ANTHROPIC_API_KEY", "made-up"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("NO_PROXY", "x,127.0.0.1,localhost,::1"),
        ("no_proxy", "127.0.0.1,localhost,::1"),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    assert!(!launch(&SessionSpec::default(), &context).unwrap().env.contains_key("ANTHROPIC_BASE_URL"));
    for fields in [
        json!({"demo": true, "env": {"ANTHROPIC_BASE_URL": "http://x"}}),
        json!({"demo": true, "settings": {"env": {"ANTHROPIC_AUTH_TOKEN": "x"}}}),
    ] {
        let refusal = check(&spec(fields), &context).unwrap_err();
        assert!(matches!(refusal, Refusal::ReservedVariable { .. }), "{refusal}");
    }
}

#[test]
fn bypass_as_root_needs_the_operators_word() {
    let bypass = spec(json!({"permission_mode": "bypassPermissions"}));
    for (is_root, allow_root_bypass, sandbox) in [
        (false, false, Ok(None)),
        (false, true, Ok(None)),
        (true, true, Ok(Some("1"))),
        (true, false, Err(())),
    ] {
        let context = LaunchContext { is_root, allow_root_bypass, ..context() };
        let launch = launch(&bypass, &context);
        match sandbox {
            Err(()) => assert_eq!(launch, Err(Refusal::BypassAsRoot)),
            Ok(sandbox) => {
                let launch = launch.unwrap();
                assert_eq!(launch.env.get("IS_SANDBOX").map(String::as_str), sandbox);
                assert!(launch.argv.contains(&"--allow-dangerously-skip-permissions".to_owned()));
            }
        }
    }
    let allowed = LaunchContext { is_root: true, allow_root_bypass: true, ..context() };
    let plain = launch(&SessionSpec::default(), &allowed).unwrap();
    assert!(!plain.env.contains_key("IS_SANDBOX"));
    assert!(!plain.argv.iter().any(|argument| argument.contains("dangerously")));
}

#[test]
fn refusals_say_the_reason_and_the_next_step() {
    let table = [
        (json!({"tmux": "x"}), "`tmux` belongs to a terminal session"),
        (json!({"host": "other"}), "`host` is not built yet"),
        (json!({"credential": "x"}), "`credential` is not built yet"),
        (json!({"seed": "x"}), "`seed` is not built yet"),
        (json!({"tui": {}}), "`tui` belongs to a terminal session"),
        (json!({"permission_timeout_s": 0}), "use permission_mode dontAsk, or set a timeout"),
        (json!({"effort": "huge"}), "low, medium, high, xhigh or max"),
        (json!({"thinking": "hard"}), "adaptive, enabled, disabled"),
        (json!({"setting_sources": ["managed"]}), "user, project and local"),
        (json!({"limits": {"max_budget_usd": 0.0}}), "a number above 0"),
        (json!({"settings": []}), "`settings` must be an object"),
        (json!({"agents": "x"}), "`agents` must be an object"),
        (json!({"output_schema": true}), "`output_schema` must be an object"),
        (json!({"mcp_servers": {"x": "y"}}), "`mcp_servers.x` must be an object"),
        (json!({"mcp_servers": {"x": {"type": "sdk"}}}), "a server that claude can reach itself"),
        (json!({"system_prompt": "a", "system_prompt_file": "b"}), "exclude each other"),
        (json!({"system_prompt_file": "b"}), "\"b\", which was not read"),
        (json!({"env": {"HOME": "/"}}), "`HOME` in env is castra's own; use home"),
        (json!({"env": {"CASTRA_RUN": "1"}}), "castra's own"),
        (json!({"env": {"CLAUDE_CODE_RESUME_INTERRUPTED_TURN": "1"}}), "run a tool twice"),
        (json!({"env": {"A=B": "1"}}), "not a name for a variable"),
        (json!({"env": {"1A": "1"}}), "not a name for a variable"),
        (json!({"env": {"A": "\0"}}), "NUL"),
        (json!({"model": "a\0b"}), "NUL"),
        (json!({"extra_args": ["--model=x"]}), "use model"),
        (json!({"extra_args": ["--resume", "x"]}), "use resume"),
        (json!({"extra_args": ["-c"]}), "use continue"),
        (json!({"extra_args": ["-pc"]}), "one by one"),
        (json!({"extra_args": ["--"]}), "out of castra's hands"),
        (json!({"extra_args": ["hello"]}), "send text as a message"),
        (json!({"extra_args": ["--debug=x", "hello"]}), "send text as a message"),
        (json!({"demo": true}), "none runs"),
    ];
    for (fields, words) in table {
        let refusal = check(&spec(fields.clone()), &context()).expect_err(&fields.to_string()).to_string();
        assert!(refusal.contains(words), "{fields}: {refusal}");
    }
}

#[test]
fn nobody_needs_to_answer_where_nothing_is_asked() {
    for mode in PermissionMode::ALL {
        let spec =
            SessionSpec { permission_mode: mode, permission_timeout_s: Some(0), ..SessionSpec::default() };
        let expected =
            if mode.may_ask() { Err(Refusal::NobodyToAnswer { mode: mode.as_str() }) } else { Ok(()) };
        assert_eq!(check(&spec, &context()), expected);
    }
}

/// A field of SessionSpec that nobody has thought of here must not be ignored in silence.
#[test]
fn every_field_of_the_spec_is_used_or_somebody_elses() {
    let full = SessionSpec {
        thinking: Some(Thinking::Tokens(1)),
        limits: Limits { max_turns: Some(1), ..Limits::default() },
        ..SessionSpec::default()
    };
    let SessionSpec {
        // Used here.
        mode: _,
        host: _,
        home: _,
        model: _,
        fallback_model: _,
        effort: _,
        thinking: _,
        betas: _,
        system_prompt: _,
        append_system_prompt: _,
        system_prompt_file: _,
        append_system_prompt_file: _,
        permission_mode: _,
        permission_timeout_s: _,
        allowed_tools: _,
        disallowed_tools: _,
        tools: _,
        mcp_servers: _,
        strict_mcp_config: _,
        agents: _,
        skills: _,
        plugins: _,
        settings: _,
        setting_sources: _,
        add_dirs: _,
        output_schema: _,
        file_checkpointing: _,
        env: _,
        credential: _,
        seed: _,
        limits: _,
        tmux: _,
        tui: _,
        partials: _,
        include_hook_events: _,
        forward_subagent_text: _,
        demo: _,
        extra_args: _,
        // Resolved into the conversation and the folders of the context by the caller.
        session_id: _,
        continue_: _,
        resume: _,
        fork_of: _,
        workdir: _,
        // The session's, not claude's.
        name: _,
        labels: _,
        metadata: _,
        idle_after_s: _,
        nudge: _,
        nudges: _,
        start_timeout_s: _,
        auto_resume: _,
        sandbox: _,
        ttl_s: _,
        ephemeral: _,
    } = full;
}

mod terminal;
