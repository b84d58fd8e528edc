//! From a [`SessionSpec`] to argv, environment and files. Refuses, with the reason, what cannot work.

mod arguments;
mod environment;
mod refusal;
mod settings;
mod terminal;

use crate::config::Settled;
use crate::input;
use castra_proto::spec::{Mode, PermissionMode};
use castra_proto::{RunId, SessionSpec};
pub use environment::inherited;
pub use refusal::Refusal;
use serde_json::{Map, Value, json};
pub use settings::{Fixed, fixed};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the spec does not say: where things are, and who runs this.
#[derive(Clone, Debug)]
pub struct LaunchContext {
    /// Path of the CLI.
    pub claude: String,
    /// HOME for claude.
    pub home: String,
    pub config_dir: String,
    pub workdir: String,
    /// A 0700 folder inside the session's home for the files made here.
    pub files_dir: String,
    /// The caller's own environment; only what is on the allow-list is passed on.
    pub inherited: BTreeMap<String, String>,
    pub run_id: RunId,
    pub conversation: Conversation,
    pub is_root: bool,
    /// `[claude] allow_root_bypass`.
    pub allow_root_bypass: bool,
    /// The scripted model, for `demo`.
    pub demo: Option<Demo>,
    /// Contents of the files that the `*_file` fields name, by the name as it stands there.
    pub file_texts: BTreeMap<String, String>,
    /// An MCP server that castra is itself, over the control channel.
    pub own_server: Option<String>,
    /// Permission updates of earlier runs, in their order.
    pub remembered: Vec<Value>,
}

/// The conversation that claude starts or takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    New(Uuid),
    Resume(Uuid),
    ResumeFork {
        from: Uuid,
        to: Uuid,
    },
    /// An absolute path of a transcript; claude goes on writing that file.
    ResumeFile(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    pub base_url: String,
    /// Made up; castra-model asks for none.
    pub api_key: String,
}

/// All that is needed to start claude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// With the CLI as its first element. Never holds a secret.
    pub argv: Vec<String>,
    /// The whole environment, nothing is added.
    pub env: BTreeMap<String, String>,
    /// To be written before the start.
    pub files: Vec<LaunchFile>,
    /// What `.claude.json` must say before the start, so that claude asks nothing.
    pub settled: Settled,
    /// The line that `initialize`s claude; its answer is the sign of readiness. Empty for a terminal, which is ready
    /// when its screen shows a prompt.
    pub initialize: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct LaunchFile {
    /// Absolute.
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for LaunchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaunchFile({} {:o}, {} bytes)", self.path, self.mode, self.bytes.len())
    }
}

/// The `request_id` of the `initialize` in [`Launch::initialize`].
pub fn initialize_id(run: RunId) -> String {
    format!("castra-init-{run}")
}

/// What [`launch`] would refuse, without making anything.
pub fn check(spec: &SessionSpec, context: &LaunchContext) -> Result<(), Refusal> {
    launch(spec, context).map(drop)
}

/// Argv, environment, files and the first line for a run; or the reason why it cannot be.
pub fn launch(spec: &SessionSpec, context: &LaunchContext) -> Result<Launch, Refusal> {
    not_yet(spec)?;
    permissions(spec, context)?;
    let terminal = spec.mode == Mode::Terminal;
    let mut made = Made::default();
    made.mcp = mcp_config(spec, context)?
        .map(|config| keep(&mut made.files, context, "mcp.json", &config.to_string()));
    if spec.settings.as_ref().is_some_and(|settings| !settings.is_object()) {
        return Err(Refusal::Shape { field: "settings".into(), shape: "an object" });
    }
    let settings = settings::settings(spec, context);
    let settings = if terminal { terminal::settings(spec, settings) } else { settings };
    made.settings =
        settings.map(|settings| keep(&mut made.files, context, "settings.json", &settings.to_string()));
    let initialize = if terminal {
        terminal::check(spec)?;
        terminal::prompts(spec, context, &mut made)?;
        Vec::new()
    } else {
        input::control(&initialize_id(context.run_id), "initialize", &initialize(spec, context)?)
    };
    let argv = arguments::arguments(spec, context, &made)?;
    let env = environment::environment(spec, context)?;
    let settled = Settled {
        trusted: vec![context.workdir.clone()],
        api_keys: if terminal { terminal::api_keys(spec, &env) } else { Vec::new() },
        bypass_accepted: terminal && spec.permission_mode == PermissionMode::BypassPermissions,
    };
    Ok(Launch { argv, env, files: made.files, settled, initialize })
}

/// The files made for a run, and the paths of those that arguments name.
#[derive(Default)]
struct Made {
    files: Vec<LaunchFile>,
    mcp: Option<String>,
    settings: Option<String>,
    system_prompt: Option<String>,
    append_system_prompt: Option<String>,
}

