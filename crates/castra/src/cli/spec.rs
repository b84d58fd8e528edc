//! The flags of `castra run` that describe a session, and the SessionSpec that they mean.

use super::failure::Failure;
use castra_proto::SessionSpec;
use castra_proto::spec::{Home, Mode, PermissionMode, SandboxMode, Thinking};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Unset flags leave what `--spec` or the defaults say.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Session")]
pub(super) struct SpecArgs {
    /// A whole SessionSpec as JSON; flags are laid over it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// A name, usable wherever an id is
    #[arg(long)]
    pub(super) name: Option<String>,
    /// stream: events only; terminal: the real TUI, which you can watch and type into
    #[arg(long, value_parser = mode)]
    pub(super) mode: Option<Mode>,
    /// The TUI on the whole screen, with a history of its own to scroll in; needs --mode terminal
    #[arg(long)]
    tui_fullscreen: bool,
    /// The TUI without what is around the conversation; needs --mode terminal
    #[arg(long)]
    tui_focus: bool,
    /// Label the session; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// A model by its id or alias, e.g. sonnet
    #[arg(long)]
    model: Option<String>,
    /// Models to try when the first is overloaded, separated by commas
    #[arg(long)]
    fallback_model: Option<String>,
    /// low, medium, high, …: as the CLI knows them
    #[arg(long)]
    effort: Option<String>,
    /// adaptive, enabled, disabled, or a budget in tokens
    #[arg(long, value_name = "MODE|TOKENS")]
    thinking: Option<String>,
    /// default, acceptEdits, plan, auto, dontAsk or bypassPermissions
    #[arg(long, value_parser = permission_mode)]
    permission_mode: Option<PermissionMode>,
    /// Ask for nothing; the same as --permission-mode bypassPermissions
    #[arg(long, conflicts_with = "permission_mode")]
    dangerously_skip_permissions: bool,
    /// Deny permission requests that nobody has answered for so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    permission_timeout: Option<u64>,
    /// Tools and rules that need no permission, e.g. `Bash(git *),Read`; repeatable
    #[arg(long, alias = "allowedTools", value_name = "RULES")]
    allowed_tools: Vec<String>,
    /// Tools and rules that are denied; repeatable
    #[arg(long, alias = "disallowedTools", value_name = "RULES")]
    disallowed_tools: Vec<String>,
    /// The built-in tools to offer; "" offers none
    #[arg(long, value_name = "NAMES")]
    tools: Option<String>,
    /// MCP servers: JSON, or a file with it; repeatable
    #[arg(long, value_name = "FILE|JSON")]
    mcp_config: Vec<String>,
    /// Use no other MCP servers than these
    #[arg(long)]
    strict_mcp_config: bool,
    /// A JSON Schema that the answer must satisfy; the structured output is printed
    #[arg(long, value_name = "FILE|JSON")]
    schema: Option<String>,
    #[arg(long, value_name = "TEXT|@FILE")]
    system_prompt: Option<String>,
    #[arg(long, value_name = "TEXT|@FILE")]
    append_system_prompt: Option<String>,
    /// The folder to work in; the current one when unset
    #[arg(long, value_name = "DIR", conflicts_with = "fresh")]
    workdir: Option<PathBuf>,
    /// Work in a fresh folder of the session's own
    #[arg(long)]
    fresh: bool,
    /// isolated: a HOME of the session's own; user: yours, with your login and settings
    #[arg(long, value_parser = home)]
    home: Option<Home>,
    /// Set a variable, or pass yours on; repeatable
    #[arg(long, value_name = "NAME|NAME=VALUE")]
    env: Vec<String>,
    /// Set the variables of a file of NAME=VALUE lines; repeatable
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Another folder that tools may use; repeatable
    #[arg(long, value_name = "DIR")]
    add_dir: Vec<PathBuf>,
    /// End the session after so many turns of the model
    #[arg(long, value_name = "N")]
    max_turns: Option<u32>,
    /// End the session when it has cost so much
    #[arg(long, value_name = "USD")]
    max_budget_usd: Option<f64>,
    /// End the session after so long, e.g. 90s, 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<u64>,
    /// End the session after so long without a sign of life
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle_timeout: Option<u64>,
    /// Memory of the whole process tree, in MiB
    #[arg(long, value_name = "MIB")]
    memory_mb: Option<u64>,
    /// auto, strict or off
    #[arg(long, value_parser = sandbox)]
    sandbox: Option<SandboxMode>,
    /// Continue a session of castra or a conversation of claude, by id or name
    #[arg(long, value_name = "ID", conflicts_with = "continue_")]
    pub(super) resume: Option<String>,
    /// Continue the newest session of the folder
    #[arg(short = 'c', long = "continue")]
    pub(super) continue_: bool,
    /// The claude session id of a new conversation
    #[arg(long, value_name = "UUID")]
    session_id: Option<Uuid>,
    /// claude's settings: JSON, or a file with it
    #[arg(long, value_name = "FILE|JSON")]
    settings: Option<String>,
    /// Of user, project, local; "" loads none
    #[arg(long, value_name = "NAMES")]
    setting_sources: Option<String>,
    /// A plugin's folder; repeatable
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// Subagents: JSON, or a file with it
    #[arg(long, value_name = "FILE|JSON")]
    agents: Option<String>,
    /// Resume by itself after a crash
    #[arg(long)]
    auto_resume: bool,
    /// A further argument for the CLI, as it is; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    extra_arg: Vec<String>,
    /// The real CLI against a scripted model: no account, no cost
    #[arg(long)]
    pub(super) demo: bool,
}

