//! A session as it is shown, and the states of its newest run.

use crate::permission::PermissionRequest;
use crate::{SessionId, SessionSpec, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use uuid::Uuid;

/// `queued → starting → idle ⇄ running ⇄ requires_action → ended | lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunState {
    #[default]
    Queued,
    Starting,
    Idle,
    Running,
    RequiresAction,
    Ended,
    Lost,
}

impl RunState {
    pub const ALL: [RunState; 7] = [
        Self::Queued,
        Self::Starting,
        Self::Idle,
        Self::Running,
        Self::RequiresAction,
        Self::Ended,
        Self::Lost,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::RequiresAction => "requires_action",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// A run's end is final; the session may be resumed then.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ended | Self::Lost)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A session, as `castra show` and `GET /sessions/{id}` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    pub id: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The state of the newest run.
    pub state: RunState,
    /// `stale` (its host is not reachable), `degraded` (its disk is full), `trouble` (the daemon cannot drive it),
    /// each with since when.
    pub flags: Flags,
    /// A turn is running, or claude waits for an answer.
    pub busy: bool,
    /// Since when it is in this state.
    pub since: Timestamp,
    pub created_at: Timestamp,
    /// The number of the newest run; 0 before the first.
    pub run: u32,
    pub turn: Turn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<Activity>,
    /// Messages that wait for their turn.
    pub queued: u32,
    /// Permission requests that wait for an answer.
    pub pending: Vec<PermissionRequest>,
    /// claude's id of the conversation now; changes with `/clear` and fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_session_id: Option<Uuid>,
    /// All that it had, oldest first.
    pub claude_session_ids: Vec<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shim_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    pub host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    pub permission_mode: String,
    #[serde(default)]
    pub tools: Vec<String>,
    #[serde(default)]
    pub slash_commands: Vec<String>,
    #[serde(default)]
    pub skills: Vec<String>,
    #[serde(default)]
    pub agents: Vec<String>,
    /// As claude reports them: `{name, status}`.
    #[serde(default)]
    pub mcp_servers: Vec<Value>,
    /// Over all runs, in US dollars, as claude reports it.
    pub cost_usd: f64,
    /// Results so far.
    pub turns: u32,
    /// Token counts over all runs, by claude's names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub usage: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What confines it: `bubblewrap` or `none`, with the reason.
    pub sandbox: Sandbox,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_version: Option<String>,
    /// The newest event.
    pub head_seq: u64,
    /// As it was asked for; secret values as `***`.
    pub spec: SessionSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Timestamp>,
    /// This daemon cannot start its run, follow it or write to it just now, and tries again by itself. Says nothing about
    /// the run. What this daemon has seen since it started: not stored, and no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// Why a session cannot be driven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trouble {
    /// The first of the tries that failed.
    pub since: Timestamp,
    /// Of the newest try; for people.
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Turn {
    /// From 1; 0 before the first.
    pub n: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Of the turn that runs, or of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
}

/// The last thing it did: its last sentence, or `Tool: argument`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Activity {
    pub at: Timestamp,
    pub text: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exit {
    /// Why it ended: judged by what was asked for, not by the exit code.
    pub cause: ExitCause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// claude's last words were cut off.
    #[serde(default)]
    pub tail_lost: bool,
    /// Whether its process tree is proved empty.
    pub reaped: Reaped,
    /// What is known beyond that, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ExitCause {
    /// Somebody asked for it.
    Stopped,
    /// claude ended by itself, with code 0.
    Finished,
    /// claude ended by itself otherwise, or was killed.
    Crashed,
    /// claude could not be started.
    SpawnFailed,
    /// claude did not answer `initialize` in time.
    StartTimeout,
    /// `max_runtime_s` or `idle_timeout_s`.
    Timeout,
    MaxTurns,
    BudgetExceeded,
    MemoryLimit,
    /// The shim or the guard is gone, or the host restarted.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reaped {
    /// No process of the run is left: shown by the shim, the guard or its pid namespace.
    Proved,
    /// Swept by environment only; a process that hid may be left.
    Unproven,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sandbox {
    /// `bubblewrap` or `none`.
    pub kind: SandboxKind,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SandboxKind {
    Bubblewrap,
    None,
}
