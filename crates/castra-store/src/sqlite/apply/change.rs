//! What a commit does besides its events: one statement, or a few, for each change. Refuses to decide.

use super::{Check, Current, seq};
use crate::commit::{
    Change, Commit, MessageUpdate, NewCommand, NewMessage, NewRun, NewSession, RunUpdate, SessionUpdate,
};
use crate::error::{CommitError, StoreError};
use crate::key::Key;
use crate::sqlite::columns::{Spelled, if_busy_name, json, mode_name, priority_name, signed};
use crate::sqlite::script::Script;
use castra_proto::api::MessageState;
use castra_proto::{RunState, SessionId};
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

pub(super) fn apply(
    script: &mut Script<Check>,
    key: &Key,
    commit: &Commit,
    current: &mut Current,
    change: &Change,
) -> Result<(), CommitError> {
    match change {
        Change::Create(new) => create(script, key, commit, current, new)?,
        Change::Session(update) => session(script, key, commit, current, update)?,
        Change::ClaudeSession(id) => claude_session(script, current, *id),
        Change::StartRun(run) => start_run(script, commit, current, run)?,
        Change::Run(update) => self::run(script, commit, current, update),
        Change::AddMessage(message) => add_message(script, commit, current, message)?,
        Change::Message(update) => self::message(script, commit, current, update)?,
        Change::AddCommand(command) => add_command(script, commit, current, command),
        Change::Command { id, state, result } => {
            script
                .say(
                    "UPDATE commands SET state = ?, result = coalesce(?, result), updated_at = ?
                     WHERE session_no = ? AND id = ?",
                )
                .bind(state.as_str())
                .bind(result.as_ref().map(json))
                .bind(commit.at.0)
                .bind(current.no)
                .bind(id.spelled())
                .changes_or(Check::NoCommand(*id));
        }
        Change::Remove => remove(script, commit, current),
    }
    Ok(())
}

/// The session's own row, which every commit leaves as the last thing it writes.
pub(super) fn settle(script: &mut Script<Check>, commit: &Commit, current: &Current) {
    script
        .say(
            "UPDATE sessions SET epoch = ?, head = ?, newest_run = ?, state = ?, updated_at = ? WHERE no = ?",
        )
        .bind(signed(current.epoch))
        .bind(signed(current.head))
        .bind(i64::from(current.newest_run))
        .bind(current.state.as_str())
        .bind(commit.at.0)
        .bind(current.no);
}

/// The session that the next `Create` makes; nobody else gives out numbers.
pub(super) async fn unborn(conn: &mut SqliteConnection) -> Result<Current, StoreError> {
    let no: i64 = sqlx::query_scalar("SELECT 1 + coalesce(max(no), 0) FROM sessions").fetch_one(conn).await?;
    Ok(Current { no, epoch: 0, head: 0, newest_run: 0, state: RunState::Queued, removed: false })
}

