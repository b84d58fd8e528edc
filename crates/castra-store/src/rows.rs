//! What is read: rows as the store has them, JSON columns as text. Refuses SQL and interpretation.

use bytes::Bytes;
use castra_proto::api::{IfBusy, MessageState, Priority, Scope};
use castra_proto::spec::Mode;
use castra_proto::{CommandId, Kind, MessageId, RunId, RunState, SessionId, Timestamp, TokenId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    pub id: SessionId,
    pub name: Option<String>,
    pub host: String,
    /// The server that owns it.
    pub owner: String,
    /// The highest that a commit has named.
    pub epoch: u64,
    pub mode: Mode,
    /// Of the newest run.
    pub state: RunState,
    pub cwd: Option<String>,
    /// The newest event's number; 0: none.
    pub head: u64,
    /// The newest run's number; 0: none.
    pub newest_run: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub fork_of: Option<SessionId>,
    /// Oldest first.
    pub claude_session_ids: Vec<Uuid>,
    /// JSON, redacted; `Store::secrets` has the rest.
    pub spec: String,
    /// JSON: the derived state.
    pub view: String,
    /// JSON: the part of it that is large and seldom changes; `{}` at first.
    pub offers: String,
}

/// What a prefix or a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<R = SessionRow, I = SessionId> {
    One(Box<R>),
    /// Several, newest first; at most ten are listed.
    Ambiguous(Vec<I>),
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Empty: those that are not final, or any with `all`.
    pub states: Vec<RunState>,
    pub all: bool,
    pub label: Option<(String, String)>,
    pub name: Option<String>,
}

/// Where a listing goes on. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// None: that was all.
    pub next: Option<Cursor>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    pub n: u32,
    pub id: RunId,
    pub state: RunState,
    pub epoch: u64,
    pub dir: String,
    /// The record up to which all is decoded; 0: none.
    pub cursor: u64,
    /// The oldest record that is still needed.
    pub hold: Option<u64>,
    pub meta: Value,
    pub exit: Option<Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A session that is not over, with its newest run, if it had one.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveSession {
    pub session: SessionRow,
    pub run: Option<RunRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub seq: u64,
    pub at: Timestamp,
    pub run: u32,
    pub turn: u32,
    pub kind: Kind,
    pub data: Bytes,
    pub raw: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    pub id: MessageId,
    /// Of its `input_accepted`.
    pub seq: u64,
    pub state: MessageState,
    pub if_busy: IfBusy,
    pub priority: Option<Priority>,
    /// JSON.
    pub body: String,
    pub run: Option<u32>,
    pub turn: Option<u32>,
    pub delivered_seq: Option<u64>,
    pub result: Option<Value>,
    pub result_seq: Option<u64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// `accepted → written → done`, or `superseded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandState {
    Accepted,
    Written,
    Done,
    Superseded,
}

impl CommandState {
    pub const ALL: [CommandState; 4] = [Self::Accepted, Self::Written, Self::Done, Self::Superseded];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Written => "written",
            Self::Done => "done",
            Self::Superseded => "superseded",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct CommandRow {
    pub id: CommandId,
    pub session: SessionId,
    pub kind: String,
    pub subject: Option<String>,
    pub args: Value,
    pub by: String,
    pub state: CommandState,
    pub result: Option<Value>,
    pub owner: Option<String>,
    pub epoch: Option<u64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: TokenId,
    pub name: Option<String>,
    pub scope: Scope,
    pub session: Option<SessionId>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRow {
    pub request_hash: [u8; 32],
    pub session: SessionId,
    pub message: Option<MessageId>,
    pub first_seq: u64,
    pub last_seq: u64,
    pub created_at: Timestamp,
}

/// For retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSession {
    pub id: SessionId,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a session occupies in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionSize {
    pub events: u64,
    /// Of `data` and `raw`, without the rows' own overhead.
    pub bytes: u64,
}

/// For metrics. Removed sessions do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Every state, in the order of `RunState::ALL`.
    pub sessions: Vec<(RunState, u64)>,
    pub events: u64,
    pub undelivered_messages: u64,
    pub open_commands: u64,
    /// Of the database file, without its write-ahead log.
    pub database_bytes: u64,
}
