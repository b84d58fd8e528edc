//! What a commit does besides its events: one statement, or a few, for each change. Refuses to decide.

use super::{Current, Span, guard, seq};
use crate::commit::{
    Change, Commit, MessageUpdate, NewCommand, NewMessage, NewRun, NewSession, RunUpdate, SessionUpdate,
};
use crate::error::{CommitError, StoreError};
use crate::key::Key;
use crate::sqlite::Writer;
use crate::sqlite::columns::{Spelled, if_busy_name, json, mode_name, priority_name, signed};
use castra_proto::{RunState, SessionId};
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

pub(super) async fn apply(
    writer: &mut Writer,
    commit: &Commit,
    current: &mut Current,
    change: &Change,
) -> Result<(), CommitError> {
    let conn = &mut writer.conn;
    match change {
        // Done already, as what everything else belongs to.
        Change::Create(_) => Ok(()),
        Change::Session(update) => session(writer, commit, current, update).await,
        Change::ClaudeSession(id) => Ok(claude_session(conn, current, *id).await?),
        Change::StartRun(run) => start_run(conn, commit, current, run).await,
        Change::Run(update) => self::run(conn, commit, current, update).await,
        Change::AddMessage(message) => add_message(conn, commit, current, message).await,
        Change::Message(update) => self::message(conn, commit, current, update).await,
        Change::AddCommand(command) => add_command(conn, commit, current, command).await,
        Change::Command { id, state, result } => {
            let done = sqlx::query(
                "UPDATE commands SET state = $3, result = coalesce($4, result), updated_at = $5
                 WHERE session_no = $1 AND id = $2",
            )
            .bind(current.no)
            .bind(id.spelled())
            .bind(state.as_str())
            .bind(result.as_ref().map(json))
            .bind(commit.at.0)
            .execute(conn)
            .await?;
            if done.rows_affected() == 0 { Err(CommitError::NoCommand(*id)) } else { Ok(()) }
        }
        Change::Remove => Ok(remove(conn, commit, current).await?),
    }
}

