//! Hooks of a task: what is called at which point, what it is told, and what it may do meanwhile. Refuses to say when:
//! that is the supervisor's business.

use super::{Outcome, Task, TaskEvent, TaskState};
use crate::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A program or an endpoint that is called at a point of a task's life. Exactly one of `command` and `webhook`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hook {
    pub on: HookPoint,
    /// A program of the daemon's machine and its arguments, without a shell: an absolute path, or a name that is looked
    /// up in `PATH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Seconds that one try may take; 60 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Further tries after one that failed. Unset: none; of a webhook whose answer nobody waits for 9, over
    /// hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// What becomes of the task when all tries have failed. Unset: `fail` of `before`, else `warn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Of `state`: only these; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<TaskState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HookPoint {
    /// Before claude starts, in each attempt.
    Before,
    /// After the session was stopped, however the attempt ended.
    After,
    /// A file was handed over; what is answered goes back to the agent.
    Deliverable,
    /// A file was put into the workspace.
    Upload,
    /// The agent's CALLER_MESSAGE; what is answered goes back to it.
    CallerMessage,
    /// The agent's ATTENTION, BROWSER and CLIENT_MESSAGE.
    Message,
    /// The task has changed its state.
    State,
}

impl HookPoint {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Deliverable => "deliverable",
            Self::Upload => "upload",
            Self::CallerMessage => "caller_message",
            Self::Message => "message",
            Self::State => "state",
        }
    }
}

/// What a hook that failed means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnError {
    /// The task fails, with the reason `hook`.
    Fail,
    /// A warning in its log.
    Warn,
    /// A line that is seen only by who looks for it.
    Ignore,
}

/// A URL that is posted to, as JSON. Signed as <https://www.standardwebhooks.com> says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Webhook {
    /// `https://…` or `http://…`. Shown without what may be secret in it.
    pub url: String,
    /// `whsec_` and Base64, or any text. Without one nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Sent with each request; the values are kept secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Also to addresses that are not public: loopback, private and link-local ones. Needs the scope `admin`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
}

/// What a hook is told: on stdin of a command, as the body of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookCall {
    /// Of this firing: the same one when it is tried again, also after a restart.
    pub id: String,
    pub on: HookPoint,
    /// Of `deliverable`: what was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliverable: Option<Offered>,
    /// Of `caller_message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<CallerMessage>,
    /// Of `after`: how the attempt ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of `state`, `message` and `upload`, and of a webhook of `after`: what has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<TaskEvent>,
    /// The task as it is now.
    pub task: Task,
}

/// A file that waits for what a hook says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offered {
    /// Its path below `deliverables/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    pub media_type: String,
    /// What is in it, where that is UTF-8 of at most 256 KiB.
    pub text: Option<String>,
}

/// A message of the agent to whoever made the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallerMessage {
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Value,
    pub at: Timestamp,
}

/// `POST /tasks/{id}/hook/exec`: a program on the task's machine, in its workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookExec {
    /// The program and its arguments, without a shell.
    pub argv: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Seconds; 60 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookExecEnd {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// The last 64 KiB.
    pub stdout: String,
    /// The last 64 KiB.
    pub stderr: String,
}

/// `POST /tasks/{id}/hook/progress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookProgress {
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `POST /tasks/{id}/hook/send`: something for the agent to hear, as a message of castra's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookText {
    pub text: String,
}
