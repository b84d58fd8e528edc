//! What can go wrong, as facts. Texts for people, codes and statuses are chosen in `Error::problem`.

use crate::host::{ConnError, HostError, LogReadError, NotPacked};
use castra_claude::launch::Refusal;
use castra_proto::api::TurnResult;
use castra_proto::shim::relay::RelayError;
use castra_proto::{ErrorCode, Problem, RunState};
use castra_store::{CommitError, StoreError, TaskError, TeamError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Already in the words of the API; the usual way for a rule to refuse.
    #[error("{0}")]
    Refused(Problem),
    #[error(transparent)]
    Launch(#[from] Refusal),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Team(#[from] TeamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Host(#[from] HostError),
    /// Damage in the middle of a record log: reported, never skipped.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// A log that is over stays as it was written.
    #[error(transparent)]
    Pack(#[from] NotPacked),
    /// A turn ended without success: its result, with claude's own words.
    #[error("{}", turn_problem(.0))]
    Turn(Box<TurnResult>),
}

impl From<ConnError> for Error {
    fn from(error: ConnError) -> Self {
        Self::Host(error.into())
    }
}

impl Error {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused(Problem::new(code, detail))
    }

    pub fn with_hint(code: ErrorCode, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused(Problem::new(code, detail).hint(hint))
    }

    pub(crate) fn session_not_found(reference: &str) -> Self {
        Self::with_hint(
            ErrorCode::SessionNotFound,
            format!("there is no session {reference:?}"),
            "`castra ps -a` lists all sessions",
        )
    }

    /// A session whose newest run is over cannot do this.
    pub(crate) fn over(state: RunState) -> Self {
        let (code, what) = match state {
            RunState::Lost => (ErrorCode::SessionLost, "was lost"),
            _ => (ErrorCode::SessionEnded, "has ended"),
        };
        Self::with_hint(code, format!("the session's run {what}"), "`castra resume ID` continues it")
    }

    /// The public message, with code and next step. Never holds a secret.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Launch(refusal) => launch_problem(&refusal.to_string()),
            Self::Commit(error) => commit_problem(error),
            Self::Task(error) => task_problem(error),
            Self::Team(error) => team_problem(error),
            Self::Store(error) => store_problem(error),
            Self::Host(error) => host_problem(error),
            Self::Log(LogReadError::Host(error)) => host_problem(error),
            Self::Log(error) => Problem::new(ErrorCode::Internal, error.to_string()),
            Self::Pack(error) => Problem::new(ErrorCode::Internal, error.to_string()),
            Self::Turn(result) => turn_problem(result),
        }
    }
}

/// A refusal says what is wrong, and behind its last semicolon what to do.
fn launch_problem(text: &str) -> Problem {
    match text.rsplit_once("; ") {
        Some((detail, hint)) => Problem::new(ErrorCode::InvalidRequest, detail).hint(hint),
        None => Problem::new(ErrorCode::InvalidRequest, text),
    }
}

/// `turn_failed` where claude gave no reason that has a code of its own.
fn turn_problem(result: &TurnResult) -> Problem {
    let said = || match result.text.is_empty() {
        true => format!("the turn ended with {}", result.subtype),
        false => result.text.clone(),
    };
    result.error.clone().unwrap_or_else(|| Problem::new(ErrorCode::TurnFailed, said()))
}

fn commit_problem(error: &CommitError) -> Problem {
    let text = error.to_string();
    match error {
        CommitError::NoSession(_) => Problem::new(ErrorCode::SessionNotFound, text),
        CommitError::NameTaken { .. } => {
            Problem::new(ErrorCode::Conflict, text).hint("choose another name, or remove that session")
        }
        CommitError::QueueFull { .. } => {
            Problem::new(ErrorCode::Overloaded, text).hint("wait for a turn to end, or withdraw a message")
        }
        CommitError::RunConflict { .. } => {
            Problem::new(ErrorCode::Conflict, text).hint("somebody else was first; `castra show ID`")
        }
        CommitError::CommandConflict { .. } => Problem::new(ErrorCode::PermissionGone, text),
        CommitError::IdempotencyMismatch => Problem::new(ErrorCode::IdempotencyMismatch, text)
            .hint("use a new Idempotency-Key for a new request"),
        CommitError::SessionExists(_)
        | CommitError::MessageConflict { .. }
        | CommitError::Fenced { .. }
        | CommitError::HeadMoved(_) => Problem::new(ErrorCode::Conflict, text),
        CommitError::NoMessage(_) | CommitError::NoCommand(_) | CommitError::NoRun(_) => {
            Problem::new(ErrorCode::NotFound, text)
        }
        CommitError::Malformed(_) => Problem::new(ErrorCode::Internal, text),
        CommitError::Store(error) => store_problem(error),
    }
}

