//! Reads of sessions and what hangs on them, except events. Refuses rows of removed sessions.

use super::Sqlite;
use super::columns::{Columns, Spelled, if_busy, json, mode, narrow, priority, run_state, signed, unsigned};
use crate::error::StoreError;
use crate::rows::{
    CommandRow, CommandState, Cursor, EndedSession, Found, IdempotencyRow, Listing, LiveSession, MessageRow,
    RunRow, SessionFilter, SessionRow, SessionSize,
};
use castra_proto::api::{MessageState, ServerEvent};
use castra_proto::{CommandId, MessageId, RunId, SessionId, Timestamp};
use serde_json::Value;
use sqlx::SqliteExecutor;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A session with what is stored beside it; `s` and its `no` are for the rest of the statement.
macro_rules! select_session {
    ($($rest:expr),+) => {
        concat!(
            "SELECT s.*, specs.spec, views.view,
             (SELECT json_group_array(c.id ORDER BY c.n) FROM claude_sessions c WHERE c.session_no = s.no) AS claude_ids
             FROM sessions s JOIN specs ON specs.session_no = s.no JOIN views ON views.session_no = s.no
             WHERE s.removed_at IS NULL AND ",
            $($rest),+
        )
    };
}
/// As the index `sessions_live` says it.
macro_rules! live {
    () => {
        "s.state NOT IN ('ended', 'lost')"
    };
}

/// Names are looked up first, so that a name that looks like an id's beginning can be reached.
const PREFIX_CHARS: usize = 4;
const AMBIGUOUS_SHOWN: usize = 10;

