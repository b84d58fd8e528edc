//! Tasks as the store has them, and the one transaction that changes them. Refuses SQL and policy.

use crate::commit::NewServerEvent;
use castra_proto::task::{Deliverable, Level, TaskEventKind, TaskState};
use castra_proto::{SessionId, TaskId, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    pub id: TaskId,
    pub name: Option<String>,
    pub state: TaskState,
    pub priority: i32,
    pub parent: Option<TaskId>,
    /// Of the newest attempt.
    pub session: Option<SessionId>,
    /// The newest event's number.
    pub head: u64,
    pub labels: BTreeMap<String, String>,
    pub metadata: Value,
    /// JSON, redacted; `Store::task_secrets` has the rest.
    pub spec: String,
    /// JSON: the derived state.
    pub view: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

pub type FoundTask = crate::rows::Found<TaskRow, TaskId>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Empty: those that are not final, or any with `all`.
    pub states: Vec<TaskState>,
    pub all: bool,
    pub label: Option<(String, String)>,
    pub parent: Option<TaskId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StoredTaskEvent {
    pub seq: u64,
    pub at: Timestamp,
    pub attempt: u32,
    pub kind: TaskEventKind,
    pub level: Level,
    pub message: String,
    pub data: Value,
}

/// Up to where one hook has been told of its task's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlace {
    pub task: TaskId,
    /// Its place in the task's list.
    pub hook: u32,
    /// The last event that is settled for it.
    pub seq: u64,
    /// At the event behind it.
    pub tries: u32,
    /// Not to be tried before.
    pub next_at: Timestamp,
}

/// A task to be. Its id is the commit's.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Refused as `NameTaken` when another task that is not over bears it.
    pub name: Option<String>,
    /// SHA-256 of what was asked for. The same id with the same one is the same request, made again.
    pub request_hash: [u8; 32],
    pub priority: i32,
    pub parent: Option<TaskId>,
    pub labels: BTreeMap<String, String>,
    pub metadata: Value,
    /// JSON, with `"***"` for every secret value.
    pub spec: String,
    /// The secret values. Stored encrypted.
    pub secrets: Option<Value>,
    /// Places in its list of hooks: those that are told of its events.
    pub told: Vec<u32>,
}

/// One atomic transaction on one task.
#[derive(Clone, Debug)]
pub struct TaskCommit {
    pub task: TaskId,
    pub at: Timestamp,
    pub create: Option<NewTask>,
    /// The head that this was decided from; refused as `Moved` when it is another one. None for a new task only.
    pub head: Option<u64>,
    pub state: TaskState,
    pub session: Option<SessionId>,
    /// JSON: the derived state.
    pub view: String,
    /// Numbered in this order, without gaps.
    pub events: Vec<NewTaskEvent>,
    pub deliverables: Vec<Deliverable>,
    /// For the server-wide sequence.
    pub server_events: Vec<NewServerEvent>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewTaskEvent {
    pub at: Timestamp,
    pub attempt: u32,
    pub kind: TaskEventKind,
    pub level: Level,
    pub message: String,
    pub data: Value,
}

/// The commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskCommitted {
    /// The newest event's number.
    pub head: u64,
    /// The task was there already, made by the same request; nothing was changed.
    pub existed: bool,
    /// The newest entry of the server-wide sequence that this made.
    pub server_head: Option<u64>,
}
