//! A group of commits as one SQLite transaction. Refuses a commit alone, before it has written anything.

mod change;
mod check;

use self::check::Check;
use super::Writer;
use super::columns::{Columns, Spelled, json, run_state, signed, unsigned};
use super::events;
use super::script::{Script, Stopped};
use crate::commit::{Change, Commit, Committed, Duplicate, Idempotency, NewMessage, SeqAt};
use crate::error::{CommitError, StoreError};
use crate::writer::{Applied, Engine, Outcome};
use castra_proto::api::ServerEvent;
use castra_proto::{MessageId, RunState, SessionId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

/// A session as the commit finds it, and then as the commit leaves it.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub no: i64,
    pub epoch: u64,
    pub head: u64,
    pub newest_run: u32,
    pub state: RunState,
    pub removed: bool,
}

/// Sessions that are remembered between commits; then all are forgotten and the busy ones come back.
const REMEMBERED: usize = 4096;

/// Whether a commit is a transaction of its own, or within one that others begin and end.
#[derive(Clone, Copy, PartialEq)]
enum Span {
    Whole,
    Part,
}

/// Why a commit did not come about.
enum Refused {
    /// Nothing was sent to SQLite.
    Before(CommitError),
    Within(Check, StoreError),
    Store(StoreError),
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self::Before(error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Stopped<Check>> for Refused {
    fn from(stopped: Stopped<Check>) -> Self {
        match stopped {
            Stopped::Check(check, error) => Self::Within(check, error),
            Stopped::Store(error) => Self::Store(error),
        }
    }
}

impl Engine for Writer {
    async fn group(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, StoreError> {
        let outcomes = match commits {
            [alone] => vec![self.one(alone, Span::Whole).await?],
            _ => {
                run(&mut self.conn, "BEGIN IMMEDIATE").await?;
                match self.parts(commits).await {
                    Ok(outcomes) => outcomes,
                    Err(error) => {
                        self.roll_back("ROLLBACK").await;
                        self.sessions.clear();
                        return Err(error);
                    }
                }
            }
        };
        for (commit, outcome) in commits.iter().zip(&outcomes) {
            let changed = outcome.as_ref().is_ok_and(|applied| applied.committed.duplicate_of.is_none());
            match self.sessions.get(&commit.session) {
                Some(now) if changed => self.cache.follow(commit, now),
                Some(_) => {}
                // A later commit of the group was refused: how this one left the session is not known here any more.
                None => self.cache.forget(commit.session),
            }
        }
        self.sessions.retain(|_, now| !now.removed);
        if self.sessions.len() > REMEMBERED {
            self.sessions.clear();
        }
        Ok(outcomes)
    }

    async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
    }
}

impl Writer {
    async fn roll_back(&mut self, sql: &'static str) {
        // SQLite may have done so by itself (disk full, I/O error); then this fails, and nothing is wrong.
        if let Err(error) = run(&mut self.conn, sql).await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }

    async fn parts(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            outcomes.push(self.one(commit, Span::Part).await?);
        }
        run(&mut self.conn, "COMMIT").await?;
        Ok(outcomes)
    }

    /// Tries it, and finds out why when it does not work: what is refused is rare. The outer error: the
    /// transaction that it is a part of is lost.
    async fn one(&mut self, commit: &Commit, span: Span) -> Result<Outcome, StoreError> {
        let refused = match self.attempt(commit, span).await {
            Ok((applied, now)) => {
                self.sessions.insert(commit.session, now);
                return Ok(Ok(applied));
            }
            Err(refused) => refused,
        };
        // Whatever is remembered of it may be what was wrong.
        self.sessions.remove(&commit.session);
        match (&refused, span) {
            (Refused::Before(_), _) => {}
            (_, Span::Whole) => self.roll_back("ROLLBACK").await,
            (_, Span::Part) => run(&mut self.conn, "ROLLBACK TO one; RELEASE one").await?,
        }
        Ok(self.refusal(commit, refused).await)
    }

    /// What was done before under this key, or as this message, is the answer whatever else is wrong now.
    async fn refusal(&mut self, commit: &Commit, refused: Refused) -> Outcome {
        if let Refused::Store(error) | Refused::Before(CommitError::Store(error)) = refused {
            return Err(error.into());
        }
        if let Some(idempotency) = &commit.idempotency
            && let Some(committed) = known(&mut self.conn, idempotency).await?
        {
            return Ok(unchanged(committed));
        }
        if let Some(committed) = known_message(&mut self.conn, commit).await? {
            return Ok(unchanged(committed));
        }
        match refused {
            Refused::Before(error) => Err(error),
            Refused::Within(check, error) => {
                Err(check.explain(&mut self.conn, commit.session, error).await?)
            }
            Refused::Store(error) => Err(error.into()),
        }
    }

    /// In one trip to SQLite's thread, when the session is remembered and there is no flood of events.
    async fn attempt(&mut self, commit: &Commit, span: Span) -> Result<(Applied, Current), Refused> {
        let found = match self.sessions.get(&commit.session) {
            Some(remembered) => Some(remembered.clone()),
            None => current(&mut self.conn, commit.session).await?,
        };
        let mut current = match (commit.changes.first(), found) {
            (Some(Change::Create(_)), Some(_)) => {
                return Err(CommitError::SessionExists(commit.session).into());
            }
            (Some(Change::Create(_)), None) => change::unborn(&mut self.conn).await?,
            (_, Some(current)) if !current.removed => current,
            _ => return Err(CommitError::NoSession(commit.session).into()),
        };
        if let Some(offered) = commit.epoch {
            if current.epoch > offered {
                let held = current.epoch;
                return Err(CommitError::Fenced { session: commit.session, held, offered }.into());
            }
            current.epoch = offered;
        }
        let mut script = Script::new();
        script.say(match span {
            Span::Whole => "BEGIN IMMEDIATE",
            Span::Part => "SAVEPOINT one",
        });
        let first_new = current.head + 1;
        let head = current.head + commit.events.len() as u64;
        let committed = Committed { first_seq: first_new.min(head), last_seq: head, duplicate_of: None };
        if let Some(idempotency) = &commit.idempotency {
            remember(&mut script, commit, idempotency, committed);
        }
        for guard in &commit.guards {
            check::guard(&mut script, commit.session, &current, guard)?;
        }
        for change in &commit.changes {
            change::apply(&mut script, &self.key, commit, &mut current, change)?;
        }
        if events::is_few(&commit.events) {
            events::say(&mut script, current.no, first_new, &commit.events);
        } else {
            std::mem::replace(&mut script, Script::new()).run(&mut self.conn).await?;
            events::append(&mut self.conn, current.no, first_new, &commit.events).await?;
        }
        current.head = head;
        announce(&mut script, commit);
        change::settle(&mut script, commit, &current);
        script.say(match span {
            Span::Whole => "COMMIT",
            Span::Part => "RELEASE one",
        });
        let rows = script.run(&mut self.conn).await?;
        let server_events = commit
            .server_events
            .iter()
            .zip(&rows)
            .map(|(event, row)| {
                Ok(ServerEvent {
                    seq: unsigned(row.try_get(0)?),
                    at: commit.at,
                    session_id: Some(commit.session),
                    task_id: None,
                    kind: event.kind.clone(),
                    data: event.data.clone(),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(StoreError::from)?;
        Ok((Applied { committed, server_events, removed: current.removed }, current))
    }
}

/// The number of an event of this commit, or of an older one. `head`: before the commit.
fn seq(commit: &Commit, head: u64, at: SeqAt) -> Result<i64, CommitError> {
    match at {
        SeqAt::Seq(seq) => Ok(signed(seq)),
        SeqAt::Event(index) if index < commit.events.len() => Ok(signed(head + 1 + index as u64)),
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

async fn current(conn: &mut SqliteConnection, session: SessionId) -> Result<Option<Current>, StoreError> {
    let row = sqlx::query(
        "SELECT no, epoch, head, newest_run, state, removed_at IS NOT NULL AS removed
         FROM sessions WHERE id = $1",
    )
    .bind(session.spelled())
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
    commit: &Commit,
) -> Result<Option<Committed>, CommitError> {
    let Some(message) = new_message(commit) else { return Ok(None) };
    let seq: Option<i64> = sqlx::query_scalar(
        "SELECT m.seq FROM sessions s JOIN messages m ON m.session_no = s.no
         WHERE s.id = $1 AND m.id = $2 AND s.removed_at IS NULL",
    )
    .bind(commit.session.spelled())
    .bind(message.id.spelled())
    .fetch_optional(conn)
    .await
    .map_err(StoreError::from)?;
    Ok(seq.map(unsigned).map(|seq| Committed {
        first_seq: seq,
        last_seq: seq,
        duplicate_of: Some(Duplicate { session: commit.session, message: Some(message.id) }),
    }))
}

fn remember(script: &mut Script<Check>, commit: &Commit, idempotency: &Idempotency, committed: Committed) {
    let message: Option<MessageId> = new_message(commit).map(|message| message.id);
    script
        .say(
            "INSERT INTO idempotency (scope, key, request_hash, session, message, first_seq, last_seq, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(idempotency.scope.clone())
        .bind(idempotency.key.clone())
        .bind(&idempotency.request_hash[..])
        .bind(commit.session.spelled())
        .bind(message.map(|id| id.spelled()))
        .bind(signed(committed.first_seq))
        .bind(signed(committed.last_seq))
        .bind(commit.at.0)
        .or(Check::Known);
}

fn announce(script: &mut Script<Check>, commit: &Commit) {
    for event in &commit.server_events {
        script
            .say("INSERT INTO server_events (at, session, kind, data) VALUES (?, ?, ?, ?) RETURNING seq")
            .bind(commit.at.0)
            .bind(commit.session.spelled())
            .bind(event.kind.clone())
            .bind(json(&event.data));
    }
}
