//! Epochs, tokens, and deleting what is over: rare writes, each a transaction of its own. Refuses to choose
//! what may go.

use super::columns::{Columns, Spelled, scope, unsigned};
use super::{Sqlite, Writer};
use crate::commit::NewToken;
use crate::error::StoreError;
use crate::rows::{Counts, TokenRow};
use castra_proto::{RunState, Timestamp, TokenId};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// What hangs on a session, apart from events and bodies; the session itself is the last.
const OF_SESSION: [&str; 7] = [
    "DELETE FROM messages WHERE session_no = $1",
    "DELETE FROM commands WHERE session_no = $1",
    "DELETE FROM runs WHERE session_no = $1",
    "DELETE FROM claude_sessions WHERE session_no = $1",
    "DELETE FROM specs WHERE session_no = $1",
    "DELETE FROM views WHERE session_no = $1",
    "DELETE FROM sessions WHERE no = $1",
];

impl Sqlite {
    pub(crate) async fn take_epoch(&self, host: &str, owner: &str, at: Timestamp) -> Result<u64, StoreError> {
        let (host, owner) = (host.to_owned(), owner.to_owned());
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    // Of the clock, so that whoever starts on a restored database outranks all that came before.
                    let epoch: i64 = sqlx::query_scalar(
                        "INSERT INTO hosts (name, owner, epoch, updated_at) VALUES ($1, $2, max(1, $3), $3)
                         ON CONFLICT (name) DO UPDATE SET epoch = max(epoch + 1, excluded.epoch), owner = excluded.owner,
                         updated_at = excluded.updated_at RETURNING epoch",
                    )
                    .bind(host)
                    .bind(owner)
                    .bind(at.0)
                    .fetch_one(&mut writer.conn)
                    .await?;
                    Ok(unsigned(epoch))
                })
            })
            .await
    }

    pub(crate) async fn create_token(&self, token: NewToken) -> Result<(), StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO tokens (id, name, scope, session, secret_hash, created_at, expires_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    )
                    .bind(token.id.spelled())
                    .bind(token.name)
                    .bind(token.scope.as_str())
                    .bind(token.session.map(|id| id.spelled()))
                    .bind(&token.secret_hash[..])
                    .bind(token.created_at.0)
                    .bind(token.expires_at.map(|at| at.0))
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    pub(crate) async fn delete_token(&self, id: TokenId) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let done = sqlx::query("DELETE FROM tokens WHERE id = $1")
                        .bind(id.spelled())
                        .execute(&mut writer.conn)
                        .await?;
                    writer.cache.forget_token(id);
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    pub(crate) async fn token_by_hash(&self, secret_hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let ticket = match self.cache.token(secret_hash) {
            Ok(row) => return Ok(Some(row)),
            Err(ticket) => ticket,
        };
        let row = sqlx::query("SELECT * FROM tokens WHERE secret_hash = $1")
            .bind(&secret_hash[..])
            .fetch_optional(&self.readers)
            .await?;
        let row = row.as_ref().map(token).transpose()?;
        if let Some(row) = &row {
            self.cache.bring_token(*secret_hash, ticket, row);
        }
        Ok(row)
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM tokens ORDER BY created_at, id").fetch_all(&self.readers).await?;
        rows.iter().map(token).collect()
    }

    pub(crate) async fn counts(&self) -> Result<Counts, StoreError> {
        let mut tx = self.readers.begin().await?;
        let states: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM sessions WHERE removed_at IS NULL GROUP BY state")
                .fetch_all(&mut *tx)
                .await?;
        let (events, undelivered, open, bytes): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT coalesce(sum(head), 0) FROM sessions WHERE removed_at IS NULL),
             (SELECT count(*) FROM messages JOIN sessions ON no = session_no
              WHERE messages.state IN ('queued', 'written') AND removed_at IS NULL),
             (SELECT count(*) FROM commands JOIN sessions ON sessions.no = session_no
              WHERE commands.state IN ('accepted', 'written') AND removed_at IS NULL),
             (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)",
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.rollback().await?;
        let count = |state: RunState| {
            states.iter().find(|(name, _)| name == state.as_str()).map_or(0, |(_, count)| unsigned(*count))
        };
        Ok(Counts {
            sessions: RunState::ALL.into_iter().map(|state| (state, count(state))).collect(),
            events: unsigned(events),
            undelivered_messages: unsigned(undelivered),
            open_commands: unsigned(open),
            database_bytes: unsigned(bytes),
        })
    }

    pub(crate) async fn purge(&self, max_rows: u32) -> Result<u64, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| Box::pin(purge_one(&mut writer.conn, i64::from(max_rows.max(1)))))
            .await
    }

    pub(crate) async fn forget_before(&self, at: Timestamp, keep: u32) -> Result<u64, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| Box::pin(forget(&mut writer.conn, at, i64::from(keep))))
            .await
    }
}

/// A slice of one removed session's events, or, when it has none, the rest of it.
async fn purge_one(conn: &mut SqliteConnection, max_rows: i64) -> Result<u64, StoreError> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    let no: Option<i64> =
        sqlx::query_scalar("SELECT no FROM sessions WHERE removed_at IS NOT NULL ORDER BY no LIMIT 1")
            .fetch_optional(&mut *tx)
            .await?;
    let Some(no) = no else { return Ok(0) };
    let oldest: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM events WHERE session_no = $1")
        .bind(no)
        .fetch_one(&mut *tx)
        .await?;
    let mut deleted = 0;
    if let Some(oldest) = oldest {
        for sql in [
            "DELETE FROM bodies WHERE session_no = $1 AND seq < $2",
            "DELETE FROM events WHERE session_no = $1 AND seq < $2",
        ] {
            let done =
                sqlx::query(sql).bind(no).bind(oldest.saturating_add(max_rows)).execute(&mut *tx).await?;
            deleted += done.rows_affected();
        }
    } else {
        for sql in OF_SESSION {
            deleted += sqlx::query(sql).bind(no).execute(&mut *tx).await?.rows_affected();
        }
    }
    tx.commit().await?;
    Ok(deleted)
}

async fn forget(conn: &mut SqliteConnection, at: Timestamp, keep: i64) -> Result<u64, StoreError> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    let keys =
        sqlx::query("DELETE FROM idempotency WHERE created_at < $1").bind(at.0).execute(&mut *tx).await?;
    let tokens = sqlx::query("DELETE FROM tokens WHERE expires_at < $1").bind(at.0).execute(&mut *tx).await?;
    let events = sqlx::query(
        "DELETE FROM server_events WHERE at < $1 AND seq <= (SELECT max(seq) FROM server_events) - $2",
    )
    .bind(at.0)
    .bind(keep)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(keys.rows_affected() + tokens.rows_affected() + events.rows_affected())
}

fn token(row: &SqliteRow) -> Result<TokenRow, StoreError> {
    let row = Columns::of("tokens", row);
    let expires_at: Option<i64> = row.get("expires_at")?;
    Ok(TokenRow {
        id: row.parse("id")?,
        name: row.get("name")?,
        scope: row.named("scope", scope)?,
        session: row.parse_opt("session")?,
        created_at: row.at("created_at")?,
        expires_at: expires_at.map(Timestamp),
    })
}
