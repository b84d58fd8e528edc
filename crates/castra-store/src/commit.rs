//! What a transaction is made of: guards, changes and events, and what came of it. Refuses SQL.

use crate::rows::CommandState;
use bytes::Bytes;
use castra_proto::api::{IfBusy, MessageState, Priority, Scope, ServerEvent};
use castra_proto::spec::Mode;
use castra_proto::{CommandId, Kind, MessageId, RunId, RunState, SessionId, Timestamp, TokenId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// One atomic transaction on one session. Checked in this order: `idempotency`, that the session exists (or
/// not, for `Change::Create`), a message id that is already there, `epoch`, `guards`; then come `changes` in
/// order, `events`, `server_events`. Whatever refuses it, nothing of it is kept.
#[derive(Clone, Debug)]
pub struct Commit {
    pub session: SessionId,
    /// `updated_at` of what is changed, `created_at` of what is new.
    pub at: Timestamp,
    /// The fence: refused as [`CommitError::Fenced`](crate::CommitError::Fenced) when the session's epoch is
    /// higher; the session's epoch becomes this one when it is lower. None: accepted from any server.
    pub epoch: Option<u64>,
    /// Answered with the first outcome when the key is known. Remembered with this commit otherwise.
    pub idempotency: Option<Idempotency>,
    pub guards: Vec<Guard>,
    pub changes: Vec<Change>,
    /// Numbered in this order, without gaps, behind the session's head.
    pub events: Vec<NewEvent>,
    /// Numbered in this order in the server-wide sequence.
    pub server_events: Vec<NewServerEvent>,
}

impl Commit {
    pub fn new(session: SessionId, at: Timestamp) -> Self {
        Self {
            session,
            at,
            epoch: None,
            idempotency: None,
            guards: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
            server_events: Vec::new(),
        }
    }

    #[must_use]
    pub fn fenced_by(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    #[must_use]
    pub fn once(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = Some(idempotency);
        self
    }

    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    #[must_use]
    pub fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }

    #[must_use]
    pub fn server_event(mut self, kind: impl Into<String>, data: Value) -> Self {
        self.server_events.push(NewServerEvent { kind: kind.into(), data });
        self
    }

    /// About what it occupies in the queue, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let events: usize =
            self.events.iter().map(|e| 64 + e.data.len() + e.raw.as_ref().map_or(0, Bytes::len)).sum();
        let views: usize = self
            .changes
            .iter()
            .map(|change| match change {
                Change::Session(SessionUpdate { view, offers, .. }) => {
                    view.as_ref().map_or(0, String::len) + offers.as_ref().map_or(0, String::len)
                }
                Change::Create(new) => new.spec.len() + new.view.len(),
                Change::AddMessage(new) => new.body.len(),
                _ => 0,
            })
            .sum();
        256 + events + views
    }
}

/// What must hold, or the whole commit is refused. Other commits of the same group are not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// No other session that is neither removed nor ended bears this name. Else `NameTaken`.
    NameFree(String),
    /// Fewer than this many messages are `queued` or `written`. Else `QueueFull`.
    UndeliveredBelow(u32),
    /// The newest run has this number and is in this kind of state. Else `RunConflict`.
    NewestRun { n: u32, is_final: bool },
    /// The session's newest event has this number. Else `HeadMoved`.
    HeadIs(u64),
}

/// One thing that a commit does, besides its events.
#[derive(Clone, Debug)]
pub enum Change {
    /// Must be the first change. An id that exists is refused as `SessionExists`.
    Create(Box<NewSession>),
    Session(SessionUpdate),
    /// Appended to the session's claude session ids, if it is not the last of them already.
    ClaudeSession(Uuid),
    /// Compare and swap: the newest run must have the number `n - 1` and be final (or be none for `n` 1), else
    /// `RunConflict`. The session's state becomes `queued`.
    StartRun(NewRun),
    /// The session's state follows when it is the newest run; give the state here or in `Session`, not both.
    Run(RunUpdate),
    /// An id that exists makes the commit a [`Duplicate`].
    AddMessage(NewMessage),
    Message(MessageUpdate),
    /// Refused as `CommandConflict` when one of the same session, kind and subject is there and not
    /// `superseded`.
    AddCommand(NewCommand),
    /// An unknown id is refused as `NoCommand`.
    Command {
        id: CommandId,
        state: CommandState,
        result: Option<Value>,
    },
    /// From now on nothing reads the session; its name, secrets and tokens are gone. `Store::purge` then
    /// deletes its rows in steps.
    Remove,
}

/// A session to be. Its id is the commit's.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub name: Option<String>,
    pub host: String,
    /// The server that owns it.
    pub owner: String,
    pub mode: Mode,
    pub cwd: Option<String>,
    /// JSON, with `"***"` for every secret value.
    pub spec: String,
    /// The secret values, in whatever shape the caller finds them again. Stored encrypted.
    pub spec_secrets: Option<Value>,
    /// JSON: the derived state.
    pub view: String,
    pub labels: BTreeMap<String, String>,
    pub fork_of: Option<SessionId>,
}

