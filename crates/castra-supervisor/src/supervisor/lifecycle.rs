//! Lives of sessions: stop, resume, fork, clear, remove.

use super::start::Plan;
use super::{Caller, Supervisor};
use crate::engine::{Engine, json_text, now};
use crate::session::commands::{INTERRUPT, STOP};
use crate::session::finish::run_dir;
use crate::session::forward::later_run;
use crate::session::launch::Place;
use crate::session::state::Cause;
use crate::session::view::{Added, Origin};
use crate::{Error, Result, redact, shown};
use castra_proto::api::{Fork, Resume, SendMessage};
use castra_proto::shim::relay::At;
use castra_proto::spec::Mode;
use castra_proto::{CommandId, ErrorCode, OwnKind, RunId, RunState, Session, SessionId, SessionSpec};
use castra_store::{Change, CommandState, Commit, Guard, NewCommand, NewRun, RunUpdate, SessionUpdate};
use serde_json::{Value, json};
use std::sync::Arc;

impl Supervisor {
    /// Ends the turn that runs. Returns when claude has taken it.
    pub async fn interrupt(&self, id: SessionId, caller: &Caller) -> Result<Session> {
        let row = self.row(id).await?;
        if row.state.is_final() {
            return Err(Error::over(row.state));
        }
        self.command(id, INTERRUPT, None, json!({}), caller, true).await?;
        self.show(id).await
    }

    /// Returns when the run is over. A session that is over already is fine.
    pub async fn stop(&self, id: SessionId, caller: &Caller) -> Result<Session> {
        let row = self.row(id).await?;
        if !row.state.is_final() {
            let hub = self.engine.hub(id).await?;
            let mut head = hub.head.subscribe();
            self.command(id, STOP, None, json!({}), caller, false).await?;
            while !self.row(id).await?.state.is_final() {
                if head.changed().await.is_err() {
                    break;
                }
            }
        }
        self.show(id).await
    }

    /// Continues an ended or lost session in a new run, in the other mode if that is asked for.
    ///
    /// Errors: `conflict` when it is alive, or somebody else was first; `invalid_request` when its spec has a field that
    /// the other mode does not know.
    pub async fn resume(&self, id: SessionId, resume: Resume, caller: &Caller) -> Result<Session> {
        let row = self.row(id).await?;
        if !row.state.is_final() {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("the session is {}", row.state),
                "it is alive: `castra send ID …` or `castra attach ID`",
            ));
        }
        let mode = resume.mode.filter(|mode| *mode != row.mode);
        if let Some(mode) = mode {
            let spec = in_mode(self.engine.spec(id, &row.spec).await?, mode);
            self.check_spec(id, &spec).await?;
        }
        begin_next_run(&self.engine, id, &caller.by, mode).await?;
        self.show(id).await
    }

    /// A new session with a copy of this one's conversation, which is not changed.
    pub async fn fork(&self, id: SessionId, fork: Fork, caller: &Caller) -> Result<Session> {
        let row = self.row(id).await?;
        let view = shown::view(&row)?;
        let Some(from) = view.claude_session_id.filter(|_| view.results > 0) else {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                "the session has no conversation yet",
                "send it a message first",
            ));
        };
        let mut spec = self.engine.spec(id, &row.spec).await?;
        let place = Place::new(&self.engine.probe, id, &spec);
        let child = SessionId::now();
        let shared = spec.workdir.is_some();
        if !shared {
            self.copy_work(id, child).await?;
        }
        spec.name = fork.name;
        spec.session_id = None;
        spec.continue_ = false;
        spec.resume = None;
        spec.fork_of = Some(id);
        let mut plan = Plan::new(child, spec);
        plan.origin = Some(Origin::Fork { parent: id, from, project_dir: place.project_dir });
        plan.remembered = view.remembered;
        plan.said = json!({"forked_from": id, "claude_session_id": from, "workdir_shared": shared});
        self.begin(plan, None, caller).await
    }

    async fn copy_work(&self, from: SessionId, to: SessionId) -> Result<()> {
        let files = self.engine.host.files();
        files.mkdir(At::home(format!("sessions/{to}")), 0o700).await?;
        let from = At::home(format!("sessions/{from}/work"));
        if files.stat(from.clone()).await?.is_some() {
            files.copy_tree(from, At::home(format!("sessions/{to}/work"))).await?;
        }
        Ok(())
    }

    /// Forgets the conversation, as claude's own `/clear` does; the session goes on.
    pub async fn clear(&self, id: SessionId, caller: &Caller) -> Result<Session> {
        let message = SendMessage { command: Some("/clear".into()), ..SendMessage::default() };
        let accepted = self.send(id, message, None, caller).await?;
        self.wait(id, accepted.message_id, std::time::Duration::from_secs(60)).await?;
        self.show(id).await
    }

    /// Removes an ended session and what castra created for it, never a caller's `workdir`;
    /// `force` stops it first.
    pub async fn remove(&self, id: SessionId, force: bool, caller: &Caller) -> Result<()> {
        let row = self.row(id).await?;
        if !row.state.is_final() {
            if !force {
                return Err(Error::with_hint(
                    ErrorCode::Conflict,
                    format!("the session is {}", row.state),
                    "stop it first, or use `castra rm --force ID`",
                ));
            }
            self.stop(id, caller).await?;
        }
        remove_ended(&self.engine, id).await
    }

    /// A command row, and whoever carries it out. With `wait`, its result.
    pub(crate) async fn command(
        &self,
        id: SessionId,
        kind: &str,
        subject: Option<String>,
        args: Value,
        caller: &Caller,
        wait: bool,
    ) -> Result<Option<Value>> {
        let view = shown::view(&self.row(id).await?)?;
        let command = CommandId::now();
        let hub = self.engine.hub(id).await?;
        let mut head = hub.head.subscribe();
        let said = view.event(
            now(),
            OwnKind::Control,
            &json!({"request_id": command, "command": kind, "subtype": args.get("subtype"), "subject": subject, "by": caller.by}),
        );
        let commit = Commit::new(id, now())
            .change(Change::AddCommand(NewCommand {
                id: command,
                kind: kind.into(),
                subject,
                args,
                by: caller.by.clone(),
                state: CommandState::Accepted,
                owner: Some(self.engine.owner.clone()),
                epoch: Some(self.engine.epoch),
            }))
            .event(said);
        self.engine.store.commit(commit).await?;
        self.engine.drive(id);
        if !wait {
            return Ok(None);
        }
        loop {
            let row = self.engine.store.command(command).await?;
            match row.map(|row| (row.state, row.result)) {
                Some((CommandState::Done, result)) => return Ok(result),
                Some((CommandState::Superseded, _)) | None => {
                    return Err(Error::new(ErrorCode::Conflict, "the run was over before claude answered"));
                }
                Some(_) => {}
            }
            if self.row(id).await?.state.is_final() && !self.engine.has_actor(id) {
                return Err(Error::over(self.row(id).await?.state));
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() {
                    return Err(Error::new(ErrorCode::Conflict, "the session was removed"));
                },
                // A command that changes no event moves no head.
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
        }
    }
}

