//! Argument lists and the SessionSpec that they mean, as tables.

use super::*;
use castra_proto::spec::{Limits, Tui};
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
struct Just {
    #[command(flatten)]
    spec: SpecArgs,
}

fn build(cwd: &Path, args: &[&str]) -> Result<SessionSpec, Failure> {
    let args = ["castra"].iter().chain(args);
    let just = Just::try_parse_from(args).map_err(|error| Failure::usage(error.to_string()))?;
    let env = |name: &str| (name == "MINE").then(|| "from me".to_owned());
    just.spec.build(&Around { cwd, env: &env })
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

#[test]
fn flags_become_fields() {
    let (_keep, cwd) = folder();
    std::fs::write(cwd.join("prompt.md"), "be brief").unwrap();
    std::fs::write(cwd.join("mcp.json"), r#"{"mcpServers":{"a":{"command":"x"}}}"#).unwrap();
    std::fs::write(cwd.join("schema.json"), r#"{"type":"object"}"#).unwrap();
    std::fs::write(cwd.join("env"), "# c\nA=1\nexport B=\"two words\"\n\nMINE='file'\n").unwrap();
    std::fs::create_dir(cwd.join("sub")).unwrap();
    let here = || SessionSpec { workdir: Some(cwd.to_str().unwrap().into()), ..Default::default() };
    let sub = cwd.join("sub").to_str().unwrap().to_owned();
    let table: Vec<(&[&str], SessionSpec)> = vec![
        (&[], here()),
        (&["--fresh"], SessionSpec::default()),
        (&["--demo"], SessionSpec { demo: true, ..Default::default() }),
        (&["--demo", "--workdir", "."], SessionSpec { demo: true, ..here() }),
        (&["--workdir", "sub"], SessionSpec { workdir: Some(sub.clone()), ..Default::default() }),
        (
            &["--name", "n", "--label", "a=b=c", "--model", "m"],
            SessionSpec {
                name: Some("n".into()),
                labels: [("a".into(), "b=c".into())].into(),
                model: Some("m".into()),
                ..here()
            },
        ),
        (&["--mode", "terminal"], SessionSpec { mode: Mode::Terminal, ..here() }),
        (
            &["--mode", "terminal", "--tui-fullscreen"],
            SessionSpec { mode: Mode::Terminal, tui: Some(Tui { fullscreen: true, focus: false }), ..here() },
        ),
        (
            &["--dangerously-skip-permissions"],
            SessionSpec { permission_mode: PermissionMode::BypassPermissions, ..here() },
        ),
        (
            &["--permission-mode", "acceptEdits"],
            SessionSpec { permission_mode: PermissionMode::AcceptEdits, ..here() },
        ),
        (
            &["--allowed-tools", "Bash(echo a, b),Read", "--allowedTools", "Edit"],
            SessionSpec {
                allowed_tools: vec!["Bash(echo a, b)".into(), "Read".into(), "Edit".into()],
                ..here()
            },
        ),
        (&["--tools", ""], SessionSpec { tools: Some(vec![]), ..here() }),
        (
            &["--mcp-config", "mcp.json", "--mcp-config", r#"{"b":{"url":"u"}}"#],
            SessionSpec {
                mcp_servers: [("a".into(), json!({"command":"x"})), ("b".into(), json!({"url":"u"}))].into(),
                ..here()
            },
        ),
        (
            &["--schema", "schema.json", "--settings", r#"{"a":1}"#],
            SessionSpec {
                output_schema: Some(json!({"type":"object"})),
                settings: Some(json!({"a":1})),
                ..here()
            },
        ),
        (
            &["--system-prompt", "@prompt.md", "--append-system-prompt", "@@you"],
            SessionSpec {
                system_prompt: Some("be brief".into()),
                append_system_prompt: Some("@you".into()),
                ..here()
            },
        ),
        (
            &["--env-file", "env", "--env", "MINE", "--env", "C=x=y"],
            SessionSpec {
                env: [("A", "1"), ("B", "two words"), ("MINE", "from me"), ("C", "x=y")]
                    .map(|(k, v)| (k.into(), v.into()))
                    .into(),
                ..here()
            },
        ),
        (
            &["--max-turns", "3", "--max-budget-usd", "0.5", "--timeout", "10m", "--memory-mb", "512"],
            SessionSpec {
                limits: Limits {
                    max_turns: Some(3),
                    max_budget_usd: Some(0.5),
                    max_runtime_s: Some(600),
                    idle_timeout_s: None,
                    memory_mb: Some(512),
                },
                ..here()
            },
        ),
        (&["--thinking", "4000"], SessionSpec { thinking: Some(Thinking::Tokens(4000)), ..here() }),
        (
            &["--thinking", "adaptive"],
            SessionSpec { thinking: Some(Thinking::Mode("adaptive".into())), ..here() },
        ),
        (&["-c"], SessionSpec { continue_: true, ..here() }),
        (
            &["--extra-arg", "--debug", "--extra-arg=-x"],
            SessionSpec { extra_args: vec!["--debug".into(), "-x".into()], ..here() },
        ),
        (
            &["--add-dir", "sub", "--plugin-dir", "sub", "--home", "user", "--sandbox", "strict"],
            SessionSpec {
                add_dirs: vec![sub.clone()],
                plugins: vec![sub.clone()],
                home: Home::User,
                sandbox: SandboxMode::Strict,
                ..here()
            },
        ),
    ];
    for (args, expected) in table {
        assert_eq!(build(&cwd, args), Ok(expected), "{args:?}");
    }
}

#[test]
fn flags_lie_over_the_spec_file() {
    let (_keep, cwd) = folder();
    std::fs::write(
        cwd.join("s.json"),
        r#"{"name":"file","model":"file","labels":{"a":"1"},"workdir":"/w","limits":{"max_turns":1}}"#,
    )
    .unwrap();
    let spec = build(&cwd, &["--spec", "s.json", "--model", "flag", "--label", "b=2"]).unwrap();
    let expected = SessionSpec {
        name: Some("file".into()),
        model: Some("flag".into()),
        labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
        workdir: Some("/w".into()),
        limits: Limits { max_turns: Some(1), ..Default::default() },
        ..Default::default()
    };
    assert_eq!(spec, expected);
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let (_keep, cwd) = folder();
    std::fs::write(cwd.join("bad.json"), r#"{"modle":"x"}"#).unwrap();
    std::fs::write(cwd.join("env"), "A=1\nnonsense\n").unwrap();
    let table: &[(&[&str], &str)] = &[
        (&["--permission-mode", "nonsense"], "one of default, acceptEdits"),
        (&["--permission-mode", "plan", "--dangerously-skip-permissions"], "cannot be used with"),
        (&["--label", "x"], "--label `x` must be KEY=VALUE"),
        (&["--env", "NOBODY"], "--env NOBODY: you have no such variable"),
        (&["--env-file", "env"], "env:2: not NAME=VALUE"),
        (&["--system-prompt", "@missing.md"], "missing.md"),
        (&["--mcp-config", "missing.json"], "missing.json"),
        (&["--mcp-config", r#"{"mcpServers":[]}"#], "--mcp-config must be"),
        (&["--mcp-config", "{"], "--mcp-config: EOF"),
        (&["--spec", "bad.json"], "unknown field `modle`"),
        (&["--timeout", "soon"], "seconds, or a number with s, m, h or d"),
        (&["-c", "--resume", "x"], "cannot be used with"),
        (&["--fresh", "--workdir", "."], "cannot be used with"),
        (&["--session-id", "x"], "--session-id"),
    ];
    for (args, expected) in table {
        let failure = build(&cwd, args).unwrap_err();
        let message = failure.message.unwrap_or_default();
        assert!(message.contains(expected), "{args:?}: {message}");
        assert_eq!(failure.exit, 2, "{args:?}");
    }
}
