//! What a decoded line means to castra: a closed enum of facts. Refuses to hold whole messages; the bytes do.

use crate::line::LineId;
use crate::open::BlockKind;
use crate::permission::Asked;
use bytes::Bytes;
use castra_proto::Kind;
use serde_json::Value;
use uuid::Uuid;

/// One line of claude's stdout or stderr.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub line: LineId,
    /// Of the record in which the line ended.
    pub record_seq: u64,
    /// Of the record in which the line ended; boot-time nanoseconds.
    pub at: u64,
    pub kind: Kind,
    /// The line without its newline, byte for byte. For stderr a JSON object `{"text": …}` made of it.
    pub data: Bytes,
    /// `data` is valid JSON. If not, the event keeps the bytes as `raw`.
    pub json: bool,
    /// The original bytes where `data` is not them: stderr that is not UTF-8.
    pub raw: Option<Bytes>,
    /// Why the line is odd, if it is.
    pub note: Option<Note>,
    /// The `session_id` that the line itself carries; it changes with `/clear` and forks.
    pub session_id: Option<Uuid>,
    pub fact: Fact,
}

/// Why a line is not what claude usually writes. None of these ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Not JSON at all.
    NotJson,
    /// JSON, but not an object, or one without a `type`.
    NotAMessage,
    /// Longer than the limit: this is one part of it.
    Cut,
    /// The stream ended, or has a hole, before the line did.
    Torn,
    /// Bytes that are not UTF-8.
    NotUtf8,
}

/// What a line says that castra acts on.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    Init(Box<Init>),
    Assistant(Assistant),
    /// claude repeats a message it was sent: it has it.
    UserReplay {
        uuid: Option<Uuid>,
    },
    User(User),
    Result(Box<ResultFact>),
    SessionState(SessionState),
    PermissionAsked(Box<Asked>),
    /// `control_cancel_request`: nobody waits for the answer any more.
    PermissionWithdrawn {
        request_id: String,
    },
    /// claude's answer to one of castra's control requests; or, with the id of one of claude's own requests,
    /// its echo of castra's answer to that.
    ControlAnswered {
        request_id: String,
        result: Result<Value, String>,
    },
    /// A control request that is not a permission request; somebody must answer it, see `input::decline`.
    HostRequest {
        request_id: String,
        subtype: String,
        request: Value,
    },
    /// `command_lifecycle` of 2.1.329: what became of a message.
    Lifecycle {
        uuid: Option<Uuid>,
        state: Lifecycle,
    },
    Status {
        status: Option<String>,
        permission_mode: Option<String>,
    },
    Compacted {
        trigger: Option<String>,
        pre_tokens: Option<u64>,
        post_tokens: Option<u64>,
    },
    ApiRetry {
        attempt: u32,
        max_retries: Option<u32>,
        delay_ms: Option<u64>,
        error_status: Option<u16>,
        error: Option<String>,
    },
    /// A background task: a shell, a subagent.
    Task {
        task_id: String,
        phase: TaskPhase,
        task_type: Option<String>,
        /// `running`, `completed`, `stopped`, … as claude says it.
        status: Option<String>,
        summary: Option<String>,
    },
    /// Tools that were denied without asking anybody.
    PermissionDenied {
        tool: String,
        message: Option<String>,
    },
    Stderr,
    /// Kept, but nothing that castra acts on.
    Other,
}

/// `system/init`, at the start of every turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Init {
    pub session_id: Option<Uuid>,
    pub model: Option<String>,
    pub permission_mode: Option<String>,
    pub cwd: Option<String>,
    pub version: Option<String>,
    pub tools: Vec<String>,
    pub slash_commands: Vec<String>,
    pub skills: Vec<String>,
    pub agents: Vec<String>,
    /// `{name, status}` each.
    pub mcp_servers: Vec<Value>,
}

/// One content block of an assistant message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assistant {
    pub model: Option<String>,
    pub uuid: Option<Uuid>,
    pub message_id: Option<String>,
    /// Set: a subagent speaks.
    pub parent_tool_use_id: Option<String>,
    /// The last sentence of its text, at most 200 characters.
    pub text_tail: Option<String>,
    pub tool: Option<ToolCall>,
    /// The kinds of its content blocks; the CLI sends one block per event.
    pub blocks: Vec<BlockKind>,
    /// `authentication_failed`, `rate_limit`, `overloaded`, …
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// Its main argument in one line, at most 200 characters.
    pub preview: String,
}

/// A `user` line that is no replay: tool results, notes of claude's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uuid: Option<Uuid>,
    pub parent_tool_use_id: Option<String>,
    pub tool_results: Vec<ToolResult>,
    /// `[Request interrupted by user]`, with or without a tool.
    pub interrupted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    pub tool_use_id: String,
    pub is_error: bool,
}

/// The end of a turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultFact {
    pub session_id: Option<Uuid>,
    pub subtype: String,
    pub is_error: bool,
    /// Really succeeded: `subtype` is `success`, `is_error` is false and nothing cut the turn off.
    pub ok: bool,
    pub api_error_status: Option<u16>,
    pub text: Option<String>,
    /// US dollars since the process started, not of this turn.
    pub cost_usd: f64,
    /// Of this turn alone, reckoned by castra where claude says nothing.
    pub estimated_cost_usd: Option<f64>,
    pub num_turns: u32,
    pub duration_ms: u64,
    pub usage: Value,
    pub structured_output: Option<Value>,
    /// `completed`, `aborted_streaming`, `aborted_tools`, `max_turns`, …
    pub terminal_reason: Option<String>,
    pub errors: Vec<String>,
    /// What started the turn, where it was not a message: a background task, …
    pub origin: Option<Value>,
}

/// `system/session_state_changed`: claude's own word on whether a turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    Idle,
    Running,
    RequiresAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Queued,
    Started,
    Completed,
    /// A state that this version of castra does not know.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    Started,
    Progress,
    Updated,
    /// Over, or stopped.
    Notification,
}
