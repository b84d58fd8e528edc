//! Events in and out: many rows a statement, large bodies apart, pages bounded by bytes. Refuses their meaning.

use super::Sqlite;
use super::columns::{narrow, signed, unsigned};
use super::script::{Script, Stopped};
use crate::commit::NewEvent;
use crate::error::StoreError;
use crate::rows::StoredEvent;
use bytes::Bytes;
use castra_proto::{Kind, SessionId, Timestamp};
use futures::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::sync::{Arc, LazyLock};

/// Larger data goes to `bodies`: a page of the index should hold several events.
const INLINE_BYTES: usize = 16 * 1024;
/// More events than these go in trips of their own: each mixture of statements is a text that SQLite prepares and keeps.
const FEW: usize = 15;
/// Rows of the largest statement: 2^8. SQLite allows 32,766 values in one.
const LARGEST: u32 = 8;

/// `INSERT` for 1, 2, 4, … 256 rows: few enough to stay prepared, and any number of rows is a sum of them.
static INSERTS: LazyLock<Vec<Arc<str>>> =
    LazyLock::new(|| (0..=LARGEST).map(|power| insert(1 << power)).collect());

/// The one statement with `?`: SQLite keeps `$n` in a list that sqlx has searched once for every value, which
/// doubled the cost of an event (7 µs instead of 3.6 at 256 rows a statement, benches/ingest.rs).
fn insert(rows: usize) -> Arc<str> {
    let values = vec!["(?,?,?,?,?,?,?)"; rows].join(",");
    format!("INSERT INTO events (session_no, seq, at, run, turn, kind, data) VALUES {values}").into()
}

/// Whether these go along with what else a commit says, in its trip.
pub(super) fn is_few(events: &[NewEvent]) -> bool {
    events.len() <= FEW
}

/// Inserts these as `first`, `first + 1`, …
pub(super) fn say<C>(script: &mut Script<C>, session_no: i64, first: u64, events: &[NewEvent]) {
    let mut seq = first;
    for part in events.chunk_by(|a, b| is_inline(a) && is_inline(b)) {
        match part {
            [event] if !is_inline(event) => say_body(script, session_no, seq, event),
            inline => say_inline(script, session_no, seq, inline),
        }
        seq += part.len() as u64;
    }
}

/// The same for any number of them: one statement of as many rows as may be at a time, so that few texts are prepared.
pub(super) async fn append(
    conn: &mut SqliteConnection,
    session_no: i64,
    first: u64,
    mut events: &[NewEvent],
) -> Result<(), StoreError> {
    let mut seq = first;
    while !events.is_empty() {
        let inline = events.iter().take(1 << LARGEST).take_while(|event| is_inline(event)).count();
        let (part, rest) = events.split_at(inline.checked_ilog2().map_or(1, |power| 1 << power));
        let mut script = Script::<()>::new();
        say(&mut script, session_no, seq, part);
        script.run(conn).await.map_err(Stopped::into_store)?;
        seq += part.len() as u64;
        events = rest;
    }
    Ok(())
}

fn is_inline(event: &NewEvent) -> bool {
    event.raw.is_none() && event.data.len() <= INLINE_BYTES
}

fn say_inline<C>(script: &mut Script<C>, session_no: i64, mut seq: u64, mut events: &[NewEvent]) {
    let mut last_kind: Option<(&Kind, Arc<str>)> = None;
    while !events.is_empty() {
        let power = events.len().ilog2();
        let Some(sql) = INSERTS.get(power as usize) else { break };
        let (rows, rest) = events.split_at(1 << power);
        script.say(sql);
        for (seq, event) in (seq..).zip(rows) {
            let kind = match &last_kind {
                Some((kind, text)) if *kind == &event.kind => Arc::clone(text),
                _ => Arc::from(event.kind.as_str()),
            };
            last_kind = Some((&event.kind, Arc::clone(&kind)));
            script
                .bind(session_no)
                .bind(signed(seq))
                .bind(event.at.0)
                .bind(i64::from(event.run))
                .bind(i64::from(event.turn))
                .bind(kind)
                .bind(Vec::from(&event.data[..]));
        }
        seq += rows.len() as u64;
        events = rest;
    }
}

