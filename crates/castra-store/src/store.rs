//! The one handle to the store, over whichever backend. Refuses SQL: each backend has its own.

use crate::commit::{Commit, Committed, NewToken, Observer};
use crate::error::{CommitError, StoreError, TaskError, TeamError};
use crate::rows::{
    CommandRow, Counts, Cursor, EndedSession, Found, IdempotencyRow, Listing, LiveSession, MessageRow,
    RunRow, SessionFilter, SessionRow, SessionSize, StoredEvent, TokenRow,
};
use crate::sqlite::Sqlite;
use crate::task::{FoundTask, HookPlace, StoredTaskEvent, TaskCommit, TaskCommitted, TaskFilter, TaskRow};
use crate::team::{FoundTeam, TeamCommit, TeamCommitted, TeamRow};
use bytes::Bytes;
use castra_proto::api::{MessageState, ServerEvent};
use castra_proto::task::Deliverable;
use castra_proto::{CommandId, MessageId, RunId, SessionId, TaskId, TeamId, Timestamp, TokenId};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Told of every commit, in order.
    pub on_commit: Option<Observer>,
}

/// The store. Cheap to clone; the last clone to go ends the writer once its queue is empty.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
}

/// One variant per database, each a file of its own with its own SQL (facts/dependencies.md, trap 4).
#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Arc<Sqlite>),
}

macro_rules! on_backend {
    ($self:ident, $db:ident => $call:expr) => {
        match &$self.backend {
            Backend::Sqlite($db) => $call,
        }
    };
}

mod plans;

impl Store {
    /// Opens `castra.db` and `key` in this folder, which must exist; creates both, readable by nobody else,
    /// when they are missing. Whether another daemon uses the folder is for the caller to find out.
    pub async fn open(home: &Path, options: Options) -> Result<Self, StoreError> {
        let db = Sqlite::open(home, options).await?;
        Ok(Self { backend: Backend::Sqlite(Arc::new(db)) })
    }

    /// Waits until everything that was queued is on disk, and closes the database. Later calls are `Closed`.
    pub async fn close(&self) {
        on_backend!(self, db => db.close().await)
    }

    /// Names this database's sequences in cursors. A restored backup has another one.
    pub fn stream_id(&self) -> Uuid {
        on_backend!(self, db => db.stream_id())
    }

    /// What cursors of this stream bear, so that those of the stream that this database was copied from are told
    /// apart; None in a database that was never a backup.
    pub fn mark(&self) -> Option<String> {
        on_backend!(self, db => db.mark())
    }

    /// The newest event of a session, or of the server, that this stream shares with the one it was copied from.
    pub fn shared_until(&self, session: Option<SessionId>) -> u64 {
        on_backend!(self, db => db.shared_until(session))
    }