fn permission_mode(text: &str) -> Result<PermissionMode, String> {
    PermissionMode::parse(text).ok_or_else(|| {
        let names: Vec<&str> = PermissionMode::ALL.into_iter().map(PermissionMode::as_str).collect();
        format!("one of {}", names.join(", "))
    })
}

pub(super) fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "stream" => Ok(Mode::Stream),
        "terminal" => Ok(Mode::Terminal),
        _ => Err("stream or terminal"),
    }
}

fn home(text: &str) -> Result<Home, &'static str> {
    match text {
        "isolated" => Ok(Home::Isolated),
        "user" => Ok(Home::User),
        _ => Err("isolated or user"),
    }
}

fn sandbox(text: &str) -> Result<SandboxMode, &'static str> {
    match text {
        "auto" => Ok(SandboxMode::Auto),
        "strict" => Ok(SandboxMode::Strict),
        "off" => Ok(SandboxMode::Off),
        _ => Err("auto, strict or off"),
    }
}

/// `90`, `90s`, `10m`, `2h`, `1d` as seconds.
pub(super) fn duration(text: &str) -> Result<u64, &'static str> {
    crate::config::seconds(text).ok_or("seconds, or a number with s, m, h or d")
}

/// What flags refer to beyond themselves.
pub(super) struct Around<'a> {
    pub(super) cwd: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl SpecArgs {
    /// # Errors
    /// Files that are missing or hold something else, and flags that contradict `--spec`.
    pub(super) fn build(self, around: &Around<'_>) -> Result<SessionSpec, Failure> {
        let absolute = |path: &Path| path_text(&around.cwd.join(path));
        let mut spec = match &self.spec {
            Some(path) => {
                let text = read(&around.cwd.join(path))?;
                serde_json::from_str(&text)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
            None => SessionSpec::default(),
        };
        set(&mut spec.name, self.name);
        if let Some(mode) = self.mode {
            spec.mode = mode;
        }
        if self.tui_fullscreen || self.tui_focus {
            let tui = spec.tui.get_or_insert_default();
            tui.fullscreen |= self.tui_fullscreen;
            tui.focus |= self.tui_focus;
        }
        for label in self.label {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--label `{label}` must be KEY=VALUE")))?;
            spec.labels.insert(key.into(), value.into());
        }
        set(&mut spec.model, self.model);
        set(&mut spec.fallback_model, self.fallback_model);
        set(&mut spec.effort, self.effort);
        set(&mut spec.thinking, self.thinking.map(thinking));
        if self.dangerously_skip_permissions {
            spec.permission_mode = PermissionMode::BypassPermissions;
        } else if let Some(mode) = self.permission_mode {
            spec.permission_mode = mode;
        }
        set(&mut spec.permission_timeout_s, self.permission_timeout);
        spec.allowed_tools.extend(self.allowed_tools.iter().flat_map(|rules| split_rules(rules)));
        spec.disallowed_tools.extend(self.disallowed_tools.iter().flat_map(|rules| split_rules(rules)));
        set(&mut spec.tools, self.tools.map(|names| split_rules(&names)));
        for config in &self.mcp_config {
            spec.mcp_servers.extend(mcp_servers(config, around.cwd)?);
        }
        spec.strict_mcp_config |= self.strict_mcp_config;
        for (field, flag, given) in [
            (&mut spec.output_schema, "--schema", self.schema),
            (&mut spec.settings, "--settings", self.settings),
            (&mut spec.agents, "--agents", self.agents),
        ] {
            if let Some(given) = given {
                *field = Some(json_or_file(flag, &given, around.cwd)?);
            }
        }
        for (field, given) in [
            (&mut spec.system_prompt, self.system_prompt),
            (&mut spec.append_system_prompt, self.append_system_prompt),
        ] {
            if let Some(given) = given {
                *field = Some(text_or_file(&given, around.cwd)?);
            }
        }
        if self.fresh {
            spec.workdir = None;
        } else if let Some(folder) = &self.workdir {
            spec.workdir = Some(absolute(folder)?);
        } else if spec.workdir.is_none()
            && (self.continue_ || !(self.demo || spec.demo || self.spec.is_some()))
        {
            spec.workdir = Some(absolute(Path::new("."))?);
        }
        if let Some(home) = self.home {
            spec.home = home;
        }
        for path in &self.env_file {
            spec.env.extend(env_file(&read(&around.cwd.join(path))?, path)?);
        }
        for variable in self.env {
            let (name, value) = match variable.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let value = (around.env)(&variable).ok_or_else(|| {
                        Failure::usage(format!("--env {variable}: you have no such variable"))
                    })?;
                    (variable, value)
                }
            };
            spec.env.insert(name, value);
        }
        for folder in &self.add_dir {
            spec.add_dirs.push(absolute(folder)?);
        }
        for folder in &self.plugin_dir {
            spec.plugins.push(absolute(folder)?);
        }
        set(&mut spec.limits.max_turns, self.max_turns);
        set(&mut spec.limits.max_budget_usd, self.max_budget_usd);
        set(&mut spec.limits.max_runtime_s, self.timeout);
        set(&mut spec.limits.idle_timeout_s, self.idle_timeout);
        set(&mut spec.limits.memory_mb, self.memory_mb);
        if let Some(sandbox) = self.sandbox {
            spec.sandbox = sandbox;
        }
        set(&mut spec.resume, self.resume);
        spec.continue_ |= self.continue_;
        set(&mut spec.session_id, self.session_id);
        set(&mut spec.setting_sources, self.setting_sources.map(|names| split_rules(&names)));
        spec.auto_resume |= self.auto_resume;
        spec.extra_args.extend(self.extra_arg);
        spec.demo |= self.demo;
        Ok(spec)
    }
}

