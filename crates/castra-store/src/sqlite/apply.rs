//! A group of commits as one SQLite transaction. Refuses a commit alone, before it has written anything.

mod change;
mod guard;

use super::Writer;
use super::columns::{Columns, Spelled, json, run_state, signed};
use super::events;
use crate::commit::{Change, Commit, Committed, Duplicate, Idempotency, NewMessage, SeqAt};
use crate::error::{CommitError, StoreError};
use crate::writer::{Applied, Engine, Outcome};
use castra_proto::api::ServerEvent;
use castra_proto::{MessageId, RunState};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

/// A session as the commit finds it, and then as the commit leaves it.
struct Current {
    no: i64,
    epoch: u64,
    head: u64,
    newest_run: u32,
    state: RunState,
    removed: bool,
}

/// Whether a commit is a transaction of its own. Each statement is a trip to SQLite's thread, so that the first
/// begins it and the last ends it; a turn over HTTP was 4 trips of 12 shorter for it (BENCHMARKS.md).
#[derive(Clone, Copy)]
enum Span {
    Whole,
    /// Within a transaction that others begin and end.
    Part,
}

impl Engine for Writer {
    async fn group(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, StoreError> {
        if let [alone] = commits {
            let outcome = self.apply(alone, Span::Whole).await;
            // A refusal is rolled back, and so is the answer to a repetition, which has written nothing.
            if outcome.as_ref().map_or(true, |applied| applied.committed.duplicate_of.is_some()) {
                self.roll_back().await;
            }
            return Ok(vec![outcome]);
        }
        run(&mut self.conn, "BEGIN IMMEDIATE").await?;
        match self.apply_all(commits).await {
            Ok(outcomes) => Ok(outcomes),
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
    }
}

impl Writer {
    async fn roll_back(&mut self) {
        // SQLite may have done so by itself (disk full, I/O error); then this fails, and nothing is wrong.
        if let Err(error) = run(&mut self.conn, "ROLLBACK").await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }

    async fn apply_all(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            run(&mut self.conn, "SAVEPOINT one").await?;
            let outcome = self.apply(commit, Span::Part).await;
            if outcome.is_err() {
                run(&mut self.conn, "ROLLBACK TO one").await?;
            }
            run(&mut self.conn, "RELEASE one").await?;
            outcomes.push(outcome);
        }
        run(&mut self.conn, "COMMIT").await?;
        Ok(outcomes)
    }

    async fn apply(&mut self, commit: &Commit, span: Span) -> Outcome {
        let mut opening = span;
        if let Some(idempotency) = &commit.idempotency {
            if let Span::Whole = std::mem::replace(&mut opening, Span::Part) {
                run(&mut self.conn, "BEGIN IMMEDIATE").await?;
            }
            if let Some(committed) = known(&mut self.conn, idempotency).await? {
                return Ok(unchanged(committed));
            }
        }
        let found = current(&mut self.conn, commit, opening).await?;
        let mut current = match (commit.changes.first(), found) {
            (Some(Change::Create(_)), Some(_)) => return Err(CommitError::SessionExists(commit.session)),
            (Some(Change::Create(new)), None) => {
                // Guards on a session to be can only concern others; refused commits are rolled back.
                change::create(self, commit, new).await?
            }
            (_, Some(current)) if !current.removed => current,
            _ => return Err(CommitError::NoSession(commit.session)),
        };
        if let Some(committed) = known_message(&mut self.conn, &current, commit).await? {
            return Ok(unchanged(committed));
        }
        if let Some(offered) = commit.epoch {
            if current.epoch > offered {
                return Err(CommitError::Fenced { session: commit.session, held: current.epoch, offered });
            }
            current.epoch = offered;
        }
        for guard in &commit.guards {
            guard::check(&mut self.conn, commit.session, &current, guard).await?;
        }
        let first_new = current.head + 1;
        for change in &commit.changes {
            change::apply(self, commit, &mut current, change).await?;
        }
        events::append(&mut self.conn, current.no, first_new, &commit.events).await?;
        current.head += commit.events.len() as u64;
        let server_events = announce(&mut self.conn, commit).await?;
        let committed =
            Committed { first_seq: first_new.min(current.head), last_seq: current.head, duplicate_of: None };
        if let Some(idempotency) = &commit.idempotency {
            remember(&mut self.conn, commit, idempotency, committed).await?;
        }
        change::settle(&mut self.conn, commit, &current, span).await?;
        Ok(Applied { committed, server_events, removed: current.removed })
    }
}

/// The number of an event of this commit, or of an older one.
fn seq(commit: &Commit, current: &Current, at: SeqAt) -> Result<i64, CommitError> {
    match at {
        SeqAt::Seq(seq) => Ok(signed(seq)),
        SeqAt::Event(index) if index < commit.events.len() => Ok(signed(current.head + 1 + index as u64)),
        SeqAt::Event(_) => Err(CommitError::Malformed("the commit has no event of this index")),
    }
}

fn unchanged(committed: Committed) -> Applied {
    Applied { committed, server_events: Vec::new(), removed: false }
}

async fn run(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(conn).await?;
    Ok(())
}

/// With `Span::Whole` it begins the transaction as well.
async fn current(
    conn: &mut SqliteConnection,
    commit: &Commit,
    span: Span,
) -> Result<Option<Current>, StoreError> {
    macro_rules! select {
        ($before:literal) => {
            concat!(
                $before,
                "SELECT no, epoch, head, newest_run, state, removed_at IS NOT NULL AS removed
                 FROM sessions WHERE id = $1"
            )
        };
    }
    let row = sqlx::query(match span {
        Span::Whole => select!("BEGIN IMMEDIATE; "),
        Span::Part => select!(""),
    })
    .bind(commit.session.spelled())
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let row = Columns::of("sessions", &row);
        Ok(Current {
            no: row.get("no")?,
            epoch: row.number("epoch")?,
            head: row.number("head")?,
            newest_run: row.small("newest_run")?,
            state: row.named("state", run_state)?,
            removed: row.get("removed")?,
        })
    })
    .transpose()
}