    /// One transaction: all of it is on disk when this returns `Ok`, none of it is there on `Err`, except
    /// that after `Store(_)` from a failing disk it may turn up when the database is opened again.
    /// Waits while the queue is full. When the caller goes away, a queued commit still happens.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        on_backend!(self, db => db.commit(commit).await)
    }

    /// The next epoch of a host, for its new owner.
    pub async fn take_epoch(&self, host: &str, owner: &str, at: Timestamp) -> Result<u64, StoreError> {
        on_backend!(self, db => db.take_epoch(host, owner, at).await)
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        on_backend!(self, db => db.session(id).await)
    }

    /// The secrets of a session's spec, decrypted; None when it has none or does not exist.
    pub async fn secrets(&self, id: SessionId) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.secrets(id).await)
    }

    /// By full id, by name, or by a prefix of at least four characters of the id, in this order. Of several
    /// that bear a name, the one that is not over wins, else the newest.
    pub async fn find(&self, prefix_or_name: &str) -> Result<Found, StoreError> {
        on_backend!(self, db => db.find(prefix_or_name).await)
    }

    /// Newest first.
    pub async fn sessions(
        &self,
        filter: &SessionFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Listing<SessionRow>, StoreError> {
        on_backend!(self, db => db.sessions(filter, after, limit).await)
    }

    /// All sessions that are not over, oldest first.
    pub async fn live_sessions(&self) -> Result<Vec<LiveSession>, StoreError> {
        on_backend!(self, db => db.live_sessions().await)
    }

    /// The session that had this claude session id; the newest, when several had it.
    pub async fn claude_session(&self, claude: Uuid) -> Result<Option<SessionId>, StoreError> {
        on_backend!(self, db => db.claude_session(claude).await)
    }

    /// The session that was created last with this working directory.
    pub async fn newest_session_of_workdir(&self, cwd: &str) -> Result<Option<SessionId>, StoreError> {
        on_backend!(self, db => db.newest_session_of_workdir(cwd).await)
    }

    /// Oldest first.
    pub async fn runs(&self, session: SessionId) -> Result<Vec<RunRow>, StoreError> {
        on_backend!(self, db => db.runs(session).await)
    }

    pub async fn run(&self, session: SessionId, n: u32) -> Result<Option<RunRow>, StoreError> {
        on_backend!(self, db => db.run(session, n).await)
    }

    /// The session and the number of a run.
    pub async fn run_by_id(&self, run: RunId) -> Result<Option<(SessionId, u32)>, StoreError> {
        on_backend!(self, db => db.run_by_id(run).await)
    }

    /// The newest event's number; None: no such session.
    pub async fn head(&self, session: SessionId) -> Result<Option<u64>, StoreError> {
        on_backend!(self, db => db.head(session).await)
    }

    /// Events with `seq > after`, at most `limit` of them; ends before `data` and `raw` exceed `max_bytes`,
    /// but has at least one when there is one.
    pub async fn events(
        &self,
        session: SessionId,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        on_backend!(self, db => db.events(session, after, limit, max_bytes).await)
    }

    pub async fn event(&self, session: SessionId, seq: u64) -> Result<Option<StoredEvent>, StoreError> {
        on_backend!(self, db => db.event(session, seq).await)
    }

    /// In the order of acceptance; no states: all.
    pub async fn messages(
        &self,
        session: SessionId,
        states: &[MessageState],
    ) -> Result<Vec<MessageRow>, StoreError> {
        on_backend!(self, db => db.messages(session, states).await)
    }

    pub async fn message(&self, session: SessionId, id: MessageId) -> Result<Option<MessageRow>, StoreError> {
        on_backend!(self, db => db.message(session, id).await)
    }

    /// Those that are `accepted` or `written`, in the order of acceptance.
    pub async fn open_commands(&self, session: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        on_backend!(self, db => db.open_commands(session).await)
    }

    pub async fn command(&self, id: CommandId) -> Result<Option<CommandRow>, StoreError> {
        on_backend!(self, db => db.command(id).await)
    }

    /// The server-wide sequence: entries with `seq > after`.
    pub async fn server_events(&self, after: u64, limit: u32) -> Result<Vec<ServerEvent>, StoreError> {
        on_backend!(self, db => db.server_events(after, limit).await)
    }

    /// The newest entry's number of the server-wide sequence, and the oldest that is still there.
    pub async fn server_head(&self) -> Result<(u64, u64), StoreError> {
        on_backend!(self, db => db.server_head().await)
    }

    pub async fn idempotency(&self, scope: &str, key: &str) -> Result<Option<IdempotencyRow>, StoreError> {
        on_backend!(self, db => db.idempotency(scope, key).await)
    }

    /// One transaction: all of it is on disk when this returns `Ok`, none of it is there on `Err`.
    pub async fn commit_task(&self, commit: TaskCommit) -> Result<TaskCommitted, TaskError> {
        on_backend!(self, db => db.commit_task(commit).await)
    }

    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        on_backend!(self, db => db.task(id).await)
    }

    /// The secrets of a task's spec, decrypted; None when it has none or does not exist.
    pub async fn task_secrets(&self, id: TaskId) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.task_secrets(id).await)
    }

    /// By full id, by name, or by a prefix of at least four characters of the id, as with sessions.
    pub async fn find_task(&self, prefix_or_name: &str) -> Result<FoundTask, StoreError> {
        on_backend!(self, db => db.find_task(prefix_or_name).await)
    }

    /// Newest first.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Listing<TaskRow>, StoreError> {
        on_backend!(self, db => db.tasks(filter, after, limit).await)
    }

    /// Tasks that are over, and that nobody wants to have any longer: ephemeral ones, and those whose time to live was
    /// over at `at`; at most `limit`, the oldest first.
    pub async fn outlived_tasks(&self, at: Timestamp, limit: u32) -> Result<Vec<TaskId>, StoreError> {
        on_backend!(self, db => db.outlived_tasks(at, limit).await)
    }

    /// All that were made for this task, in the order in which they were made.
    pub async fn child_tasks(&self, parent: TaskId) -> Result<Vec<TaskRow>, StoreError> {
        on_backend!(self, db => db.child_tasks(parent).await)
    }

    /// All tasks that are not over, in the order in which they leave the queue.
    pub async fn live_tasks(&self) -> Result<Vec<TaskRow>, StoreError> {
        on_backend!(self, db => db.live_tasks().await)
    }

    /// What the queue chooses from, in the order in which it does: all that is at work, is part of another task or waits
    /// for one, and the first `plain` of the others.
    pub async fn queue(&self, plain: u32) -> Result<Vec<TaskRow>, StoreError> {
        on_backend!(self, db => db.queue(plain).await)
    }

    /// Whether a task in the queue waits for this one.
    pub async fn is_waited_for(&self, task: TaskId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.is_waited_for(task).await)
    }

    /// Events with `seq > after`, at most `limit` of them.
    pub async fn task_events(
        &self,
        task: TaskId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredTaskEvent>, StoreError> {
        on_backend!(self, db => db.task_events(task, after, limit).await)
    }

    /// All versions, by path.
    pub async fn deliverables(&self, task: TaskId) -> Result<Vec<Deliverable>, StoreError> {
        on_backend!(self, db => db.deliverables(task).await)
    }

    /// Keeps a content for this task, sealed, below `blobs/`; on disk when this returns, and there until the task is
    /// removed. Its SHA-256, in hexadecimal.
    pub async fn put_blob(&self, task: TaskId, bytes: Bytes) -> Result<String, StoreError> {
        on_backend!(self, db => db.put_blob(task, bytes).await)
    }

    /// A content that was kept for this task.
    pub async fn blob(&self, task: TaskId, sha256: &str) -> Result<Option<Bytes>, StoreError> {
        on_backend!(self, db => db.blob(task, sha256.to_owned()).await)
    }

    /// Removes contents that no task has, and what was half written when a daemon died. Before anything is kept.
    pub async fn sweep_blobs(&self) -> Result<(), StoreError> {
        on_backend!(self, db => db.sweep_blobs().await)
    }

    /// Hooks that have not been told of all events of their task, those to be tried first in front.
    pub async fn hooks_due(&self, limit: u32) -> Result<Vec<HookPlace>, StoreError> {
        on_backend!(self, db => db.hooks_due(limit).await)
    }

    /// Whether a hook of this task has still to be told of something.
    pub async fn hooks_open(&self, task: TaskId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.hooks_open(task).await)
    }

    /// A hook has been told, or is to be tried again. On disk when this returns.
    pub async fn place_hook(&self, place: HookPlace) -> Result<(), StoreError> {
        on_backend!(self, db => db.place_hook(place).await)
    }

    /// Removes tasks that are over, each with the head that this was decided from, with their events and contents: all
    /// of them, or none where one has changed, or is not over, or where another one is below them (`Moved`). Their
    /// sessions are the caller's to remove. The newest entry of the server-wide sequence.
    pub async fn remove_tasks(
        &self,
        tasks: Vec<(TaskId, u64)>,
        at: Timestamp,
    ) -> Result<Option<u64>, TaskError> {
        on_backend!(self, db => db.remove_tasks(tasks, at).await)
    }

    /// One transaction: all of it is on disk when this returns `Ok`, none of it is there on `Err`.
    pub async fn commit_team(&self, commit: TeamCommit) -> Result<TeamCommitted, TeamError> {
        on_backend!(self, db => db.commit_team(commit).await)
    }

    pub async fn team(&self, id: TeamId) -> Result<Option<TeamRow>, StoreError> {
        on_backend!(self, db => db.team(id).await)
    }

    /// The secrets of a team's specs, decrypted; None when it has none or does not exist.
    pub async fn team_secrets(&self, id: TeamId) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.team_secrets(id).await)
    }

    /// By full id, by name, or by a prefix of at least four characters of the id, as with sessions.
    pub async fn find_team(&self, prefix_or_name: &str) -> Result<FoundTeam, StoreError> {
        on_backend!(self, db => db.find_team(prefix_or_name).await)
    }

    /// Newest first.
    pub async fn teams(&self, after: Option<Cursor>, limit: u32) -> Result<Listing<TeamRow>, StoreError> {
        on_backend!(self, db => db.teams(after, limit).await)
    }

    /// Forgets a team; its sessions are the caller's to remove. Whether there was one.
    pub async fn remove_team(&self, id: TeamId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.remove_team(id).await)
    }

    /// The result of a session's messages that came last.
    pub async fn newest_result(&self, session: SessionId) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.newest_result(session).await)
    }

    /// Newest first, each with the place behind it, from which a later call goes on.
    pub async fn task_rows(
        &self,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<(Cursor, TaskRow)>, StoreError> {
        on_backend!(self, db => db.task_rows(filter, after, limit).await)
    }

    pub async fn create_token(&self, token: NewToken) -> Result<(), StoreError> {
        on_backend!(self, db => db.create_token(token).await)
    }

    /// Expired ones too: the store has no clock.
    pub async fn token_by_hash(&self, secret_hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        on_backend!(self, db => db.token_by_hash(secret_hash).await)
    }

    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        on_backend!(self, db => db.tokens().await)
    }

    /// Whether there was one.
    pub async fn delete_token(&self, id: TokenId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.delete_token(id).await)
    }

    /// Sessions that are over and have not changed since, oldest first.
    pub async fn ended_before(&self, at: Timestamp, limit: u32) -> Result<Vec<EndedSession>, StoreError> {
        on_backend!(self, db => db.ended_before(at, limit).await)
    }

    pub async fn size(&self, session: SessionId) -> Result<SessionSize, StoreError> {
        on_backend!(self, db => db.size(session).await)
    }

    pub async fn counts(&self) -> Result<Counts, StoreError> {
        on_backend!(self, db => db.counts().await)
    }

    /// Deletes up to about `max_rows` rows of removed sessions; call again until it is 0.
    pub async fn purge(&self, max_rows: u32) -> Result<u64, StoreError> {
        on_backend!(self, db => db.purge(max_rows).await)
    }

    /// Forgets idempotency keys and expired tokens from before this, and server-wide events too, of which
    /// at least the newest `keep` stay. Returns the number of rows.
    pub async fn forget_before(&self, at: Timestamp, keep: u32) -> Result<u64, StoreError> {
        on_backend!(self, db => db.forget_before(at, keep).await)
    }

    /// What is wrong in the database, one sentence each; empty when it is sound. Reads all of it.
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        on_backend!(self, db => db.check().await)
    }

    /// Writes a consistent copy to `path`, which must not exist; it is synced, 0600, and has a stream id of
    /// its own, so that cursors of this database do not work on it. The key is not in it.
    pub async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        on_backend!(self, db => db.backup(path).await)
    }
}
