//! Reads of sessions: one, found, listed, live. Refuses removed ones.

use super::Sqlite;
use super::columns::{AMBIGUOUS_SHOWN, Columns, Spelled, as_prefix, json, mode, run_state, unsigned};
use super::records;
use crate::error::StoreError;
use crate::rows::{
    Cursor, EndedSession, Found, Listing, LiveSession, SessionFilter, SessionRow, SessionSize,
};
use castra_proto::{SessionId, Timestamp};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A session with what is stored beside it; `s` and its `no` are for the rest of the statement.
macro_rules! select_session {
    ($($rest:expr),+) => {
        concat!(
            "SELECT s.*, specs.spec, views.view, views.offers,
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

impl Sqlite {
    pub(crate) async fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        let ticket = match self.cache.session(id) {
            Ok(row) => return Ok(Some(SessionRow::clone(&row))),
            Err(ticket) => ticket,
        };
        let row = sqlx::query(select_session!("s.id = $1"))
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        let row = row.as_ref().map(session).transpose()?;
        self.cache.bring(id, ticket, row.as_ref());
        Ok(row)
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
        let Some(prefix) = as_prefix(wanted) else { return Ok(Found::None) };
        // 'g' comes after every character of an id.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE id >= $1 AND id < $1 || 'g' AND removed_at IS NULL ORDER BY no DESC LIMIT $2",
        )
        .bind(&prefix)
        .bind(AMBIGUOUS_SHOWN)
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
                newest = Some(records::run(row)?);
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

    pub(crate) async fn head(&self, session: SessionId) -> Result<Option<u64>, StoreError> {
        if let Some(head) = self.cache.head(session) {
            return Ok(Some(head));
        }
        let head: Option<i64> =
            sqlx::query_scalar("SELECT head FROM sessions WHERE id = $1 AND removed_at IS NULL")
                .bind(session.spelled())
                .fetch_optional(&self.readers)
                .await?;
        Ok(head.map(unsigned))
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
        offers: row.get("offers")?,
    })
}