fn task_problem(error: &TaskError) -> Problem {
    let text = error.to_string();
    match error {
        TaskError::NoTask(_) => Problem::new(ErrorCode::NotFound, text),
        TaskError::NameTaken { .. } => {
            Problem::new(ErrorCode::Conflict, text).hint("choose another name, or cancel that task")
        }
        TaskError::Mismatch => Problem::new(ErrorCode::IdempotencyMismatch, text)
            .hint("use a new Idempotency-Key for a new request"),
        TaskError::Moved(_) => Problem::new(ErrorCode::Conflict, text).hint("try again"),
        TaskError::ParentIdle(_) => {
            Problem::new(ErrorCode::Conflict, text).hint("make it while that task runs, or without `parent`; `castra task resume` has that task go on with what is below it")
        }
        TaskError::Store(error) => store_problem(error),
    }
}

fn team_problem(error: &TeamError) -> Problem {
    let text = error.to_string();
    match error {
        TeamError::NoTeam(_) => Problem::new(ErrorCode::NotFound, text),
        TeamError::NameTaken { .. } => Problem::new(ErrorCode::Conflict, text)
            .hint("it is there to be asked; choose another name, or `castra team rm` it first"),
        TeamError::Mismatch => Problem::new(ErrorCode::IdempotencyMismatch, text)
            .hint("use a new Idempotency-Key for a new request"),
        TeamError::Moved(_) => Problem::new(ErrorCode::Conflict, text).hint("try again"),
        TeamError::Store(error) => store_problem(error),
    }
}

fn store_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::DiskFull => Problem::new(ErrorCode::DiskFull, "the disk of CASTRA_HOME is full")
            .hint("make room; sessions go on by themselves"),
        StoreError::Closed => Problem::new(ErrorCode::ShuttingDown, "the daemon is about to end")
            .hint("ask again when it is back"),
        StoreError::KeyMissing { .. } | StoreError::KeyWrong { .. } => {
            Problem::new(ErrorCode::Internal, error.to_string())
                .hint("put back the `key` file that belongs to this castra.db")
        }
        _ => Problem::new(ErrorCode::Internal, error.to_string()),
    }
}

fn host_problem(error: &HostError) -> Problem {
    let text = error.to_string();
    match error {
        HostError::Relay(RelayError::Start { start }) => {
            Problem::new(ErrorCode::CliStartFailed, start.to_string())
        }
        HostError::Relay(RelayError::Outside { .. } | RelayError::BadPath { .. }) => {
            Problem::new(ErrorCode::InvalidRequest, text)
                .hint("name a path inside the session's work/, without `..` and without links")
        }
        HostError::Relay(relay) => match relay.errno() {
            Some(2) => Problem::new(ErrorCode::NotFound, text),
            // EISDIR, EINVAL, ENXIO, ENOTDIR: a folder, a FIFO, a device or a link where a file was to be, or the
            // other way round. ENAMETOOLONG, EACCES: nothing that castra could mend either.
            Some(6 | 13 | 20 | 21 | 22 | 36) => Problem::new(ErrorCode::InvalidRequest, text)
                .hint("only regular files and folders are read and written, and no links are followed"),
            Some(28) => Problem::new(ErrorCode::DiskFull, text),
            _ => Problem::new(ErrorCode::Internal, text),
        },
        HostError::Unreachable(_) => Problem::new(ErrorCode::HostUnreachable, text),
        HostError::Conn(_) => Problem::new(ErrorCode::Internal, text),
    }
}
