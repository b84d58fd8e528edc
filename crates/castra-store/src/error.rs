//! Why the store refused or failed. Refuses advice beyond facts: hints are chosen at the edge.

use castra_proto::api::MessageState;
use castra_proto::{CommandId, MessageId, RunState, SessionId, TaskId, TeamId};
use std::path::PathBuf;

/// The store itself failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("this build has SQLite {found}, and castra needs {needed} or later")]
    SqliteTooOld { found: String, needed: &'static str },
    /// Next step: use the newer castra again, or restore a backup that this one has made.
    #[error("{path} has schema {found} and this castra knows {known}: it was written by a newer castra")]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{path}: the schema cannot be brought up to date: {source}")]
    Migration { path: PathBuf, source: sqlx::migrate::MigrateError },
    /// Next step: put back the file that belongs to this database.
    #[error("{path} is missing, and the database has secrets that were encrypted with it")]
    KeyMissing { path: PathBuf },
    #[error("{path} is not the key that this database's secrets were encrypted with")]
    KeyWrong { path: PathBuf },
    #[error("{path} is not a key: it has {found} bytes instead of 32")]
    KeyMalformed { path: PathBuf, found: usize },
    #[error("the secrets of {session} cannot be decrypted: they were changed outside castra")]
    SecretsDamaged { session: SessionId },
    #[error("the secrets of task {task} cannot be decrypted: they were changed outside castra")]
    TaskSecretsDamaged { task: TaskId },
    #[error("the secrets of team {team} cannot be decrypted: they were changed outside castra")]
    TeamSecretsDamaged { team: TeamId },
    #[error("{place} of {name:?} cannot be decrypted: they were changed outside castra")]
    NamedSecretsDamaged { place: &'static str, name: String },
    #[error("{path} was changed outside castra")]
    BlobDamaged { path: PathBuf },
    #[error("the secrets are too large to be encrypted")]
    SecretsTooLarge,
    #[error("no random numbers from the operating system")]
    Random,
    #[error("the disk is full")]
    DiskFull,
    #[error("{path} is not empty")]
    BackupExists { path: PathBuf },
    /// A row holds what no castra has written.
    #[error("{table}.{column} holds {value:?}")]
    Damaged { table: &'static str, column: &'static str, value: String },
    #[error("the store is closed")]
    Closed,
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        /// <https://www.sqlite.org/rescode.html#full>
        const SQLITE_FULL: &str = "13";
        match &error {
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Self::Closed,
            sqlx::Error::Database(database) if database.code().as_deref() == Some(SQLITE_FULL) => {
                Self::DiskFull
            }
            _ => Self::Database(error),
        }
    }
}

/// A commit was refused, and nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("no session {0}")]
    NoSession(SessionId),
    #[error("session {0} exists already")]
    SessionExists(SessionId),
    #[error("session {session} is at epoch {held}, and this came from epoch {offered}")]
    Fenced { session: SessionId, held: u64, offered: u64 },
    #[error("session {by} bears the name {name:?}")]
    NameTaken { name: String, by: SessionId },
    #[error("{waiting} messages are waiting, and at most {limit} may")]
    QueueFull { waiting: u32, limit: u32 },
    /// The run that was to be replaced is not the newest one, or is not in the state that was expected.
    #[error("run {newest} is the newest one, and is {state}")]
    RunConflict { newest: u32, state: RunState },
    #[error("event {0} is the newest one")]
    HeadMoved(u64),
    #[error("{subject:?} was decided by {by:?} already")]
    CommandConflict { subject: String, command: CommandId, by: String },
    #[error("message {id} is {state:?}")]
    MessageConflict { id: MessageId, state: MessageState },
    #[error("this idempotency key was used for another request")]
    IdempotencyMismatch,
    #[error("no run {0}")]
    NoRun(u32),
    #[error("no message {0}")]
    NoMessage(MessageId),
    #[error("no command {0}")]
    NoCommand(CommandId),
    /// A caller's mistake: a change that does not fit the commit it is in.
    #[error("{0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A task's commit was refused, and nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("no task {0}")]
    NoTask(TaskId),
    #[error("task {by} bears the name {name:?}")]
    NameTaken { name: String, by: TaskId },
    #[error("this idempotency key was used for another request")]
    Mismatch,
    /// Somebody else was faster: read again, and decide again.
    #[error("event {0} is the newest one")]
    Moved(u64),
    /// Nothing is made for a task that is over or has not begun.
    #[error("task {0}, which it belongs to, is not at work")]
    ParentIdle(TaskId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A team's commit was refused, and nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    #[error("no team {0}")]
    NoTeam(TeamId),
    #[error("team {by} bears the name {name:?}")]
    NameTaken { name: String, by: TeamId },
    #[error("this idempotency key was used for another request")]
    Mismatch,
    /// Somebody else was faster: read again, and decide again.
    #[error("commit {0} is the newest one")]
    Moved(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}
