//! claude's environment: starts empty, gets an allow-list, what the caller named, and castra's own.

use super::{LaunchContext, Refusal};
use castra_proto::SessionSpec;
use castra_proto::spec::{Home, Mode, PermissionMode};
use std::collections::BTreeMap;

/// What is passed on from the caller's environment, beside `LC_*`. Proxy and CA variables in both cases.
const INHERITED: [&str; 13] = [
    "PATH",
    "LANG",
    "TERM",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
];

const FIRST_BOTH_CASES: usize = 4;

/// Variables that are castra's to set, or that must never be set, each with what to do instead.
const RESERVED: [(&str, &str); 9] = [
    ("HOME", "use home"),
    ("CLAUDE_CONFIG_DIR", "use home"),
    ("DISABLE_AUTOUPDATER", "castra keeps the CLI's version fixed for a run"),
    ("CLAUDECODE", "it marks a claude inside a claude"),
    ("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "castra needs these events"),
    ("CLAUDE_CODE_RESUME_INTERRUPTED_TURN", "it may run a tool twice; castra resumes by itself"),
    ("CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING", "use file_checkpointing"),
    ("CLAUDE_CODE_SDK_READS_SESSION_STATE", "it hides the state events that castra follows"),
    ("IS_SANDBOX", "set allow_root_bypass under [claude] in castra.toml"),
];

/// With these a demo would talk to somebody else than the scripted model.
const NOT_IN_DEMO: [&str; 7] = [
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
];

pub(super) fn environment(
    spec: &SessionSpec,
    context: &LaunchContext,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut env = inherited(&context.inherited);
    check_named(&spec.env)?;
    env.extend(spec.env.clone());

    if spec.demo {
        let demo = context.demo.as_ref().ok_or(Refusal::NoDemoModel)?;
        check_demo(spec)?;
        env.insert("ANTHROPIC_BASE_URL".into(), demo.base_url.clone());
        env.insert("ANTHROPIC_API_KEY".into(), demo.api_key.clone());
        env.insert("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC".into(), "1".into());
        // The scripted model is on loopback, where no proxy reaches.
        for name in ["NO_PROXY", "no_proxy"] {
            let hosts = env.entry(name.into()).or_default();
            let comma = if hosts.is_empty() { "" } else { "," };
            hosts.push_str(comma);
            hosts.push_str("127.0.0.1,localhost,::1");
        }
    }

    let path = env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    env.insert("PATH".into(), format!("{}/.local/bin:{path}", context.home));
    env.insert("HOME".into(), context.home.clone());
    // Naming the default folder is not the same as not naming it: `.claude.json` then moves into it, and the
    // login and settings that `home: user` is for would not be found (facts/claude-cli.md §5).
    if spec.home == Home::Isolated || context.config_dir != format!("{}/.claude", context.home) {
        env.insert("CLAUDE_CONFIG_DIR".into(), context.config_dir.clone());
    }
    env.insert("DISABLE_AUTOUPDATER".into(), "1".into());
    if spec.mode == Mode::Terminal {
        // The caller's own terminal is not the session's.
        let term = spec.env.get("TERM").map_or("xterm-256color", String::as_str);
        env.insert("TERM".into(), term.into());
        if spec.tui.as_ref().is_some_and(|tui| tui.fullscreen) {
            env.insert("CLAUDE_CODE_NO_FLICKER".into(), "1".into());
        }
    }
    env.insert("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS".into(), "1".into());
    env.insert("CASTRA_RUN".into(), context.run_id.to_string());
    if super::settings::memory_only(spec) {
        env.insert(super::settings::MEMORY_OF_ADDED_DIRS.into(), "1".into());
    }
    if spec.file_checkpointing {
        env.insert("CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING".into(), "true".into());
    }
    if context.is_root
        && context.allow_root_bypass
        && spec.permission_mode == PermissionMode::BypassPermissions
    {
        env.insert("IS_SANDBOX".into(), "1".into());
    }
    match env.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        Some((name, _)) => Err(Refusal::Nul { field: format!("env {name}") }),
        None => Ok(env),
    }
}

/// What of the caller's environment is passed on.
pub fn inherited(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let passed = env.iter().filter(|(name, _)| is_inherited(name));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_inherited(name: &str) -> bool {
    let (one_case, both) = INHERITED.split_at(FIRST_BOTH_CASES);
    one_case.contains(&name)
        || name.starts_with("LC_")
        || both.iter().any(|known| *known == name || known.to_ascii_lowercase() == name)
}

fn check_named(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for name in env.keys() {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !letters || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(Refusal::VariableName { name: name.clone() });
        }
        let reserved = RESERVED.iter().find(|(reserved, _)| reserved == name).map(|(_, instead)| *instead);
        let own = name.starts_with("CASTRA_").then_some("choose another name");
        if let Some(instead) = reserved.or(own) {
            return Err(Refusal::ReservedVariable { name: name.clone(), instead });
        }
    }
    Ok(())
}

fn check_demo(spec: &SessionSpec) -> Result<(), Refusal> {
    let instead = "a demo talks to the scripted model only; leave it out, or leave out demo";
    if spec.home == Home::User {
        return Err(Refusal::Exclusive { first: "demo", second: "home: user" });
    }
    let settings = spec.settings.as_ref().and_then(|settings| settings.get("env"));
    for name in NOT_IN_DEMO {
        if spec.env.contains_key(name) || settings.is_some_and(|env| env.get(name).is_some()) {
            return Err(Refusal::ReservedVariable { name: name.to_owned(), instead });
        }
    }
    Ok(())
}
