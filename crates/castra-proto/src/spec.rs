//! SessionSpec: everything that a session may be asked to be.
//!
//! Every field of the contract is here from the start; the ones whose part is not built yet are
//! refused by name when a session is created, never ignored.

use crate::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How a session is to be started and kept. All fields are optional; unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionSpec {
    /// A name that is unique among live sessions; usable wherever an id is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Anything the caller wants to keep with the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// The host it runs on; `local` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub mode: Mode,
    /// An existing folder that claude works in. Unset: a fresh one inside the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    pub home: Home,
    /// The claude session id to use for a new conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// Resume the newest session of `workdir`, or start one when there is none.
    #[serde(rename = "continue", skip_serializing_if = "is_false")]
    pub continue_: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// One model, or several separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_model: Option<String>,
    /// `low` to `max`, as the CLI knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub betas: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_system_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_system_prompt_file: Option<String>,
    pub permission_mode: PermissionMode,
    /// Seconds after which an unanswered permission request is denied; unset: it waits. 0 means that
    /// nobody answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_timeout_s: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disallowed_tools: Vec<String>,
    /// The built-in tools to offer; an empty list offers none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// MCP servers by name, as in claude's `mcpServers`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub mcp_servers: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub strict_mcp_config: bool,
    /// Subagents by name, as for the CLI's `--agents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    /// Plugin folders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// claude's settings, as in settings.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// Of `user`, `project`, `local`; an empty list loads none. Unset: `user` with `home: user`, `project` and `local`
    /// with a `workdir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting_sources: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_dirs: Vec<String>,
    /// A JSON Schema that the answer must satisfy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub file_checkpointing: bool,
    /// Environment variables for claude and its tools. Stored encrypted, shown as `***`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// A castra session id or name, or a claude session id, to continue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The session that this one was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork_of: Option<SessionId>,
    pub limits: Limits,
    /// Seconds of silence after which `idle` is emitted.
    pub idle_after_s: u64,
    /// What to say into the silence, at a turn's end, at most `nudges` times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nudge: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub nudges: u32,
    /// Seconds until claude must have answered `initialize`.
    pub start_timeout_s: u64,
    /// Resume by itself after a run was lost or crashed.
    #[serde(skip_serializing_if = "is_false")]
    pub auto_resume: bool,
    pub sandbox: SandboxMode,
    /// The tmux session in which `castra run --tmux` shows the terminal. Written down only: whoever starts a session over
    /// HTTP opens such a view with `castra attach --tmux NAME ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmux: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tui: Option<Tui>,
    /// Ask claude for the text while it is being written.
    pub partials: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub include_hook_events: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub forward_subagent_text: bool,
    /// Run the real CLI against castra-model, without an account.
    #[serde(skip_serializing_if = "is_false")]
    pub demo: bool,
    /// Seconds after its end when the session may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Remove the session when it has ended.
    #[serde(skip_serializing_if = "is_false")]
    pub ephemeral: bool,
    /// Further arguments for the CLI, as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
}

impl Default for SessionSpec {
    fn default() -> Self {
        Self {
            name: None,
            labels: BTreeMap::new(),
            metadata: None,
            host: None,
            mode: Mode::Stream,
            workdir: None,
            home: Home::Isolated,
            session_id: None,
            continue_: false,
            model: None,
            fallback_model: None,
            effort: None,
            thinking: None,
            betas: Vec::new(),
            system_prompt: None,
            append_system_prompt: None,
            system_prompt_file: None,
            append_system_prompt_file: None,
            permission_mode: PermissionMode::Default,
            permission_timeout_s: None,
            allowed_tools: Vec::new(),
            disallowed_tools: Vec::new(),
            tools: None,
            mcp_servers: BTreeMap::new(),
            strict_mcp_config: false,
            agents: None,
            skills: None,
            plugins: Vec::new(),
            settings: None,
            setting_sources: None,
            add_dirs: Vec::new(),
            output_schema: None,
            file_checkpointing: false,
            env: BTreeMap::new(),
            credential: None,
            seed: None,
            resume: None,
            fork_of: None,
            limits: Limits::default(),
            idle_after_s: 60,
            nudge: None,
            nudges: 0,
            start_timeout_s: 30,
            auto_resume: false,
            sandbox: SandboxMode::Auto,
            tmux: None,
            tui: None,
            partials: true,
            include_hook_events: false,
            forward_subagent_text: false,
            demo: false,
            ttl_s: None,
            ephemeral: false,
            extra_args: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Mode {
    /// stream-json over claude's stdin and stdout.
    #[default]
    Stream,
    /// The interactive TUI in a pseudo-terminal.
    Terminal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Home {
    /// A HOME of the session's own.
    #[default]
    Isolated,
    /// The caller's own HOME, with their login and settings.
    User,
}

/// claude's permission modes. The CLI itself accepts any string over `set_permission_mode`; castra does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PermissionMode {
    #[default]
    Default,
    AcceptEdits,
    Plan,
    Auto,
    DontAsk,
    BypassPermissions,
}

impl PermissionMode {
    pub const ALL: [PermissionMode; 6] =
        [Self::Default, Self::AcceptEdits, Self::Plan, Self::Auto, Self::DontAsk, Self::BypassPermissions];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::Auto => "auto",
            Self::DontAsk => "dontAsk",
            Self::BypassPermissions => "bypassPermissions",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// Whether claude may ask somebody in this mode.
    pub const fn may_ask(self) -> bool {
        !matches!(self, Self::DontAsk | Self::BypassPermissions)
    }
}

/// A thinking mode by name (`adaptive`, `enabled`, `disabled`), or a budget in tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Thinking {
    Tokens(u32),
    Mode(String),
}

/// Where a session must end. Unset limits do not exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runtime_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<u64>,
    /// Resident memory of the whole process tree, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SandboxMode {
    /// The strongest that a probe shows to work here, else none, said aloud.
    #[default]
    Auto,
    /// Refuse to start without one.
    Strict,
    Off,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tui {
    pub fullscreen: bool,
    pub focus: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_defaults_reads_as_the_default() {
        assert_eq!(serde_json::from_str::<SessionSpec>("{}").unwrap(), SessionSpec::default());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = serde_json::from_str::<SessionSpec>(r#"{"modle":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `modle`"), "{error}");
    }

    #[test]
    fn permission_modes_are_spelled_as_claude_spells_them() {
        for mode in PermissionMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), Value::from(mode.as_str()));
            assert_eq!(PermissionMode::parse(mode.as_str()), Some(mode));
        }
        assert_eq!(PermissionMode::parse("nonsense"), None);
    }
}
