//! The supervisor: every call that a surface may make.

use crate::{ByteStream, Config, Result, ServerSubscription, Subscription};
use bytes::Bytes;
use castra_proto::api::*;
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use castra_proto::{Event, MessageId, Session, SessionId, SessionSpec, TokenId};
use serde_json::Value;
use std::time::Duration;

/// Who asks: recorded with every decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// e.g. `cli`, `token:<id>`.
    pub by: String,
    pub scope: Scope,
}

#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Ended ones too.
    pub all: bool,
    pub label: Option<(String, String)>,
    pub cursor: Option<String>,
    pub limit: Option<usize>,
    pub only: Option<SessionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    StreamJson,
    Transcript,
    Json,
    Markdown,
}

/// A cheap handle; clones share one supervisor.
#[derive(Clone)]
pub struct Supervisor {}

#[allow(unused_variables)]
impl Supervisor {
    /// Opens the store, takes the data folder's lock, and recovers every session that was alive.
    pub async fn open(config: Config) -> Result<Self> { unimplemented!() }
    /// Ends the supervisor's own tasks. Sessions live on.
    pub async fn close(&self) { unimplemented!() }
    /// Resolves an id, a unique prefix (4 characters or more) or a name.
    pub async fn resolve(&self, reference: &str) -> Result<SessionId> { unimplemented!() }
    /// With `key` (Idempotency-Key) a retry gets the session of the first call; another body is refused.
    pub async fn create(&self, spec: SessionSpec, key: Option<&str>, caller: &Caller) -> Result<Session> { unimplemented!() }
    pub async fn list(&self, filter: ListFilter) -> Result<Page<Session>> { unimplemented!() }
    pub async fn show(&self, id: SessionId) -> Result<Session> { unimplemented!() }
    pub async fn patch(&self, id: SessionId, patch: SessionPatch, caller: &Caller) -> Result<Session> { unimplemented!() }
    /// Removes an ended session and what castra created for it; `force` stops it first.
    pub async fn remove(&self, id: SessionId, force: bool, caller: &Caller) -> Result<()> { unimplemented!() }
    pub async fn send(&self, id: SessionId, message: SendMessage, key: Option<&str>, caller: &Caller) -> Result<MessageAccepted> { unimplemented!() }
    pub async fn message(&self, id: SessionId, message: MessageId) -> Result<Message> { unimplemented!() }
    /// Waits until the message is answered, interrupted or withdrawn, or `timeout` is over.
    pub async fn wait(&self, id: SessionId, message: MessageId, timeout: Duration) -> Result<Message> { unimplemented!() }
    pub async fn withdraw(&self, id: SessionId, message: MessageId, caller: &Caller) -> Result<Message> { unimplemented!() }
    /// A page that ends at `limit` or 4 MB.
    pub async fn events(&self, id: SessionId, after: u64, limit: usize) -> Result<Vec<Event>> { unimplemented!() }
    pub async fn subscribe(&self, id: SessionId, after: u64) -> Result<Subscription> { unimplemented!() }
    /// `stream`: the id of the stream that `after` belongs to; another one is `gone`.
    pub async fn subscribe_server(&self, after: Option<u64>) -> Result<ServerSubscription> { unimplemented!() }
    pub async fn server_events(&self, after: u64, limit: usize) -> Result<Vec<ServerEvent>> { unimplemented!() }
    pub async fn permissions(&self, id: SessionId) -> Result<Vec<PermissionRequest>> { unimplemented!() }
    /// The decision is on disk when this returns.
    pub async fn answer(&self, id: SessionId, request_id: &str, answer: PermissionAnswer, caller: &Caller) -> Result<PermissionRequest> { unimplemented!() }
    pub async fn interrupt(&self, id: SessionId, caller: &Caller) -> Result<Session> { unimplemented!() }
    /// Returns when the run is over.
    pub async fn stop(&self, id: SessionId, caller: &Caller) -> Result<Session> { unimplemented!() }
    pub async fn resume(&self, id: SessionId, caller: &Caller) -> Result<Session> { unimplemented!() }
    pub async fn fork(&self, id: SessionId, fork: Fork, caller: &Caller) -> Result<Session> { unimplemented!() }
    pub async fn clear(&self, id: SessionId, caller: &Caller) -> Result<Session> { unimplemented!() }
    /// Any control request of the CLI that the allow-list knows and the caller's scope allows.
    pub async fn control(&self, id: SessionId, control: Control, caller: &Caller, timeout: Duration) -> Result<ControlAnswer> { unimplemented!() }
    /// Models, commands, agents, account: claude's answer to `initialize`.
    pub async fn info(&self, id: SessionId) -> Result<Value> { unimplemented!() }
    /// Writes a file beneath `work/`.
    pub async fn put_file(&self, id: SessionId, path: &str, content: Bytes) -> Result<()> { unimplemented!() }
    /// At most `len` bytes from `offset`; empty at the end.
    pub async fn read_file(&self, id: SessionId, path: &str, offset: u64, len: usize) -> Result<Bytes> { unimplemented!() }
    /// The entries of a folder beneath `work/`: `{name, kind: file|dir|other, size, modified}`.
    pub async fn list_files(&self, id: SessionId, path: &str) -> Result<Vec<Value>> { unimplemented!() }
    /// The whole stream; with `follow` until the run's exit.
    pub async fn export(&self, id: SessionId, format: ExportFormat, follow: bool) -> Result<ByteStream> { unimplemented!() }
    /// The exact bytes of the record logs, secrets of the spec masked.
    pub async fn raw_log(&self, id: SessionId, direction: Direction, follow: bool) -> Result<ByteStream> { unimplemented!() }
    /// claude's own conversations on this host; of one folder, or all.
    pub async fn transcripts(&self, cwd: Option<&str>, limit: usize) -> Result<Vec<TranscriptInfo>> { unimplemented!() }
    /// A castra session made of a conversation that castra did not start; its history imported as events.
    pub async fn adopt(&self, claude_session_id: &str, spec: SessionSpec, caller: &Caller) -> Result<Session> { unimplemented!() }
    pub async fn create_token(&self, request: CreateToken) -> Result<CreatedToken> { unimplemented!() }
    pub async fn tokens(&self) -> Result<Vec<Token>> { unimplemented!() }
    pub async fn delete_token(&self, id: TokenId) -> Result<()> { unimplemented!() }
    /// The token of this secret, if it is known and has not expired. Constant time in the secret.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Token>> { unimplemented!() }
    /// Whether this process, or one of its ancestors, belongs to a session: then it is an agent.
    pub fn session_of_pid(&self, pid: i32) -> Option<SessionId> { unimplemented!() }
    /// `{status, version, sessions: {state: n}, …}`.
    pub async fn health(&self) -> Result<Value> { unimplemented!() }
    /// Prometheus text.
    pub async fn metrics(&self) -> Result<String> { unimplemented!() }
    /// What retention would remove (`dry_run`), or has removed.
    pub async fn prune(&self, dry_run: bool) -> Result<Vec<SessionId>> { unimplemented!() }
    /// A line per requirement: `{name, ok, detail, remedy}`.
    pub async fn doctor(&self) -> Result<Vec<Value>> { unimplemented!() }
    pub async fn check(&self) -> Result<Vec<String>> { unimplemented!() }
    pub async fn backup(&self, path: &std::path::Path) -> Result<()> { unimplemented!() }
    /// claude executables: `{path, version, source: configured|path|home|cache, used}`.
    pub async fn claude_versions(&self) -> Result<Vec<Value>> { unimplemented!() }
    /// Installs one into the cache, with progress lines.
    pub async fn claude_install(&self, version: Option<&str>, progress: tokio::sync::mpsc::Sender<String>) -> Result<Value> { unimplemented!() }
    pub async fn claude_remove(&self, version: &str) -> Result<()> { unimplemented!() }
}
