//! Tasks: what is asked of one, its states, its outcome, and what it hands over.
//!
//! As with `SessionSpec`, every field of the contract is here from the start; the ones whose part is not built yet are
//! refused by name when a task is created, never ignored.

mod definition;
mod event;
mod group;
mod hook;
pub mod input;
mod many;
pub mod param;
mod schedule;

pub use definition::*;
pub use event::*;
pub use group::*;
pub use hook::*;
pub use input::{Blob, Git, Input, Source, Uploaded};
pub use many::*;
pub use param::{Param, ParamKind};
pub use schedule::*;

use crate::spec::Mode;
use crate::{SessionId, SessionSpec, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What a task is to do and how its end is recognised. All fields are optional; unknown ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskSpec {
    /// A name that is unique among tasks that are not over; usable wherever an id is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What claude is to do. Unset: a plain conversation, which is done when it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The session that each attempt drives.
    pub session: SessionSpec,
    /// Of the session; `session.mode` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    pub protocol: Protocol,
    pub start: Start,
    /// What counts as `done`; one of them is enough. Unset: `protocol` in stream mode, `protocol` and `exit` on a
    /// terminal, `result` without a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<Vec<Completion>>,
    /// Parameters that a template declares.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Param>,
    /// Values of the parameters, for this launch.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: BTreeMap<String, Value>,
    /// What is fetched into the workspace before the start of each fresh attempt, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Programs and endpoints that are called at points of its life, those of one point in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Anything the caller wants to keep with the task; filters look into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Higher ones leave the queue first; 0 when unset.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Further attempts after one that failed, each in a fresh session.
    #[serde(skip_serializing_if = "is_none")]
    pub retries: u32,
    /// Seconds that an attempt may take from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// US dollars that an attempt may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// Tasks, by id or name, that must be done first. One that fails or is cancelled fails this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The task that this one is made for: it ends with it, and is cancelled with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// Tasks that run before this one's own work, and hand it their results. Of `session`, `labels`, `priority` and
    /// `client_id` each has what it does not set itself from here; its name is its own among its siblings, and stands for it in
    /// their `depends_on`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub children: Vec<TaskSpec>,
    #[serde(skip_serializing_if = "Group::is_default")]
    pub group: Group,
    /// Unset: `average` of the children where it is nothing but them, else `own`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressRule>,
    /// Of a child: how much of its parent's progress it is, in percent. Those without one have equal parts of what
    /// the others leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u8>,
    /// The client that what the agent wants to say to one is for; with it, it may say `CLIENT_MESSAGE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Seconds after its end when the task may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Remove the task when it has ended.
    #[serde(skip_serializing_if = "is_false")]
    pub ephemeral: bool,
}

/// How the agent reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// By whichever of the two it prefers.
    #[default]
    Both,
    /// By lines that it appends to `optio.log`.
    Log,
    /// By the tools of an MCP server that castra is.
    Mcp,
    None,
}

impl Protocol {
    pub const fn has_log(self) -> bool {
        matches!(self, Self::Both | Self::Log)
    }

    pub const fn has_mcp(self) -> bool {
        matches!(self, Self::Both | Self::Mcp)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Start {
    /// One message sends claude to work.
    #[default]
    Auto,
    /// Somebody else says the first word.
    Manual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Completion {
    /// The agent says that it is done.
    Protocol,
    /// claude ends by itself with exit code 0.
    Exit,
    /// The turn in which the task's own message was delivered ends well.
    Result,
}

/// `queued → starting → running ⇄ needs_input → done | failed | cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TaskState {
    #[default]
    Queued,
    Starting,
    Running,
    /// claude waits for an answer.
    NeedsInput,
    Done,
    Failed,
    Cancelled,
}

impl TaskState {
    pub const ALL: [TaskState; 7] = [
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::NeedsInput,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::NeedsInput => "needs_input",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Final for this attempt; only another attempt leaves it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    pub id: TaskId,
    pub name: Option<String>,
    pub state: TaskState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The newest attempt's number; 0 before the first.
    pub attempt: u32,
    pub attempts: Vec<Attempt>,
    pub progress: Progress,
    /// What the agent said it was done with, or the text of the turn that counted.
    pub result: Option<String>,
    /// Why it failed, was cancelled, or waits in the queue.
    pub reason: Option<Reason>,
    /// Of the newest attempt.
    pub session_id: Option<SessionId>,
    /// The newest version of each.
    pub deliverables: Vec<Deliverable>,
    pub parent: Option<TaskId>,
    /// Those of its newest attempt, in their order; then those that were made for it.
    pub children: Vec<Child>,
    pub labels: BTreeMap<String, String>,
    pub metadata: Option<Value>,
    pub priority: i32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Secret values are `***`.
    pub spec: TaskSpec,
}

/// One go at a task: a session of its own, or the same one resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// From 1.
    pub n: u32,
    /// Unset where there are only children.
    pub session_id: Option<SessionId>,
    /// It goes on in the session of the attempt before.
    pub resumed: bool,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub state: Option<TaskState>,
    pub reason: Option<Reason>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<u8>,
    pub message: Option<String>,
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    pub code: ReasonCode,
    pub message: String,
    /// The last lines that were seen of the agent, at most 150, without control sequences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// How an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcome {
    pub state: TaskState,
    pub result: Option<String>,
    pub reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReasonCode {
    /// The agent said ERROR.
    Error,
    /// claude ended well and nobody had said DONE.
    NoDone,
    /// claude ended with another exit code than 0, or by a signal.
    Exit,
    /// What became of claude cannot be known.
    Lost,
    /// The turn that counted did not end well.
    Result,
    /// `timeout_s`, or a limit of time of the session.
    Timeout,
    /// `budget_usd`, or another limit of the session.
    Limit,
    /// claude could not be started.
    Start,
    /// Somebody stopped the session beneath the task.
    Stopped,
    /// A task that this one depends on was not done.
    Dependency,
    /// A child was not done.
    Child,
    /// Somebody cancelled it.
    Cancelled,
    /// It waits for another task.
    Waiting,
    /// A launch block holds it.
    Blocked,
    /// A hook failed, and says `on_error: fail`.
    Hook,
}

/// A file that the agent handed over. Its versions are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deliverable {
    /// Its path below `deliverables/`.
    pub path: String,
    /// From 1; another one for each time that it was delivered with other content.
    pub version: u32,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    pub media_type: String,
    pub at: Timestamp,
    pub attempt: u32,
}

/// `POST /tasks/{id}/cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelTask {
    /// For whoever looks later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds that the agent has to end its turn by itself; 5 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

fn is_none(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_names_in_the_tables() {
        for state in TaskState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), Value::from(state.as_str()));
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
        }
        for kind in TaskEventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), Value::from(kind.as_str()));
            assert_eq!(TaskEventKind::parse(kind.as_str()), Some(*kind));
        }
    }
}