/// What the key was used for before.
async fn known(
    conn: &mut SqliteConnection,
    idempotency: &Idempotency,
) -> Result<Option<Committed>, CommitError> {
    let Some(row) = super::records::idempotency(conn, &idempotency.scope, &idempotency.key).await? else {
        return Ok(None);
    };
    if row.request_hash != idempotency.request_hash {
        return Err(CommitError::IdempotencyMismatch);
    }
    Ok(Some(Committed {
        first_seq: row.first_seq,
        last_seq: row.last_seq,
        duplicate_of: Some(Duplicate { session: row.session, message: row.message }),
    }))
}

fn new_message(commit: &Commit) -> Option<&NewMessage> {
    commit.changes.iter().find_map(|change| match change {
        Change::AddMessage(message) => Some(message),
        _ => None,
    })
}

/// Whether the commit's message is there already.
async fn known_message(
    conn: &mut SqliteConnection,
    current: &Current,
    commit: &Commit,
) -> Result<Option<Committed>, CommitError> {
    let Some(message) = new_message(commit) else { return Ok(None) };
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM messages WHERE session_no = $1 AND id = $2")
        .bind(current.no)
        .bind(message.id.spelled())
        .fetch_optional(conn)
        .await
        .map_err(StoreError::from)?;
    Ok(seq.map(super::columns::unsigned).map(|seq| Committed {
        first_seq: seq,
        last_seq: seq,
        duplicate_of: Some(Duplicate { session: commit.session, message: Some(message.id) }),
    }))
}

async fn remember(
    conn: &mut SqliteConnection,
    commit: &Commit,
    idempotency: &Idempotency,
    committed: Committed,
) -> Result<(), StoreError> {
    let message: Option<MessageId> = new_message(commit).map(|message| message.id);
    sqlx::query(
        "INSERT INTO idempotency (scope, key, request_hash, session, message, first_seq, last_seq, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&idempotency.scope)
    .bind(&idempotency.key)
    .bind(&idempotency.request_hash[..])
    .bind(commit.session.spelled())
    .bind(message.map(|id| id.spelled()))
    .bind(signed(committed.first_seq))
    .bind(signed(committed.last_seq))
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

async fn announce(conn: &mut SqliteConnection, commit: &Commit) -> Result<Vec<ServerEvent>, StoreError> {
    let mut announced = Vec::with_capacity(commit.server_events.len());
    for event in &commit.server_events {
        let seq: i64 = sqlx::query_scalar(
            "INSERT INTO server_events (at, session, kind, data) VALUES ($1, $2, $3, $4) RETURNING seq",
        )
        .bind(commit.at.0)
        .bind(commit.session.spelled())
        .bind(&event.kind)
        .bind(json(&event.data))
        .fetch_one(&mut *conn)
        .await?;
        announced.push(ServerEvent {
            seq: super::columns::unsigned(seq),
            at: commit.at,
            session_id: commit.session,
            kind: event.kind.clone(),
            data: event.data.clone(),
        });
    }
    Ok(announced)
}