fn create(
    script: &mut Script<Check>,
    key: &Key,
    commit: &Commit,
    current: &Current,
    new: &NewSession,
) -> Result<(), StoreError> {
    script
        .say(
            "INSERT INTO sessions (no, id, name, host, owner, mode, state, cwd, labels, fork_of, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(current.no)
        .bind(commit.session.spelled())
        .bind(new.name.clone())
        .bind(new.host.clone())
        .bind(new.owner.clone())
        .bind(mode_name(new.mode))
        .bind(current.state.as_str())
        .bind(new.cwd.clone())
        .bind(json(&new.labels))
        .bind(new.fork_of.map(|id| id.spelled()))
        .bind(commit.at.0)
        .bind(commit.at.0)
        .say("INSERT INTO specs (session_no, spec, secrets) VALUES (?, ?, ?)")
        .bind(current.no)
        .bind(new.spec.clone())
        .bind(sealed(key, commit.session, new.spec_secrets.as_ref())?)
        .say("INSERT INTO views (session_no, view) VALUES (?, ?)")
        .bind(current.no)
        .bind(new.view.clone());
    Ok(())
}

fn sealed(key: &Key, session: SessionId, secrets: Option<&Value>) -> Result<Option<Vec<u8>>, StoreError> {
    secrets.map(|secrets| key.seal_secrets(session, json(secrets).as_bytes())).transpose()
}

fn session(
    script: &mut Script<Check>,
    key: &Key,
    commit: &Commit,
    current: &mut Current,
    update: &SessionUpdate,
) -> Result<(), StoreError> {
    let SessionUpdate { state, view, offers, name, labels, cwd, spec, spec_secrets, owner, mode } = update;
    if let Some(state) = state {
        current.state = *state;
    }
    if let Some(view) = view {
        script.say("UPDATE views SET view = ? WHERE session_no = ?").bind(view.clone()).bind(current.no);
    }
    if let Some(offers) = offers {
        script.say("UPDATE views SET offers = ? WHERE session_no = ?").bind(offers.clone()).bind(current.no);
    }
    if name.is_some() || labels.is_some() || cwd.is_some() || owner.is_some() || mode.is_some() {
        script
            .say(
                "UPDATE sessions SET name = CASE WHEN ? THEN ? ELSE name END, labels = coalesce(?, labels),
                 cwd = coalesce(?, cwd), owner = coalesce(?, owner), mode = coalesce(?, mode) WHERE no = ?",
            )
            .bind(name.is_some())
            .bind(name.clone().flatten())
            .bind(labels.as_ref().map(json))
            .bind(cwd.clone())
            .bind(owner.clone())
            .bind(mode.map(mode_name))
            .bind(current.no);
    }
    if spec.is_some() || spec_secrets.is_some() {
        script
            .say(
                "UPDATE specs SET spec = coalesce(?, spec), secrets = coalesce(?, secrets) WHERE session_no = ?",
            )
            .bind(spec.clone())
            .bind(sealed(key, commit.session, spec_secrets.as_ref())?)
            .bind(current.no);
    }
    Ok(())
}

fn claude_session(script: &mut Script<Check>, current: &Current, id: Uuid) {
    script
        .say(
            "INSERT INTO claude_sessions (session_no, n, id)
             SELECT s.no, 1 + coalesce((SELECT max(n) FROM claude_sessions WHERE session_no = s.no), 0), ?
             FROM sessions s WHERE s.no = ? AND
             coalesce((SELECT id FROM claude_sessions WHERE session_no = s.no ORDER BY n DESC LIMIT 1), '') <> ?",
        )
        .bind(id.to_string())
        .bind(current.no)
        .bind(id.to_string());
}

fn start_run(
    script: &mut Script<Check>,
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
    script
        .say(
            "INSERT INTO runs (session_no, n, id, state, epoch, dir, meta, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(current.no)
        .bind(i64::from(run.n))
        .bind(run.id.spelled())
        .bind(current.state.as_str())
        .bind(signed(run.epoch))
        .bind(run.dir.clone())
        .bind(json(&run.meta))
        .bind(commit.at.0)
        .bind(commit.at.0);
    Ok(())
}

fn run(script: &mut Script<Check>, commit: &Commit, current: &mut Current, update: &RunUpdate) {
    let RunUpdate { n, state, cursor, hold, epoch, meta, exit } = update;
    script
        .say(
            "UPDATE runs SET state = coalesce(?, state), cursor = coalesce(?, cursor),
             hold = CASE WHEN ? THEN ? ELSE hold END, epoch = coalesce(?, epoch), meta = coalesce(?, meta),
             exit = coalesce(?, exit), updated_at = ? WHERE session_no = ? AND n = ?",
        )
        .bind(state.map(RunState::as_str))
        .bind(cursor.map(signed))
        .bind(hold.is_some())
        .bind(hold.flatten().map(signed))
        .bind(epoch.map(signed))
        .bind(meta.as_ref().map(json))
        .bind(exit.as_ref().map(json))
        .bind(commit.at.0)
        .bind(current.no)
        .bind(i64::from(*n))
        .changes_or(Check::NoRun(*n));
    if let (Some(state), true) = (state, *n == current.newest_run) {
        current.state = *state;
    }
}

fn add_message(
    script: &mut Script<Check>,
    commit: &Commit,
    current: &Current,
    message: &NewMessage,
) -> Result<(), CommitError> {
    script
        .say(
            "INSERT INTO messages (session_no, id, seq, state, if_busy, priority, body, created_at, updated_at)
             VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?)",
        )
        .bind(current.no)
        .bind(message.id.spelled())
        .bind(seq(commit, current.head, message.accepted)?)
        .bind(if_busy_name(message.if_busy))
        .bind(message.priority.map(priority_name))
        .bind(message.body.clone())
        .bind(commit.at.0)
        .bind(commit.at.0)
        .or(Check::Known);
    Ok(())
}

fn message(
    script: &mut Script<Check>,
    commit: &Commit,
    current: &Current,
    update: &MessageUpdate,
) -> Result<(), CommitError> {
    let MessageUpdate { id, from, state, run, turn, delivered, result, result_at } = update;
    let delivered = delivered.map(|at| seq(commit, current.head, at)).transpose()?;
    let result_at = result_at.map(|at| seq(commit, current.head, at)).transpose()?;
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    script
        .say(
            "UPDATE messages SET state = coalesce(?, state), run = coalesce(?, run), turn = coalesce(?, turn),
             delivered_seq = coalesce(?, delivered_seq), result = coalesce(?, result),
             result_seq = coalesce(?, result_seq), updated_at = ? WHERE session_no = ? AND id = ?
             AND (? OR state IN (SELECT value FROM json_each(?)))",
        )
        .bind(state.map(MessageState::as_str))
        .bind(run.map(i64::from))
        .bind(turn.map(i64::from))
        .bind(delivered)
        .bind(result.as_ref().map(json))
        .bind(result_at)
        .bind(commit.at.0)
        .bind(current.no)
        .bind(id.spelled())
        .bind(from.is_empty())
        .bind(json(&from))
        .changes_or(Check::Message(*id));
    Ok(())
}

fn add_command(script: &mut Script<Check>, commit: &Commit, current: &Current, command: &NewCommand) {
    script
        .say(
            "INSERT INTO commands
             (id, session_no, kind, subject, args, given_by, state, owner, epoch, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(command.id.spelled())
        .bind(current.no)
        .bind(command.kind.clone())
        .bind(command.subject.clone())
        .bind(json(&command.args))
        .bind(command.by.clone())
        .bind(command.state.as_str())
        .bind(command.owner.clone())
        .bind(command.epoch.map(signed))
        .bind(commit.at.0)
        .bind(commit.at.0);
    if let Some(subject) = &command.subject {
        // The index `commands_decided` holds it.
        script.or(Check::Undecided { kind: command.kind.clone(), subject: subject.clone() });
    }
}

fn remove(script: &mut Script<Check>, commit: &Commit, current: &mut Current) {
    current.removed = true;
    script
        .say("UPDATE sessions SET removed_at = ?, name = NULL WHERE no = ?")
        .bind(commit.at.0)
        .bind(current.no)
        .say("UPDATE specs SET secrets = NULL WHERE session_no = ?")
        .bind(current.no)
        .say("DELETE FROM tokens WHERE session = ?")
        .bind(commit.session.spelled());
}