fn set<T>(field: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *field = given;
    }
}

fn thinking(text: String) -> Thinking {
    text.parse().map_or(Thinking::Mode(text), Thinking::Tokens)
}

/// Separated by commas, except within parentheses: `Bash(echo a, b),Read` are two rules.
fn split_rules(text: &str) -> Vec<String> {
    let mut rules = vec![String::new()];
    let mut depth = 0u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                rules.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(rule) = rules.last_mut() {
            rule.push(c);
        }
    }
    rules.iter().map(|rule| rule.trim().to_owned()).filter(|rule| !rule.is_empty()).collect()
}

fn path_text(path: &Path) -> Result<String, Failure> {
    // Resolved where it exists: the daemon compares folders, and one has several spellings.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    path.to_str().map(String::from).ok_or_else(|| Failure::usage(format!("{} is not UTF-8", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// `@FILE` is the file's text; `@@…` a text that begins with `@`.
pub(super) fn text_or_file(given: &str, cwd: &Path) -> Result<String, Failure> {
    match given.strip_prefix('@') {
        Some(text) if text.starts_with('@') => Ok(text.into()),
        Some(path) => read(&cwd.join(path)),
        None => Ok(given.into()),
    }
}

/// JSON as it stands, or a file with it; `@FILE` names a file too.
pub(super) fn json_or_file(flag: &str, given: &str, cwd: &Path) -> Result<Value, Failure> {
    let trimmed = given.trim_start();
    if trimmed.starts_with(['{', '[']) {
        return serde_json::from_str(trimmed).map_err(|error| Failure::usage(format!("{flag}: {error}")));
    }
    let path = given.strip_prefix('@').unwrap_or(given);
    serde_json::from_str(&read(&cwd.join(path))?)
        .map_err(|error| Failure::usage(format!("{flag} {path}: {error}")))
}

/// `{"mcpServers": {…}}`, or the servers themselves.
fn mcp_servers(given: &str, cwd: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let value = json_or_file("--mcp-config", given, cwd)?;
    let servers = value.get("mcpServers").cloned().unwrap_or(value);
    match servers {
        Value::Object(servers) if servers.values().all(Value::is_object) => Ok(servers.into_iter().collect()),
        _ => Err(Failure::usage("--mcp-config must be {\"mcpServers\": {NAME: {…}}}")),
    }
}

/// `NAME=VALUE` lines; blank lines and `#` comments are skipped, one pair of quotes is taken off.
fn env_file(text: &str, path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(Failure::usage(format!("{}:{}: not NAME=VALUE", path.display(), n + 1)));
        };
        let value = value.trim();
        let unquoted = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
        found.push((name.trim().into(), unquoted.unwrap_or(value).into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
