//! What must hold for a commit: looked at in its own script, and explained when it does not. Refuses to write.

use super::Current;
use crate::commit::Guard;
use crate::error::{CommitError, StoreError};
use crate::sqlite::columns::{Spelled, damaged, narrow};
use crate::sqlite::script::Script;
use castra_proto::api::MessageState;
use castra_proto::{CommandId, MessageId, SessionId};
use sqlx::sqlite::SqliteConnection;

/// What a statement that broke a constraint means.
#[derive(Debug)]
pub(super) enum Check {
    /// The idempotency key or the message is there already: looked up by whoever asks.
    Known,
    NameFree(String),
    UndeliveredBelow(u32),
    /// Of this kind and subject there is a command.
    Undecided {
        kind: String,
        subject: String,
    },
    NoCommand(CommandId),
    /// It is not there, or not in a state that was expected.
    Message(MessageId),
    NoRun(u32),
}

pub(super) fn guard(
    script: &mut Script<Check>,
    session: SessionId,
    current: &Current,
    guard: &Guard,
) -> Result<(), CommitError> {
    match guard {
        Guard::NameFree(name) => {
            script
                .say(
                    "INSERT INTO must SELECT NULL WHERE EXISTS (SELECT 1 FROM sessions WHERE name = ? AND id <> ?
                     AND removed_at IS NULL AND state NOT IN ('ended', 'lost'))",
                )
                .bind(name.clone())
                .bind(session.spelled())
                .or(Check::NameFree(name.clone()));
        }
        Guard::UndeliveredBelow(limit) => {
            script
                .say(
                    "INSERT INTO must SELECT NULL WHERE (SELECT count(*) FROM messages
                     WHERE session_no = ? AND state IN ('queued', 'written')) >= ?",
                )
                .bind(current.no)
                .bind(i64::from(*limit))
                .or(Check::UndeliveredBelow(*limit));
        }
        Guard::NewestRun { n, is_final } => {
            if current.newest_run != *n || current.state.is_final() != *is_final {
                return Err(CommitError::RunConflict { newest: current.newest_run, state: current.state });
            }
        }
        Guard::HeadIs(head) if current.head == *head => {}
        Guard::HeadIs(_) => return Err(CommitError::HeadMoved(current.head)),
    }
    Ok(())
}

impl Check {
    /// The refusal that it stands for; `error` itself where what was wrong is not to be found any more.
    pub(super) async fn explain(
        self,
        conn: &mut SqliteConnection,
        session: SessionId,
        error: StoreError,
    ) -> Result<CommitError, StoreError> {
        let found = match self {
            Self::Known => None,
            Self::NoCommand(id) => Some(CommitError::NoCommand(id)),
            Self::NoRun(n) => Some(CommitError::NoRun(n)),
            Self::NameFree(name) => name_taken(conn, session, name).await?,
            Self::UndeliveredBelow(limit) => Some(queue_full(conn, session, limit).await?),
            Self::Undecided { kind, subject } => decided(conn, session, kind, subject).await?,
            Self::Message(id) => Some(message(conn, session, id).await?),
        };
        Ok(found.unwrap_or(CommitError::Store(error)))
    }
}

async fn name_taken(
    conn: &mut SqliteConnection,
    session: SessionId,
    name: String,
) -> Result<Option<CommitError>, StoreError> {
    let by: Option<String> = sqlx::query_scalar(
        "SELECT id FROM sessions
         WHERE name = $1 AND id <> $2 AND removed_at IS NULL AND state NOT IN ('ended', 'lost') LIMIT 1",
    )
    .bind(&name)
    .bind(session.spelled())
    .fetch_optional(conn)
    .await?;
    by.map(|by| {
        let by = by.parse().map_err(|_| damaged("sessions", "id", &by))?;
        Ok(CommitError::NameTaken { name, by })
    })
    .transpose()
}

async fn queue_full(
    conn: &mut SqliteConnection,
    session: SessionId,
    limit: u32,
) -> Result<CommitError, StoreError> {
    let waiting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sessions s JOIN messages m ON m.session_no = s.no
         WHERE s.id = $1 AND m.state IN ('queued', 'written')",
    )
    .bind(session.spelled())
    .fetch_one(conn)
    .await?;
    Ok(CommitError::QueueFull { waiting: narrow(waiting), limit })
}

async fn decided(
    conn: &mut SqliteConnection,
    session: SessionId,
    kind: String,
    subject: String,
) -> Result<Option<CommitError>, StoreError> {
    let first: Option<(String, String)> = sqlx::query_as(
        "SELECT c.id, c.given_by FROM sessions s JOIN commands c ON c.session_no = s.no
         WHERE s.id = $1 AND c.kind = $2 AND c.subject = $3 AND c.state <> 'superseded'",
    )
    .bind(session.spelled())
    .bind(kind)
    .bind(&subject)
    .fetch_optional(conn)
    .await?;
    first
        .map(|(id, by)| {
            let command = id.parse().map_err(|_| damaged("commands", "id", &id))?;
            Ok(CommitError::CommandConflict { subject, command, by })
        })
        .transpose()
}

async fn message(
    conn: &mut SqliteConnection,
    session: SessionId,
    id: MessageId,
) -> Result<CommitError, StoreError> {
    let held: Option<String> = sqlx::query_scalar(
        "SELECT m.state FROM sessions s JOIN messages m ON m.session_no = s.no WHERE s.id = $1 AND m.id = $2",
    )
    .bind(session.spelled())
    .bind(id.spelled())
    .fetch_optional(conn)
    .await?;
    let Some(held) = held else { return Ok(CommitError::NoMessage(id)) };
    let state = MessageState::parse(&held).ok_or_else(|| damaged("messages", "state", &held))?;
    Ok(CommitError::MessageConflict { id, state })
}