/// Fields of a session to be replaced; None leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct SessionUpdate {
    pub state: Option<RunState>,
    /// JSON: the derived state.
    pub view: Option<String>,
    /// JSON: the part of it that is large and seldom changes.
    pub offers: Option<String>,
    /// `Some(None)` takes the name away.
    pub name: Option<Option<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub cwd: Option<String>,
    /// JSON, redacted; replaced together with `spec_secrets` when that is given.
    pub spec: Option<String>,
    pub spec_secrets: Option<Value>,
    pub owner: Option<String>,
    pub mode: Option<Mode>,
}

#[derive(Clone, Debug)]
pub struct NewRun {
    /// From 1, without gaps.
    pub n: u32,
    pub id: RunId,
    pub epoch: u64,
    /// Its folder on the host.
    pub dir: String,
    pub meta: Value,
}

/// Fields of a run to be replaced; None leaves one as it is. An unknown run is refused as `NoRun`.
#[derive(Clone, Debug, Default)]
pub struct RunUpdate {
    pub n: u32,
    pub state: Option<RunState>,
    /// The record up to which all is decoded.
    pub cursor: Option<u64>,
    /// The oldest record that is still needed; None in the inner option: none.
    pub hold: Option<Option<u64>>,
    pub epoch: Option<u64>,
    pub meta: Option<Value>,
    pub exit: Option<Value>,
}

#[derive(Clone, Debug)]
pub struct NewMessage {
    pub id: MessageId,
    /// JSON: `text` or `content`, as it is to be written to claude.
    pub body: String,
    pub if_busy: IfBusy,
    pub priority: Option<Priority>,
    /// The event that announces it (its `input_accepted`).
    pub accepted: SeqAt,
}

/// Fields of a message to be replaced; None leaves one as it is. An unknown id is refused as `NoMessage`.
#[derive(Clone, Debug)]
pub struct MessageUpdate {
    pub id: MessageId,
    /// The states it may be in before, else `MessageConflict`; empty: any.
    pub from: Vec<MessageState>,
    pub state: Option<MessageState>,
    pub run: Option<u32>,
    pub turn: Option<u32>,
    /// The event that says so (its `input_delivered`).
    pub delivered: Option<SeqAt>,
    /// JSON of a `TurnResult`; its `seq` is not known before the commit: read `MessageRow::result_seq`.
    pub result: Option<Value>,
    pub result_at: Option<SeqAt>,
}

impl MessageUpdate {
    pub fn new(id: MessageId) -> Self {
        Self {
            id,
            from: Vec::new(),
            state: None,
            run: None,
            turn: None,
            delivered: None,
            result: None,
            result_at: None,
        }
    }
}

/// The number of an event that may not have one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqAt {
    /// An event of this commit, by its index in `events`.
    Event(usize),
    Seq(u64),
}

#[derive(Clone, Debug)]
pub struct NewCommand {
    pub id: CommandId,
    pub kind: String,
    /// What may be decided only once, e.g. a permission request's id.
    pub subject: Option<String>,
    pub args: Value,
    /// Who gave it.
    pub by: String,
    pub state: CommandState,
    pub owner: Option<String>,
    pub epoch: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    /// 0 before the first run.
    pub run: u32,
    /// 0 before the first turn.
    pub turn: u32,
    pub kind: Kind,
    /// JSON; for claude's kinds the original line, byte for byte.
    pub data: Bytes,
    /// Only where the line was not JSON.
    pub raw: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewServerEvent {
    pub kind: String,
    pub data: Value,
}

/// A client's promise that a retry is a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// What the key is unique in, e.g. a route and a token.
    pub scope: String,
    pub key: String,
    /// SHA-256 of what was asked for; another one under the same key is refused as `IdempotencyMismatch`.
    pub request_hash: [u8; 32],
}

#[derive(Clone, Debug)]
pub struct NewToken {
    pub id: TokenId,
    pub name: Option<String>,
    pub scope: Scope,
    pub session: Option<SessionId>,
    /// SHA-256 of the secret, which is not stored.
    pub secret_hash: [u8; 32],
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// The commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the first event; the session's head when there was none. For a duplicate: those of the original.
    pub first_seq: u64,
    /// Of the last event; the session's head when there was none.
    pub last_seq: u64,
    /// Set: nothing was changed now, since this had been committed before.
    pub duplicate_of: Option<Duplicate>,
}

/// What an earlier commit of the same idempotency key, or of the same message, was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub session: SessionId,
    pub message: Option<MessageId>,
}

/// What the observer is told, after the commit.
#[derive(Clone, Debug)]
pub struct CommittedBatch {
    pub session: SessionId,
    /// Of `events[0]`; the following are numbered on from there.
    pub first_seq: u64,
    /// The session's newest event.
    pub head: u64,
    pub events: Vec<NewEvent>,
    pub server_events: Vec<ServerEvent>,
    /// A message, or the state of a run, is not what it was.
    pub messages: bool,
    /// The session was removed.
    pub removed: bool,
}

impl CommittedBatch {
    /// The events with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &NewEvent)> {
        (self.first_seq..).zip(&self.events)
    }
}

/// Called by the writer for every commit, in commit order, before the caller of `commit` has its answer.
/// It holds up all writing while it runs: move heads and fill rings, nothing else.
#[derive(Clone)]
pub struct Observer(pub Arc<dyn Fn(&CommittedBatch) + Send + Sync>);

impl Observer {
    pub fn new(observe: impl Fn(&CommittedBatch) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
