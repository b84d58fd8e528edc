//! What happens to a task: its events, and the closed list of their kinds.

use crate::{TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// One durable fact of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskEvent {
    /// Position in the task, from 1, without gaps.
    pub seq: u64,
    pub at: Timestamp,
    pub task_id: TaskId,
    /// 0 before the first.
    pub attempt: u32,
    pub kind: TaskEventKind,
    pub level: Level,
    /// For people.
    pub message: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Value,
}

macro_rules! task_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a task's event is: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum TaskEventKind { $($(#[$doc])* $variant,)* }

        impl TaskEventKind {
            pub const ALL: &'static [TaskEventKind] = &[$(TaskEventKind::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

task_kinds! {
    /// `{from, to, cause}`.
    State = "state",
    /// A session begins or goes on for it: `{session_id, resumed}`.
    Attempt = "attempt",
    /// `{percent?, message}`.
    Progress = "progress",
    /// A line of the agent's that is none of the protocol's.
    Log = "log",
    /// `{path, version, size, sha256, media_type}`.
    Deliverable = "deliverable",
    /// What was named as a deliverable and is none: `{path, why}`.
    Rejected = "rejected",
    /// What became of a child: `{task_id, state, result?, reason?}`.
    Child = "child",
    /// A file was handed in: `{path, size, sha256, by}`.
    Upload = "upload",
    /// What castra told the agent: `{text, message_id}`.
    Reply = "reply",
    /// `{reason}`.
    Attention = "attention",
    /// `{url}`.
    Browser = "browser",
    /// `{keyword, data}`.
    ClientMessage = "client_message",
    /// `{keyword, data}`.
    CallerMessage = "caller_message",
    /// What will be its end, before everything is cleared away: `{state, reason?, result?}`.
    Outcome = "outcome",
    /// What a hook came to: `{on, id, ok, said?}`.
    Hook = "hook",
}

impl fmt::Display for TaskEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Level {
    Debug,
    #[default]
    Info,
    /// A fact of the task's life.
    Event,
    Warning,
    Error,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Event => "event",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Event, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// An event as a line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Of the event.
    pub seq: u64,
    pub at: Timestamp,
    pub level: Level,
    pub message: String,
}