fn say_body<C>(script: &mut Script<C>, session_no: i64, seq: u64, event: &NewEvent) {
    let size = event.data.len() + event.raw.as_ref().map_or(0, Bytes::len);
    script
        .say("INSERT INTO events (session_no, seq, at, run, turn, kind, size) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(session_no)
        .bind(signed(seq))
        .bind(event.at.0)
        .bind(i64::from(event.run))
        .bind(i64::from(event.turn))
        .bind(event.kind.as_str())
        .bind(signed(size as u64))
        .say("INSERT INTO bodies (session_no, seq, data, raw) VALUES (?, ?, ?, ?)")
        .bind(session_no)
        .bind(signed(seq))
        .bind(Vec::from(&event.data[..]))
        .bind(event.raw.as_ref().map(|raw| Vec::from(&raw[..])));
}

impl Sqlite {
    pub(crate) async fn events(
        &self,
        session: SessionId,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let mut conn = self.readers.acquire().await?;
        let Some(session_no) = session_no(&mut conn, session).await? else { return Ok(Vec::new()) };
        let mut page = Vec::new();
        let mut in_bodies = Vec::new();
        let mut bytes = 0usize;
        {
            let mut rows = sqlx::query(
                "SELECT seq, at, run, turn, kind, data, size FROM events
                 WHERE session_no = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            )
            .bind(session_no)
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch(&mut *conn);
            while let Some(row) = rows.try_next().await? {
                let (event, body) = event(&row)?;
                bytes = bytes.saturating_add(body.unwrap_or(event.data.len()));
                if bytes > max_bytes && !page.is_empty() {
                    break;
                }
                if body.is_some() {
                    in_bodies.push(page.len());
                }
                page.push(event);
            }
        }
        // Bodies are read one by one, and only those that the page has room for.
        for index in in_bodies {
            if let Some(event) = page.get_mut(index) {
                fill(&mut conn, session_no, event).await?;
            }
        }
        Ok(page)
    }

    pub(crate) async fn event(
        &self,
        session: SessionId,
        seq: u64,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let Some(before) = seq.checked_sub(1) else { return Ok(None) };
        let page = self.events(session, before, 1, 0).await?;
        Ok(page.into_iter().next().filter(|event| event.seq == seq))
    }
}

/// The number of a session that is not removed.
pub(super) async fn session_no(
    conn: &mut SqliteConnection,
    session: SessionId,
) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT no FROM sessions WHERE id = $1 AND removed_at IS NULL")
        .bind(session.0.to_string())
        .fetch_optional(conn)
        .await?)
}

/// An event, and the size of its body when that is elsewhere.
fn event(row: &SqliteRow) -> Result<(StoredEvent, Option<usize>), StoreError> {
    let data: Option<Vec<u8>> = row.try_get(5)?;
    let size: Option<i64> = row.try_get(6)?;
    let event = StoredEvent {
        seq: unsigned(row.try_get(0)?),
        at: Timestamp(row.try_get(1)?),
        run: narrow(row.try_get(2)?),
        turn: narrow(row.try_get(3)?),
        kind: Kind::parse(row.try_get(4)?),
        data: data.unwrap_or_default().into(),
        raw: None,
    };
    Ok((event, size.map(|size| usize::try_from(size).unwrap_or(0))))
}

async fn fill(
    conn: &mut SqliteConnection,
    session_no: i64,
    event: &mut StoredEvent,
) -> Result<(), StoreError> {
    let (data, raw): (Vec<u8>, Option<Vec<u8>>) =
        sqlx::query_as("SELECT data, raw FROM bodies WHERE session_no = $1 AND seq = $2")
            .bind(session_no)
            .bind(signed(event.seq))
            .fetch_one(conn)
            .await?;
    event.data = data.into();
    event.raw = raw.map(Bytes::from);
    Ok(())
}