fn not_yet(spec: &SessionSpec) -> Result<(), Refusal> {
    let later = [
        ("host", spec.host.as_deref().is_some_and(|host| host != "local")),
        ("credential", spec.credential.is_some()),
        ("seed", spec.seed.is_some()),
    ];
    if let Some((field, _)) = later.into_iter().find(|(_, asked)| *asked) {
        return Err(Refusal::NotYet { field });
    }
    let terminals = [("tmux", spec.tmux.is_some()), ("tui", spec.tui.is_some())];
    match terminals.into_iter().find(|(_, asked)| *asked && spec.mode != Mode::Terminal) {
        Some((field, _)) => Err(Refusal::NeedsTerminal { field }),
        None => Ok(()),
    }
}

fn permissions(spec: &SessionSpec, context: &LaunchContext) -> Result<(), Refusal> {
    let mode = spec.permission_mode;
    if mode == PermissionMode::BypassPermissions && context.is_root && !context.allow_root_bypass {
        return Err(Refusal::BypassAsRoot);
    }
    if mode.may_ask() && spec.permission_timeout_s == Some(0) {
        return Err(Refusal::NobodyToAnswer { mode: mode.as_str() });
    }
    Ok(())
}

/// Headers and variables of MCP servers are secrets: they go into a file, never into argv.
fn mcp_config(spec: &SessionSpec, context: &LaunchContext) -> Result<Option<Value>, Refusal> {
    for (name, server) in &spec.mcp_servers {
        let field = || format!("mcp_servers.{name}");
        if !server.is_object() {
            return Err(Refusal::Shape { field: field(), shape: "an object, as in claude's mcpServers" });
        }
        if server.get("type").is_some_and(|kind| kind == "sdk") {
            return Err(Refusal::Shape {
                field: field(),
                shape: "a server that claude can reach itself (stdio, http or sse); an `sdk` server would have to \
                        live in castra",
            });
        }
    }
    let mut servers = spec.mcp_servers.clone();
    if let Some(name) = &context.own_server {
        servers.insert(name.clone(), json!({"type": "sdk", "name": name}));
    }
    Ok((!servers.is_empty()).then(|| json!({ "mcpServers": servers })))
}

fn keep(files: &mut Vec<LaunchFile>, context: &LaunchContext, name: &str, content: &str) -> String {
    let path = format!("{}/{name}", context.files_dir.trim_end_matches('/'));
    files.push(LaunchFile { path: path.clone(), mode: 0o600, bytes: content.as_bytes().to_vec() });
    path
}

/// What only the first `initialize` can set, and what shall not stand in argv.
fn initialize(spec: &SessionSpec, context: &LaunchContext) -> Result<Map<String, Value>, Refusal> {
    let mut fields = Map::new();
    let (system, append) = prompts(spec, context)?;
    if let Some(text) = system {
        fields.insert("systemPrompt".into(), json!([text]));
    }
    if let Some(text) = append {
        fields.insert("appendSystemPrompt".into(), json!(text));
    }
    for (field, name, value) in
        [("agents", "agents", &spec.agents), ("output_schema", "jsonSchema", &spec.output_schema)]
    {
        match value {
            None => {}
            Some(value) if value.is_object() => drop(fields.insert(name.into(), value.clone())),
            Some(_) => return Err(Refusal::Shape { field: field.into(), shape: "an object" }),
        }
    }
    if let Some(skills) = &spec.skills {
        fields.insert("skills".into(), json!(skills));
    }
    if spec.forward_subagent_text {
        fields.insert("forwardSubagentText".into(), json!(true));
    }
    Ok(fields)
}

/// The system prompt, and what is appended to it.
fn prompts<'a>(
    spec: &'a SessionSpec,
    context: &'a LaunchContext,
) -> Result<(Option<&'a str>, Option<&'a str>), Refusal> {
    let system = prompt(
        context,
        ("system_prompt", &spec.system_prompt),
        ("system_prompt_file", &spec.system_prompt_file),
    )?;
    let append = prompt(
        context,
        ("append_system_prompt", &spec.append_system_prompt),
        ("append_system_prompt_file", &spec.append_system_prompt_file),
    )?;
    Ok((system, append))
}

type Named<'a> = (&'static str, &'a Option<String>);

fn prompt<'a>(
    context: &'a LaunchContext,
    text: Named<'a>,
    file: Named<'a>,
) -> Result<Option<&'a str>, Refusal> {
    match (text.1, file.1) {
        (Some(_), Some(_)) => Err(Refusal::Exclusive { first: text.0, second: file.0 }),
        (Some(text), None) => Ok(Some(text)),
        (None, Some(path)) => match context.file_texts.get(path) {
            Some(text) => Ok(Some(text)),
            None => Err(Refusal::FileNotRead { field: file.0, path: path.clone() }),
        },
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
