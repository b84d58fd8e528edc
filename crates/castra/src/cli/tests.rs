//! The command line as a whole: it is consistent, says what it can, and reads what people type.

use super::*;
use clap::CommandFactory as _;

fn parse(line: &[&str]) -> Result<Cli, String> {
    let args = ["castra"].iter().chain(line);
    Cli::try_parse_from(args).map_err(|error| error.kind().to_string())
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn the_verbs_of_the_design_are_there_and_described() {
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let expected = [
        "up",
        "down",
        "run",
        "ps",
        "show",
        "send",
        "wait",
        "logs",
        "attach",
        "screen",
        "type",
        "open",
        "interrupt",
        "stop",
        "resume",
        "fork",
        "clear",
        "rm",
        "export",
        "approve",
        "deny",
        "permissions",
        "control",
        "files",
        "info",
        "sessions",
        "task",
        "hook",
        "team",
        "schedule",
        "token",
        "claude",
        "config",
        "doctor",
        "demo",
        "model",
        "prune",
        "check",
        "backup",
        "completions",
        "man",
        "errors",
    ];
    assert_eq!(verbs, expected);
    for verb in command.get_subcommands() {
        assert!(verb.get_about().is_some(), "{} has no description", verb.get_name());
    }
}

#[test]
fn what_people_type() {
    let good: &[&[&str]] = &[
        &["run", "hello"],
        &["run", "-d", "hello", "--json"],
        &["--json", "run", "-c", "go on"],
        &["run", "--", "-x is not an option"],
        &["run", "-"],
        &["run"],
        &["run", "--home", "user", "--env", "A=1", "--env", "B", "x"],
        &["run", "--output-format", "stream-json", "x"],
        &["run", "--context", "-", "x"],
        &["up", "--listen", "127.0.0.1:0", "-d", "-vv"],
        &["task", "list", "--filter", r#"{"labels.team": "blue"}"#],
        &["task", "cancel", "--filter", r#"{"state": "queued"}"#, "--wait", "1m"],
        &["task", "block", "--reason", "service", "--for", "2h"],
        &["task", "launch", "report", "what=doors", "-d", "--yes"],
        &[
            "schedule",
            "add",
            "nightly",
            "30 2 * * *",
            "report.yaml",
            "--missed",
            "all=3",
            "--overlap",
            "queue",
        ],
        &["schedule", "add", "nightly", "@daily", "--definition", "report", "--set", "what=doors"],
        &["up", "--install", "--dry-run"],
        &["send", "id", "text", "--wait"],
        &["send", "id", "text", "--wait=5", "--if-busy", "steer", "--key", "k"],
        &["send", "id", "--wait", "text"],
        &["logs", "id", "-f", "--after", "7"],
        &["logs", "id", "--raw", "--in"],
        &["rm", "-f", "a", "b"],
        &["export", "id", "--format", "markdown", "-o", "f", "-f"],
        &["run", "--mode", "terminal", "--tui-fullscreen"],
        &["run", "--tmux", "view", "hello"],
        &["attach", "id", "--read-only", "--detach-key", "C-]"],
        &["attach", "--tmux", "view", "id"],
        &["screen", "id", "--ansi"],
        &["type", "id", "hello", "Enter", "C-c"],
        &["type", "id", "--literal", "--", "-v", "Enter"],
        &["approve", "id"],
        &["approve", "id", "req", "--input", "{}", "--remember"],
        &["approve", "id", "--answer", "Q=A"],
        &["deny", "id", "req", "--message", "no"],
        &["control", "id", "set_model", "model=sonnet"],
        &["files", "put", "id", "-", "a.txt"],
        &["sessions", "--all", "--limit", "3"],
        &["task", "run", "report.yaml", "--demo", "--name", "r", "--set", "n=5", "--cwd", "."],
        &["task", "run", "-d", "-"],
        &["task", "new", "--json", "-"],
        &["task", "list", "-a", "--state", "done,failed", "--label", "k=v", "-q"],
        &["task", "cancel", "a", "b", "--reason", "enough", "--grace", "2m"],
        &["task", "logs", "id", "-f", "--level", "warning"],
        &["task", "wait", "id", "--deliverable", "report.md", "--timeout", "10m"],
        &["task", "get", "id", "a/b.md", "-o", "-", "--version", "2"],
        &["task", "schema"],
        &["task", "protocol"],
        &["token", "create", "--scope", "admin"],
        &["claude", "install", "2.1.197"],
        &["model", "serve", "--script", "f", "--port", "1"],
        &["doctor", "--live", "--yes"],
        &["completions", "bash"],
        &["ps", "-a", "--json", "--no-daemon-start"],
    ];
    for line in good {
        assert!(parse(line).is_ok(), "{line:?}: {:?}", parse(line).err());
    }
    let bad: &[&[&str]] = &[
        &[],
        &["task"],
        &["task", "run"],
        &["task", "run", "f", "--set", "n"],
        &["task", "list", "--state", "over"],
        &["task", "list", "--label", "k"],
        &["task", "logs", "id", "--level", "loud"],
        &["task", "get", "id"],
        &["task", "get", "id", "a", "--version", "0"],
        &["task", "rm"],
        &["run", "a", "b"],
        &["run", "--unknown", "x"],
        &["run", "--rm", "--keep", "x"],
        &["send", "id"],
        &["send", "id", "text", "--if-busy", "never"],
        &["logs", "id", "--in"],
        &["token", "create"],
        &["token", "create", "--scope", "root"],
        &["up", "-d", "--install"],
        &["doctor", "--yes"],
        &["rm"],
        &["type", "id"],
        &["run", "--mode", "tui"],
        &["run", "--tmux", "#(id)"],
        &["run", "--tmux", "a", "--rm", "x"],
        &["attach", "--tmux", "a:b", "id"],
        &["attach", "--detach-key", "Enter", "id"],
        &["type", "id", "-v"],
        &["export", "id", "--format", "pdf"],
    ];
    for line in bad {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[test]
fn flags_of_the_daemon_are_settings() {
    let line = ["up", "--listen", "127.0.0.1:0", "--insecure-listen", "--log-format", "json"];
    let Command::Up(args) = parse(&line).unwrap().command else { panic!("not `up`") };
    assert_eq!(
        args.flags(),
        [
            ("listen", "--listen", "127.0.0.1:0".to_owned()),
            ("insecure_listen", "--insecure-listen", "true".into()),
            ("log.format", "--log-format", "json".into()),
        ]
    );
    for (key, ..) in args.flags() {
        assert!(crate::config::KEYS.iter().any(|known| known.name == key), "{key}");
    }
}
