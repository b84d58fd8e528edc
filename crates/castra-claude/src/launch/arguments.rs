//! claude's arguments, each value bound to its flag with `=`: several flags take any number of values and
//! would swallow what follows, and a value that begins with a dash would be a flag.

use super::{Conversation, LaunchContext, Made, Refusal, settings};
use castra_proto::SessionSpec;
use castra_proto::spec::{Mode, PermissionMode, Thinking};

const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
const THINKING: [&str; 3] = ["adaptive", "enabled", "disabled"];
const SOURCES: [&str; 3] = ["user", "project", "local"];

/// Flags that extra_args may not hold: castra sets them, or they take claude out of its hands.
const RESERVED: [(&[&str], &str); 33] = [
    (&["-p", "--print"], "it is always set"),
    (&["--input-format", "--output-format"], "castra speaks stream-json"),
    (&["--verbose", "--replay-user-messages"], "it is always set"),
    (&["--permission-prompt-tool", "--permission-prompts"], "castra itself asks; see permission_timeout_s"),
    (&["--include-partial-messages"], "use partials"),
    (&["--include-hook-events"], "use include_hook_events"),
    (&["--forward-subagent-text"], "use forward_subagent_text"),
    (&["--permission-mode"], "use permission_mode"),
    (
        &["--dangerously-skip-permissions", "--allow-dangerously-skip-permissions"],
        "use permission_mode: bypassPermissions",
    ),
    (&["--allowedTools", "--allowed-tools"], "use allowed_tools"),
    (&["--disallowedTools", "--disallowed-tools"], "use disallowed_tools"),
    (&["--tools"], "use tools"),
    (&["-r", "--resume", "--resume-session-at"], "use resume"),
    (&["-c", "--continue"], "use continue"),
    (&["--session-id"], "use session_id"),
    (&["--fork-session"], "fork the session"),
    (&["--no-session-persistence"], "castra resumes from the transcript; use ephemeral"),
    (&["--mcp-config"], "use mcp_servers"),
    (&["--strict-mcp-config"], "use strict_mcp_config"),
    (&["--settings", "--managed-settings"], "use settings"),
    (&["--setting-sources"], "use setting_sources"),
    (&["--agents"], "use agents"),
    (&["--add-dir"], "use add_dirs"),
    (&["--plugin-dir"], "use plugins"),
    (&["--model"], "use model"),
    (&["--fallback-model"], "use fallback_model"),
    (&["--effort"], "use effort"),
    (&["--betas"], "use betas"),
    (&["--thinking", "--max-thinking-tokens"], "use thinking"),
    (&["--max-turns", "--max-budget-usd"], "use limits"),
    (&["--json-schema"], "use output_schema"),
    (
        &["--system-prompt", "--append-system-prompt", "--system-prompt-file", "--append-system-prompt-file"],
        "use system_prompt or append_system_prompt",
    ),
    (
        &[
            "--",
            "-h",
            "--help",
            "-v",
            "--version",
            "--bg",
            "--background",
            "--tmux",
            "--sdk-url",
            "--remote-control",
            "--cloud",
            "--teleport",
            "--init-only",
            "--session-mirror",
        ],
        "it would take claude out of castra's hands",
    ),
];

/// What makes claude speak stream-json; without it, claude is a terminal's.
const STREAM: &str = "-p --input-format stream-json --output-format stream-json --verbose --replay-user-messages \
                      --permission-prompt-tool stdio";