/// The session's own row, which every commit leaves as the last thing it writes; with `Span::Whole`, and commits.
pub(super) async fn settle(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &Current,
    span: Span,
) -> Result<(), StoreError> {
    macro_rules! update {
        ($after:literal) => {
            concat!(
                "UPDATE sessions SET epoch = $2, head = $3, newest_run = $4, state = $5, updated_at = $6
                 WHERE no = $1",
                $after
            )
        };
    }
    sqlx::query(match span {
        Span::Whole => update!("; COMMIT"),
        Span::Part => update!(""),
    })
    .bind(current.no)
    .bind(signed(current.epoch))
    .bind(signed(current.head))
    .bind(i64::from(current.newest_run))
    .bind(current.state.as_str())
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn create(
    writer: &mut Writer,
    commit: &Commit,
    new: &NewSession,
) -> Result<Current, CommitError> {
    let state = RunState::Queued;
    let no: i64 = sqlx::query_scalar(
        "INSERT INTO sessions (id, name, host, owner, mode, state, cwd, labels, fork_of, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) RETURNING no",
    )
    .bind(commit.session.spelled())
    .bind(&new.name)
    .bind(&new.host)
    .bind(&new.owner)
    .bind(mode_name(new.mode))
    .bind(state.as_str())
    .bind(&new.cwd)
    .bind(json(&new.labels))
    .bind(new.fork_of.map(|id| id.spelled()))
    .bind(commit.at.0)
    .fetch_one(&mut writer.conn)
    .await?;
    let secrets = sealed(&writer.key, commit.session, new.spec_secrets.as_ref())?;
    sqlx::query("INSERT INTO specs (session_no, spec, secrets) VALUES ($1, $2, $3)")
        .bind(no)
        .bind(&new.spec)
        .bind(secrets)
        .execute(&mut writer.conn)
        .await?;
    sqlx::query("INSERT INTO views (session_no, view) VALUES ($1, $2)")
        .bind(no)
        .bind(&new.view)
        .execute(&mut writer.conn)
        .await?;
    Ok(Current { no, epoch: 0, head: 0, newest_run: 0, state, removed: false })
}

fn sealed(key: &Key, session: SessionId, secrets: Option<&Value>) -> Result<Option<Vec<u8>>, StoreError> {
    secrets.map(|secrets| key.seal_secrets(session, json(secrets).as_bytes())).transpose()
}

async fn session(
    writer: &mut Writer,
    commit: &Commit,
    current: &mut Current,
    update: &SessionUpdate,
) -> Result<(), CommitError> {
    let SessionUpdate { state, view, name, labels, cwd, spec, spec_secrets, owner } = update;
    let conn = &mut writer.conn;
    if let Some(state) = state {
        current.state = *state;
    }
    if let Some(view) = view {
        sqlx::query("UPDATE views SET view = $2 WHERE session_no = $1")
            .bind(current.no)
            .bind(view)
            .execute(&mut *conn)
            .await?;
    }
    if name.is_some() || labels.is_some() || cwd.is_some() || owner.is_some() {
        sqlx::query(
            "UPDATE sessions SET name = CASE WHEN $2 THEN $3 ELSE name END, labels = coalesce($4, labels),
             cwd = coalesce($5, cwd), owner = coalesce($6, owner) WHERE no = $1",
        )
        .bind(current.no)
        .bind(name.is_some())
        .bind(name.as_ref().and_then(Option::as_ref))
        .bind(labels.as_ref().map(json))
        .bind(cwd)
        .bind(owner)
        .execute(&mut *conn)
        .await?;
    }
    if spec.is_some() || spec_secrets.is_some() {
        let secrets = sealed(&writer.key, commit.session, spec_secrets.as_ref())?;
        sqlx::query(
            "UPDATE specs SET spec = coalesce($2, spec), secrets = coalesce($3, secrets) WHERE session_no = $1",
        )
        .bind(current.no)
        .bind(spec)
        .bind(secrets)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn claude_session(conn: &mut SqliteConnection, current: &Current, id: Uuid) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO claude_sessions (session_no, n, id)
         SELECT $1, 1 + coalesce(max(n), 0), $2 FROM claude_sessions WHERE session_no = $1
         HAVING coalesce((SELECT id FROM claude_sessions WHERE session_no = $1 ORDER BY n DESC LIMIT 1), '') <> $2",
    )
    .bind(current.no)
    .bind(id.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

async fn start_run(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &mut Current,
    run: &NewRun,
) -> Result<(), CommitError> {
    let is_next = current.newest_run.checked_add(1) == Some(run.n);
    let is_over = current.newest_run == 0 || current.state.is_final();
    if !is_next || !is_over {
        return Err(CommitError::RunConflict { newest: current.newest_run, state: current.state });
    }
    current.newest_run = run.n;
    current.state = RunState::Queued;
    sqlx::query(
        "INSERT INTO runs (session_no, n, id, state, epoch, dir, meta, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(current.no)
    .bind(i64::from(run.n))
    .bind(run.id.spelled())
    .bind(current.state.as_str())
    .bind(signed(run.epoch))
    .bind(&run.dir)
    .bind(json(&run.meta))
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

async fn run(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &mut Current,
    update: &RunUpdate,
) -> Result<(), CommitError> {
    let RunUpdate { n, state, cursor, hold, epoch, meta, exit } = update;
    let done = sqlx::query(
        "UPDATE runs SET state = coalesce($3, state), cursor = coalesce($4, cursor),
         hold = CASE WHEN $5 THEN $6 ELSE hold END, epoch = coalesce($7, epoch), meta = coalesce($8, meta),
         exit = coalesce($9, exit), updated_at = $10 WHERE session_no = $1 AND n = $2",
    )
    .bind(current.no)
    .bind(i64::from(*n))
    .bind(state.map(RunState::as_str))
    .bind(cursor.map(signed))
    .bind(hold.is_some())
    .bind(hold.flatten().map(signed))
    .bind(epoch.map(signed))
    .bind(meta.as_ref().map(json))
    .bind(exit.as_ref().map(json))
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 {
        return Err(CommitError::NoRun(*n));
    }
    if let (Some(state), true) = (state, *n == current.newest_run) {
        current.state = *state;
    }
    Ok(())
}

async fn add_message(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &Current,
    message: &NewMessage,
) -> Result<(), CommitError> {
    sqlx::query(
        "INSERT INTO messages (session_no, id, seq, state, if_busy, priority, body, created_at, updated_at)
         VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $7)",
    )
    .bind(current.no)
    .bind(message.id.spelled())
    .bind(seq(commit, current, message.accepted)?)
    .bind(if_busy_name(message.if_busy))
    .bind(message.priority.map(priority_name))
    .bind(&message.body)
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

async fn message(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &Current,
    update: &MessageUpdate,
) -> Result<(), CommitError> {
    let MessageUpdate { id, from, state, run, turn, delivered, result, result_at } = update;
    if !from.is_empty() {
        let held: Option<String> =
            sqlx::query_scalar("SELECT state FROM messages WHERE session_no = $1 AND id = $2")
                .bind(current.no)
                .bind(id.spelled())
                .fetch_optional(&mut *conn)
                .await?;
        let held = held.ok_or(CommitError::NoMessage(*id))?;
        if !from.iter().any(|state| state.as_str() == held) {
            let state = castra_proto::api::MessageState::parse(&held)
                .ok_or_else(|| crate::sqlite::columns::damaged("messages", "state", &held))?;
            return Err(CommitError::MessageConflict { id: *id, state });
        }
    }
    let delivered = delivered.map(|at| seq(commit, current, at)).transpose()?;
    let result_at = result_at.map(|at| seq(commit, current, at)).transpose()?;
    let done = sqlx::query(
        "UPDATE messages SET state = coalesce($3, state), run = coalesce($4, run), turn = coalesce($5, turn),
         delivered_seq = coalesce($6, delivered_seq), result = coalesce($7, result),
         result_seq = coalesce($8, result_seq), updated_at = $9 WHERE session_no = $1 AND id = $2",
    )
    .bind(current.no)
    .bind(id.spelled())
    .bind(state.map(castra_proto::api::MessageState::as_str))
    .bind(run.map(i64::from))
    .bind(turn.map(i64::from))
    .bind(delivered)
    .bind(result.as_ref().map(json))
    .bind(result_at)
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 { Err(CommitError::NoMessage(*id)) } else { Ok(()) }
}

async fn add_command(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &Current,
    command: &NewCommand,
) -> Result<(), CommitError> {
    if let Some(subject) = &command.subject {
        guard::undecided(conn, current, &command.kind, subject).await?;
    }
    sqlx::query(
        "INSERT INTO commands
         (id, session_no, kind, subject, args, given_by, state, owner, epoch, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
    )
    .bind(command.id.spelled())
    .bind(current.no)
    .bind(&command.kind)
    .bind(&command.subject)
    .bind(json(&command.args))
    .bind(&command.by)
    .bind(command.state.as_str())
    .bind(&command.owner)
    .bind(command.epoch.map(signed))
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

async fn remove(
    conn: &mut SqliteConnection,
    commit: &Commit,
    current: &mut Current,
) -> Result<(), StoreError> {
    current.removed = true;
    sqlx::query("UPDATE sessions SET removed_at = $2, name = NULL WHERE no = $1")
        .bind(current.no)
        .bind(commit.at.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE specs SET secrets = NULL WHERE session_no = $1")
        .bind(current.no)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM tokens WHERE session = $1")
        .bind(commit.session.spelled())
        .execute(&mut *conn)
        .await?;
    Ok(())
}
