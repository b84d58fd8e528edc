//! What must hold for a commit. Refuses to write.

use super::Current;
use crate::commit::Guard;
use crate::error::CommitError;
use crate::sqlite::columns::{Spelled, damaged, narrow};
use castra_proto::SessionId;
use sqlx::sqlite::SqliteConnection;

pub(super) async fn check(
    conn: &mut SqliteConnection,
    session: SessionId,
    current: &Current,
    guard: &Guard,
) -> Result<(), CommitError> {
    match guard {
        Guard::NameFree(name) => name_free(conn, session, name).await,
        Guard::UndeliveredBelow(limit) => {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM messages WHERE session_no = $1 AND state IN ('queued', 'written')",
            )
            .bind(current.no)
            .fetch_one(conn)
            .await?;
            let waiting = narrow(waiting);
            if waiting < *limit { Ok(()) } else { Err(CommitError::QueueFull { waiting, limit: *limit }) }
        }
        Guard::NewestRun { n, is_final } => {
            if current.newest_run == *n && current.state.is_final() == *is_final {
                Ok(())
            } else {
                Err(CommitError::RunConflict { newest: current.newest_run, state: current.state })
            }
        }
        Guard::HeadIs(head) if current.head == *head => Ok(()),
        Guard::HeadIs(_) => Err(CommitError::HeadMoved(current.head)),
    }
}

async fn name_free(conn: &mut SqliteConnection, session: SessionId, name: &str) -> Result<(), CommitError> {
    let by: Option<String> = sqlx::query_scalar(
        "SELECT id FROM sessions
         WHERE name = $1 AND id <> $2 AND removed_at IS NULL AND state NOT IN ('ended', 'lost') LIMIT 1",
    )
    .bind(name)
    .bind(session.spelled())
    .fetch_optional(conn)
    .await?;
    let Some(by) = by else { return Ok(()) };
    let by = by.parse().map_err(|_| CommitError::Store(damaged("sessions", "id", &by)))?;
    Err(CommitError::NameTaken { name: name.to_owned(), by })
}

/// That nothing has decided this subject yet.
pub(super) async fn undecided(
    conn: &mut SqliteConnection,
    current: &Current,
    kind: &str,
    subject: &str,
) -> Result<(), CommitError> {
    let first: Option<(String, String)> = sqlx::query_as(
        "SELECT id, given_by FROM commands
         WHERE session_no = $1 AND kind = $2 AND subject = $3 AND state <> 'superseded'",
    )
    .bind(current.no)
    .bind(kind)
    .bind(subject)
    .fetch_optional(conn)
    .await?;
    let Some((id, by)) = first else { return Ok(()) };
    let command = id.parse().map_err(|_| CommitError::Store(damaged("commands", "id", &id)))?;
    Err(CommitError::CommandConflict { subject: subject.to_owned(), command, by })
}