pub(super) fn arguments(
    spec: &SessionSpec,
    context: &LaunchContext,
    made: &Made,
) -> Result<Vec<String>, Refusal> {
    let mut argv: Vec<String> = vec![context.claude.clone()];
    let stream = spec.mode == Mode::Stream;
    if stream {
        argv.extend(STREAM.split_whitespace().map(str::to_owned));
    }
    let mut switch = |on: bool, flag: &str| argv.extend(on.then(|| flag.to_owned()));
    switch(stream && spec.partials, "--include-partial-messages");
    switch(spec.include_hook_events, "--include-hook-events");
    switch(spec.strict_mcp_config, "--strict-mcp-config");
    switch(spec.permission_mode == PermissionMode::BypassPermissions, "--allow-dangerously-skip-permissions");

    let mut set = |flag: &str, value: &str| argv.push(format!("{flag}={value}"));
    // Always said: the user's settings may hold another default.
    set("--permission-mode", spec.permission_mode.as_str());
    match &context.conversation {
        Conversation::New(id) => set("--session-id", &id.to_string()),
        Conversation::Resume(id) => set("--resume", &id.to_string()),
        Conversation::ResumeFork { from, to } => {
            set("--resume", &from.to_string());
            set("--session-id", &to.to_string());
        }
        Conversation::ResumeFile(path) => set("--resume", absolute(path)?),
    }
    for (flag, value) in [
        ("--model", spec.model.as_deref()),
        ("--fallback-model", spec.fallback_model.as_deref()),
        ("--effort", one_of("effort", spec.effort.as_deref(), &EFFORTS, "low, medium, high, xhigh or max")?),
        ("--mcp-config", made.mcp.as_deref()),
        ("--settings", made.settings.as_deref()),
        ("--system-prompt-file", made.system_prompt.as_deref()),
        ("--append-system-prompt-file", made.append_system_prompt.as_deref()),
    ] {
        if let Some(value) = value {
            set(flag, value);
        }
    }
    match &spec.thinking {
        None => {}
        Some(Thinking::Tokens(tokens)) => set("--max-thinking-tokens", &tokens.to_string()),
        Some(Thinking::Mode(mode)) => {
            one_of("thinking", Some(mode), &THINKING, "adaptive, enabled, disabled or a number of tokens")?;
            set("--thinking", mode);
        }
    }
    // One flag a value: a rule may hold a comma (measured on both versions).
    for (flag, values) in [
        ("--betas", &spec.betas),
        ("--allowedTools", &spec.allowed_tools),
        ("--disallowedTools", &spec.disallowed_tools),
        ("--plugin-dir", &spec.plugins),
        ("--add-dir", &spec.add_dirs),
    ] {
        values.iter().for_each(|value| set(flag, value));
    }
    // In a stream `initialize` carries them.
    if let (false, Some(agents)) = (stream, &spec.agents) {
        if !agents.is_object() {
            return Err(Refusal::Shape { field: "agents".into(), shape: "an object" });
        }
        set("--agents", &agents.to_string());
    }
    if let Some(tools) = &spec.tools {
        set("--tools", &tools.join(","));
    }
    let sources = settings::sources(spec);
    for source in &sources {
        one_of("setting_sources", Some(source), &SOURCES, "user, project and local")?;
    }
    // Always said: without the flag claude reads them all.
    set("--setting-sources", &sources.join(","));
    if settings::memory_only(spec) {
        set("--add-dir", &context.workdir);
    }
    if let Some(turns) = spec.limits.max_turns {
        set("--max-turns", &turns.to_string());
    }
    if let Some(budget) = spec.limits.max_budget_usd {
        if !(budget.is_finite() && budget > 0.0) {
            let value = budget.to_string();
            return Err(Refusal::Value {
                field: "limits.max_budget_usd",
                value,
                allowed: "a number above 0",
            });
        }
        set("--max-budget-usd", &budget.to_string());
    }
    if matches!(context.conversation, Conversation::ResumeFork { .. }) {
        argv.push("--fork-session".into());
    }
    check_extra(&spec.extra_args)?;
    argv.extend(spec.extra_args.iter().cloned());
    match argv.iter().find(|argument| argument.contains('\0')) {
        Some(argument) => Err(Refusal::Nul { field: argument.replace('\0', "\\0") }),
        None => Ok(argv),
    }
}

fn absolute(path: &str) -> Result<&str, Refusal> {
    if path.starts_with('/') { Ok(path) } else { Err(Refusal::NotAbsolute { path: path.to_owned() }) }
}

fn one_of<'a>(
    field: &'static str,
    value: Option<&'a str>,
    known: &[&str],
    allowed: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    match value {
        Some(value) if !known.contains(&value) => {
            Err(Refusal::Value { field, value: value.to_owned(), allowed })
        }
        value => Ok(value),
    }
}

fn check_extra(arguments: &[String]) -> Result<(), Refusal> {
    // A value may stand apart only right behind a long flag that has none yet.
    let mut takes_value = false;
    for argument in arguments {
        if !argument.starts_with('-') {
            if !takes_value {
                return Err(Refusal::PositionalArgument { argument: argument.clone() });
            }
            takes_value = false;
            continue;
        }
        let name = argument.split_once('=').map_or(argument.as_str(), |(name, _)| name);
        // Several short flags in one word hide each other: `-pc`.
        let short = !name.starts_with("--");
        if short && name.len() > 2 {
            return Err(Refusal::ReservedFlag { flag: name.into(), instead: "write short flags one by one" });
        }
        if let Some((_, instead)) = RESERVED.iter().find(|(names, _)| names.contains(&name)) {
            return Err(Refusal::ReservedFlag { flag: name.into(), instead });
        }
        takes_value = !argument.contains('=');
    }
    Ok(())
}