impl Sqlite {
    pub(crate) async fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        let row = sqlx::query(select_session!("s.id = $1"))
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(session).transpose()
    }

    pub(crate) async fn secrets(&self, id: SessionId) -> Result<Option<Value>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "SELECT secrets FROM specs JOIN sessions s ON s.no = session_no WHERE s.id = $1 AND s.removed_at IS NULL",
        )
        .bind(id.spelled())
        .fetch_optional(&self.readers)
        .await?;
        let Some(sealed) = sealed.flatten() else { return Ok(None) };
        let plain = self.key.open_secrets(id, &sealed)?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| StoreError::SecretsDamaged { session: id })
    }

    pub(crate) async fn find(&self, wanted: &str) -> Result<Found, StoreError> {
        if let Ok(id) = wanted.parse::<SessionId>() {
            return Ok(self.session(id).await?.map_or(Found::None, |row| Found::One(Box::new(row))));
        }
        let named =
            sqlx::query(select_session!("s.name = $1 ORDER BY ", live!(), " DESC, s.no DESC LIMIT 1"))
                .bind(wanted)
                .fetch_optional(&self.readers)
                .await?;
        if let Some(row) = named {
            return Ok(Found::One(Box::new(session(&row)?)));
        }
        let prefix = wanted.to_ascii_lowercase();
        if prefix.len() < PREFIX_CHARS || !prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Ok(Found::None);
        }
        // 'g' comes after every character of an id.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE id >= $1 AND id < $1 || 'g' AND removed_at IS NULL ORDER BY no DESC LIMIT $2",
        )
        .bind(&prefix)
        .bind(AMBIGUOUS_SHOWN as i64)
        .fetch_all(&self.readers)
        .await?;
        let ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        match ids[..] {
            [] => Ok(Found::None),
            [one] => Ok(self.session(one).await?.map_or(Found::None, |row| Found::One(Box::new(row)))),
            _ => Ok(Found::Ambiguous(ids)),
        }
    }

    pub(crate) async fn sessions(
        &self,
        filter: &SessionFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Listing<SessionRow>, StoreError> {
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let (label, value) = filter.label.as_ref().map(|(k, v)| (k.as_str(), v.as_str())).unzip();
        let rest = if filter.all || !states.is_empty() {
            select_session!(
                "($1 = '[]' OR s.state IN (SELECT value FROM json_each($1)))
                 AND ($2 IS NULL OR s.name = $2)
                 AND ($3 IS NULL OR EXISTS (SELECT 1 FROM json_each(s.labels) l WHERE l.key = $3 AND l.value = $4))
                 AND ($5 IS NULL OR s.no < $5) ORDER BY s.no DESC LIMIT $6"
            )
        } else {
            select_session!(
                live!(),
                " AND ($2 IS NULL OR s.name = $2)
                 AND ($3 IS NULL OR EXISTS (SELECT 1 FROM json_each(s.labels) l WHERE l.key = $3 AND l.value = $4))
                 AND ($5 IS NULL OR s.no < $5) ORDER BY s.no DESC LIMIT $6"
            )
        };
        // One more than asked for tells whether there is more.
        let mut rows = sqlx::query(rest)
            .bind(json(&states))
            .bind(&filter.name)
            .bind(label)
            .bind(value)
            .bind(after.map(|cursor| cursor.0))
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.readers)
            .await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = match rows.last() {
            Some(last) if more => Some(Cursor(Columns::of("sessions", last).get("no")?)),
            _ => None,
        };
        Ok(Listing { items: rows.iter().map(session).collect::<Result<_, _>>()?, next })
    }

    pub(crate) async fn live_sessions(&self) -> Result<Vec<LiveSession>, StoreError> {
        // One snapshot for both, or a run that starts between them would be missing.
        let mut tx = self.readers.begin().await?;
        let sessions = sqlx::query(select_session!(live!(), " ORDER BY s.no")).fetch_all(&mut *tx).await?;
        let runs = sqlx::query(
            "SELECT s.no, r.* FROM sessions s JOIN runs r ON r.session_no = s.no AND r.n = s.newest_run
             WHERE s.removed_at IS NULL AND s.state NOT IN ('ended', 'lost') ORDER BY s.no",
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.rollback().await?;
        let mut runs = runs.iter().peekable();
        let mut live = Vec::with_capacity(sessions.len());
        for row in &sessions {
            let no: i64 = Columns::of("sessions", row).get("no")?;
            let mut newest = None;
            if let Some(row) = runs.peek()
                && Columns::of("runs", row).get::<i64>("no")? == no
            {
                newest = Some(run(row)?);
                runs.next();
            }
            live.push(LiveSession { session: session(row)?, run: newest });
        }
        Ok(live)
    }

    pub(crate) async fn claude_session(&self, claude: Uuid) -> Result<Option<SessionId>, StoreError> {
        let row = sqlx::query(
            "SELECT s.id FROM claude_sessions c JOIN sessions s ON s.no = c.session_no
             WHERE c.id = $1 AND s.removed_at IS NULL ORDER BY s.no DESC LIMIT 1",
        )
        .bind(claude.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Columns::of("sessions", &row).parse("id")).transpose()
    }

    pub(crate) async fn newest_session_of_workdir(&self, cwd: &str) -> Result<Option<SessionId>, StoreError> {
        let row = sqlx::query(
            "SELECT id FROM sessions WHERE cwd = $1 AND removed_at IS NULL ORDER BY no DESC LIMIT 1",
        )
        .bind(cwd)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Columns::of("sessions", &row).parse("id")).transpose()
    }

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

    pub(crate) async fn head(&self, session: SessionId) -> Result<Option<u64>, StoreError> {
        let head: Option<i64> =
            sqlx::query_scalar("SELECT head FROM sessions WHERE id = $1 AND removed_at IS NULL")
                .bind(session.spelled())
                .fetch_optional(&self.readers)
                .await?;
        Ok(head.map(unsigned))
    }

    pub(crate) async fn messages(
        &self,
        session: SessionId,
        states: &[MessageState],
    ) -> Result<Vec<MessageRow>, StoreError> {
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let rows = sqlx::query(
            "SELECT m.* FROM sessions s JOIN messages m ON m.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL
             AND ($2 = '[]' OR m.state IN (SELECT value FROM json_each($2))) ORDER BY m.seq, m.id",
        )
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

    pub(crate) async fn ended_before(
        &self,
        at: Timestamp,
        limit: u32,
    ) -> Result<Vec<EndedSession>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, updated_at FROM sessions
             WHERE updated_at < $1 AND removed_at IS NULL AND state IN ('ended', 'lost')
             ORDER BY updated_at, no LIMIT $2",
        )
        .bind(at.0)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Columns::of("sessions", row);
                Ok(EndedSession { id: row.parse("id")?, updated_at: row.at("updated_at")? })
            })
            .collect()
    }

    pub(crate) async fn size(&self, session: SessionId) -> Result<SessionSize, StoreError> {
        let (events, bytes): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(coalesce(e.size, length(e.data))), 0)
             FROM sessions s JOIN events e ON e.session_no = s.no WHERE s.id = $1 AND s.removed_at IS NULL",
        )
        .bind(session.spelled())
        .fetch_one(&self.readers)
        .await?;
        Ok(SessionSize { events: unsigned(events), bytes: unsigned(bytes) })
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

fn session(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let row = Columns::of("sessions", row);
    Ok(SessionRow {
        id: row.parse("id")?,
        name: row.get("name")?,
        host: row.get("host")?,
        owner: row.get("owner")?,
        epoch: row.number("epoch")?,
        mode: row.named("mode", mode)?,
        state: row.named("state", run_state)?,
        cwd: row.get("cwd")?,
        head: row.number("head")?,
        newest_run: row.small("newest_run")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
        labels: row.json("labels")?,
        fork_of: row.parse_opt("fork_of")?,
        claude_session_ids: row.json("claude_ids")?,
        spec: row.get("spec")?,
        view: row.get("view")?,
    })
}

fn run(row: &SqliteRow) -> Result<RunRow, StoreError> {
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
        session_id: row.parse("session")?,
        kind: row.get("kind")?,
        data: row.json("data")?,
    })
}
