//! Reads of what hangs on a session, except events: runs, messages, commands; and of the server-wide tables.
//! Refuses rows of removed sessions.

use super::Sqlite;
use super::columns::{Columns, Spelled, if_busy, json, narrow, priority, run_state, signed, unsigned};
use crate::error::StoreError;
use crate::rows::{CommandRow, CommandState, IdempotencyRow, MessageRow, RunRow};
use castra_proto::api::{MessageState, ServerEvent};
use castra_proto::{CommandId, MessageId, RunId, SessionId};
use sqlx::SqliteExecutor;
use sqlx::sqlite::SqliteRow;

impl Sqlite {
    pub(crate) async fn runs(&self, session: SessionId) -> Result<Vec<RunRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.* FROM sessions s JOIN runs r ON r.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL ORDER BY r.n",
        )
        .bind(session.spelled())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(run).collect()
    }

    pub(crate) async fn run(&self, session: SessionId, n: u32) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query(
            "SELECT r.* FROM sessions s JOIN runs r ON r.session_no = s.no
             WHERE s.id = $1 AND r.n = $2 AND s.removed_at IS NULL",
        )
        .bind(session.spelled())
        .bind(i64::from(n))
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(run).transpose()
    }

    pub(crate) async fn run_by_id(&self, run: RunId) -> Result<Option<(SessionId, u32)>, StoreError> {
        let row = sqlx::query(
            "SELECT s.id, r.n FROM runs r JOIN sessions s ON s.no = r.session_no
             WHERE r.id = $1 AND s.removed_at IS NULL",
        )
        .bind(run.spelled())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            let row = Columns::of("runs", &row);
            Ok((row.parse("id")?, row.small("n")?))
        })
        .transpose()
    }

    pub(crate) async fn messages(
        &self,
        session: SessionId,
        states: &[MessageState],
    ) -> Result<Vec<MessageRow>, StoreError> {
        use MessageState::{Queued, Written};
        let undelivered = !states.is_empty() && states.iter().all(|state| matches!(state, Queued | Written));
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let rows = sqlx::query(if undelivered {
            // As the index `messages_undelivered` says it: a long conversation is not read through for each message.
            "SELECT m.* FROM sessions s JOIN messages m ON m.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL AND m.state IN ('queued', 'written')
             AND m.state IN (SELECT value FROM json_each($2)) ORDER BY m.seq, m.id"
        } else {
            "SELECT m.* FROM sessions s JOIN messages m ON m.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL
             AND ($2 = '[]' OR m.state IN (SELECT value FROM json_each($2))) ORDER BY m.seq, m.id"
        })
        .bind(session.spelled())
        .bind(json(&states))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(message).collect()
    }

    pub(crate) async fn message(
        &self,
        session: SessionId,
        id: MessageId,
    ) -> Result<Option<MessageRow>, StoreError> {
        let row = sqlx::query(
            "SELECT m.* FROM sessions s JOIN messages m ON m.session_no = s.no
             WHERE s.id = $1 AND m.id = $2 AND s.removed_at IS NULL",
        )
        .bind(session.spelled())
        .bind(id.spelled())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(message).transpose()
    }

    pub(crate) async fn open_commands(&self, session: SessionId) -> Result<Vec<CommandRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.*, s.id AS session FROM sessions s JOIN commands c ON c.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL AND c.state IN ('accepted', 'written') ORDER BY c.no",
        )
        .bind(session.spelled())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(command).collect()
    }

    pub(crate) async fn command(&self, id: CommandId) -> Result<Option<CommandRow>, StoreError> {
        let row = sqlx::query(
            "SELECT c.*, s.id AS session FROM commands c JOIN sessions s ON s.no = c.session_no
             WHERE c.id = $1 AND s.removed_at IS NULL",
        )
        .bind(id.spelled())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(command).transpose()
    }

    pub(crate) async fn server_events(&self, after: u64, limit: u32) -> Result<Vec<ServerEvent>, StoreError> {
        let rows = sqlx::query("SELECT * FROM server_events WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(server_event).collect()
    }

    pub(crate) async fn server_head(&self) -> Result<(u64, u64), StoreError> {
        // What was given out last outlives the entries themselves.
        let (newest, oldest): (i64, Option<i64>) = sqlx::query_as(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'server_events'), 0),
             (SELECT min(seq) FROM server_events)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok((unsigned(newest), unsigned(oldest.unwrap_or(newest + 1))))
    }

    pub(crate) async fn idempotency(
        &self,
        scope: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRow>, StoreError> {
        idempotency(&self.readers, scope, key).await
    }
}

/// Also asked by the writer, inside its transaction.
pub(super) async fn idempotency(
    db: impl SqliteExecutor<'_>,
    scope: &str,
    key: &str,
) -> Result<Option<IdempotencyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM idempotency WHERE scope = $1 AND key = $2")
        .bind(scope)
        .bind(key)
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        let row = Columns::of("idempotency", &row);
        Ok(IdempotencyRow {
            request_hash: row.hash("request_hash")?,
            session: row.parse("session")?,
            message: row.parse_opt("message")?,
            first_seq: row.number("first_seq")?,
            last_seq: row.number("last_seq")?,
            created_at: row.at("created_at")?,
        })
    })
    .transpose()
}

pub(super) fn run(row: &SqliteRow) -> Result<RunRow, StoreError> {
    let row = Columns::of("runs", row);
    let hold: Option<i64> = row.get("hold")?;
    Ok(RunRow {
        n: row.small("n")?,
        id: row.parse("id")?,
        state: row.named("state", run_state)?,
        epoch: row.number("epoch")?,
        dir: row.get("dir")?,
        cursor: row.number("cursor")?,
        hold: hold.map(unsigned),
        meta: row.json("meta")?,
        exit: row.json_opt("exit")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn message(row: &SqliteRow) -> Result<MessageRow, StoreError> {
    let row = Columns::of("messages", row);
    let number = |column| row.get::<Option<i64>>(column);
    Ok(MessageRow {
        id: row.parse("id")?,
        seq: row.number("seq")?,
        state: row.named("state", MessageState::parse)?,
        if_busy: row.named("if_busy", if_busy)?,
        priority: row.named_opt("priority", priority)?,
        body: row.get("body")?,
        run: number("run")?.map(narrow),
        turn: number("turn")?.map(narrow),
        delivered_seq: number("delivered_seq")?.map(unsigned),
        result: row.json_opt("result")?,
        result_seq: number("result_seq")?.map(unsigned),
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn command(row: &SqliteRow) -> Result<CommandRow, StoreError> {
    let row = Columns::of("commands", row);
    let epoch: Option<i64> = row.get("epoch")?;
    Ok(CommandRow {
        id: row.parse("id")?,
        session: row.parse("session")?,
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        args: row.json("args")?,
        by: row.get("given_by")?,
        state: row.named("state", CommandState::parse)?,
        result: row.json_opt("result")?,
        owner: row.get("owner")?,
        epoch: epoch.map(unsigned),
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn server_event(row: &SqliteRow) -> Result<ServerEvent, StoreError> {
    let row = Columns::of("server_events", row);
    Ok(ServerEvent {
        seq: row.number("seq")?,
        at: row.at("at")?,
        session_id: row.parse_opt("session")?,
        task_id: row.parse_opt("task")?,
        kind: row.get("kind")?,
        data: row.json("data")?,
    })
}