/// A spec for the other mode: what only a terminal knows goes with it.
fn in_mode(mut spec: SessionSpec, mode: Mode) -> SessionSpec {
    spec.mode = mode;
    if mode == Mode::Stream {
        spec.tui = None;
        spec.tmux = None;
    }
    spec
}

/// The next run of a session whose newest is over: exactly one caller wins.
pub(crate) async fn begin_next_run(
    engine: &Arc<Engine>,
    id: SessionId,
    by: &str,
    mode: Option<Mode>,
) -> Result<u32> {
    let row = engine.store.session(id).await?.ok_or_else(|| Error::session_not_found(&id.to_string()))?;
    let mut view = shown::view(&row)?;
    let spec = engine.spec(id, &row.spec).await?;
    let n = row.newest_run + 1;
    // The log may know this run already: the database was restored from a backup.
    let begun = later_run(engine, id, n).await?;
    if let Some(max) = spec.limits.max_budget_usd
        && view.cost_usd() >= max
        && begun.is_none()
    {
        return Err(Error::with_hint(
            ErrorCode::BudgetExceeded,
            format!("the session has spent ${:.4} of ${max:.4}", view.cost_usd()),
            "fork it, or start a new one with another budget",
        ));
    }
    let at = now();
    view.begin_run(n, at);
    view.resumed_at = view.results;
    let resumed = view.event(
        at,
        OwnKind::Resumed,
        &json!({"claude_session_id": view.claude_session_id, "mode": mode.unwrap_or(row.mode), "by": by}),
    );
    let state = view.event(
        at,
        OwnKind::State,
        &json!({"from": row.state, "to": RunState::Queued, "cause": "resumed"}),
    );
    let mut added = Added::default();
    if begun.is_some() {
        // It has been started; only what it says is news.
        view.shift(Cause::Admitted, at, &mut added);
    }
    let mut commit = Commit::new(id, at)
        .fenced_by(engine.epoch)
        .guard(Guard::NewestRun { n: row.newest_run, is_final: true })
        .change(Change::StartRun(NewRun {
            n,
            id: begun.unwrap_or_else(RunId::now),
            epoch: engine.epoch,
            dir: run_dir(id, n).0,
            meta: json!({}),
        }))
        .change(Change::Run(RunUpdate { n, state: Some(view.state), ..RunUpdate::default() }))
        .change(Change::Session(SessionUpdate {
            view: Some(json_text(&view)?),
            mode,
            spec: mode.map(|mode| json_text(&redact::split(&in_mode(spec, mode)).0)).transpose()?,
            ..SessionUpdate::default()
        }))
        .event(resumed)
        .event(state)
        .server_event("session_state", shown::brief(&view));
    commit.events.extend(added.events);
    engine.store.commit(commit).await?;
    engine.drive(id);
    Ok(n)
}

/// Removes rows first, then folders: what is left after a crash is found by nobody and pruned.
pub(crate) async fn remove_ended(engine: &Arc<Engine>, id: SessionId) -> Result<()> {
    let commit = Commit::new(id, now()).change(Change::Remove).server_event("session_removed", json!({}));
    engine.store.commit(commit).await?;
    let _files = engine.packing.files.lock().await;
    engine.host.files().remove(At::home(format!("sessions/{id}"))).await?;
    Ok(())
}
