//! How a run ends: what its exit means, what became of its last messages, and what is left of its tree.

use super::actor::Actor;
use super::forward::{RESTORED, later_run};
use super::state::Cause;
use super::view::View;
use crate::engine::{Engine, now};
use crate::host::{LogReader, RunDir};
use crate::{Error, Result};
use castra_claude::transcript;
use castra_proto::api::MessageState;
use castra_proto::session::{Exit, ExitCause, Reaped, SandboxKind};
use castra_proto::shim::relay::{At, Proof};
use castra_proto::shim::{ExitCause as NoteCause, TreeProof};
use castra_proto::{MessageId, OwnKind, Problem, RunState, SessionId, SessionSpec, Timestamp};
use castra_store::{Change, MessageUpdate, RunUpdate};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::info;

/// How long guard and shim get to empty the tree and say so.
const PROOF: Duration = Duration::from_secs(2);

/// How a run is over.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    code: Option<i32>,
    signal: Option<i32>,
    tail_lost: bool,
    reaped: Reaped,
    why: Why,
    detail: Option<Problem>,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// claude exited, by itself or asked.
    Exited(NoteCause),
    SpawnFailed,
    /// Stopped before anything was started.
    NeverStarted,
    Vanished,
}

impl Ending {
    pub(crate) fn exit(
        code: Option<i32>,
        signal: Option<i32>,
        tail_lost: bool,
        tree: TreeProof,
        cause: NoteCause,
        at: Timestamp,
    ) -> Self {
        let reaped = match tree {
            TreeProof::Empty => Reaped::Proved,
            TreeProof::Unproven => Reaped::Unproven,
        };
        Self { code, signal, tail_lost, reaped, why: Why::Exited(cause), detail: None, at }
    }

    pub(crate) fn spawn_failed(message: String) -> Self {
        Self::refused(Problem::new(castra_proto::ErrorCode::CliStartFailed, message))
    }

    /// The start was refused or failed; nothing is left running.
    pub(crate) fn refused(problem: Problem) -> Self {
        Self { why: Why::SpawnFailed, detail: Some(problem), ..Self::never_started() }
    }

    pub(crate) fn never_started() -> Self {
        Self {
            code: None,
            signal: None,
            tail_lost: false,
            reaped: Reaped::Proved,
            why: Why::NeverStarted,
            detail: None,
            at: now(),
        }
    }

    fn vanished(reaped: Reaped) -> Self {
        Self { why: Why::Vanished, reaped, ..Self::never_started() }
    }

    /// Judged by the end that was asked for, not by the exit code (facts/shim.md §4).
    fn cause(&self, asked: Option<ExitCause>) -> ExitCause {
        match (self.why, asked) {
            (Why::Vanished | Why::Exited(NoteCause::GuardLost), _) => ExitCause::Lost,
            (Why::Exited(NoteCause::MemoryLimit), _) => ExitCause::MemoryLimit,
            (_, Some(asked)) => asked,
            (Why::SpawnFailed, None) => ExitCause::SpawnFailed,
            (Why::NeverStarted, None) => ExitCause::Stopped,
            (Why::Exited(_), None) if self.code == Some(0) => ExitCause::Finished,
            (Why::Exited(_), None) => ExitCause::Crashed,
        }
    }
}

impl Actor<'_> {
    /// The run is over: one transaction says so, then the shim may go.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let Some(ending) = self.ending.clone() else { return Ok(()) };
        self.tty_finish().await;
        self.log_is_over();
        let mut torn = Vec::new();
        self.decoder.finish(&mut torn);
        for line in torn {
            self.view.apply(line, &self.given, &mut self.added);
        }
        self.settle_effects();
        let cause = ending.cause(self.view.stop);
        self.fates(cause).await?;
        let lost = cause == ExitCause::Lost;
        let exit = Exit {
            cause,
            code: ending.code,
            signal: ending.signal,
            tail_lost: ending.tail_lost,
            reaped: ending.reaped,
            detail: ending.detail.as_ref().map(|problem| problem.detail.clone()),
            at: ending.at,
        };
        let mut data = json!(exit);
        if let (Some(data), Some(problem)) = (data.as_object_mut(), &ending.detail) {
            data.insert("problem".into(), json!(problem));
        }
        self.added.events.push(self.view.event(ending.at, OwnKind::Exit, &data));
        for pending in std::mem::take(&mut self.view.pending) {
            let data = json!({"request_id": pending.request_id, "state": "superseded"});
            self.added.events.push(self.view.event(ending.at, OwnKind::PermissionAnswered, &data));
        }
        let by = if lost { Cause::Vanished } else { Cause::Exited };
        self.view.shift(by, ending.at, &mut self.added);
        self.view.pid = None;
        self.view.shim_pid = None;
        self.view.tools_open.clear();
        self.changes.push(Change::Run(RunUpdate {
            n: self.run.n,
            exit: Some(json!(exit)),
            ..RunUpdate::default()
        }));
        self.view.exit = Some(exit);
        self.view.flags = Default::default();
        self.close_commands();
        self.permit = None;
        crate::failpoint::failpoint!("exit.before");
        self.commit().await?;
        crate::failpoint::failpoint!("exit.after");
        info!(session = %self.id, run = self.run.n, ?cause, code = ending.code, signal = ending.signal, "run ended");
        if let Some(writer) = &mut self.writer {
            // Its last word is committed. If this is lost, the shim waits for the next daemon.
            let _ = writer.ack(self.run.cursor).await;
        }
        self.engine.packing.due(self.id, self.run.n);
        afterwards(self.engine, self.id, &self.spec, &self.view).await
    }

    /// A run that cannot be joined: is it over, and is nothing of it left? False: it may be joined again.
    pub(crate) async fn vanished(&mut self) -> Result<bool> {
        let deadline = Instant::now() + PROOF;
        let state = loop {
            let state = self.engine.host.tree_state(&self.run.dir).await?;
            if state.proof != Proof::None {
                break state;
            }
            if state.shim_alive && Instant::now() < deadline {
                // It has not bound its socket yet, or is about to log its last record.
                sleep(Duration::from_millis(20)).await;
                return Ok(false);
            }
            if !(state.guard_alive || state.shim_alive) || Instant::now() >= deadline {
                break state;
            }
            sleep(Duration::from_millis(10)).await;
        };
        let proved = match state.proof {
            Proof::None => self.swept(state.claude_alive).await?,
            _ => true,
        };
        self.writer = None;
        self.read_rest().await?;
        let reaped = if proved { Reaped::Proved } else { Reaped::Unproven };
        self.ending.get_or_insert(Ending::vanished(reaped));
        self.finish().await?;
        Ok(true)
    }

    /// Kills what carries the run's id. True: a pid namespace proves that nothing else is left.
    async fn swept(&mut self, claude_alive: bool) -> Result<bool> {
        let swept = self.engine.host.sweep(self.run.id.0).await?;
        let namespaced = self.view.sandbox.as_ref().is_some_and(|s| s.kind == SandboxKind::Bubblewrap);
        Ok(namespaced && swept.left.is_empty() && !claude_alive)
    }

    /// The log is whole to its last record, also when nobody serves it any more.
    async fn read_rest(&mut self) -> Result<()> {
        let from = self.run.hold.unwrap_or(self.run.cursor + 1).min(self.run.cursor + 1);
        self.look_forward().await?;
        let mut log = LogReader::open(self.engine.host.files(), &self.run.dir, from).await?;
        while let Some(records) = log.next().await? {
            for record in records {
                self.record(record);
            }
            if !self.added.events.is_empty() && self.ending.is_none() {
                self.commit().await?;
            }
        }
        Ok(())
    }

    /// What became of the messages that claude had when it died (design §4): the transcript knows.
    async fn fates(&mut self, cause: ExitCause) -> Result<()> {
        let in_flight = self.view.in_flight.take().map(|in_flight| (in_flight.message, false));
        let unanswered = std::mem::take(&mut self.view.turn.messages);
        let had: Vec<_> = unanswered.into_iter().map(|message| (message, true)).chain(in_flight).collect();
        if had.is_empty() {
            return Ok(());
        }
        let transcript = self.transcript().await?;
        let at = now();
        let mut to_go_on = false;
        let mut tool_in_flight = !self.view.tools_open.is_empty();
        for (message, delivered) in had {
            match transcript::cutoff(&transcript, message.0) {
                // claude writes down what it has begun with a moment later: it may have said so, and died before.
                None if !(delivered && self.view.turn.acted) => self.queue_again(message, delivered, at),
                fate => {
                    to_go_on |= !fate.is_some_and(|fate| fate.answered);
                    tool_in_flight |= fate.is_some_and(|fate| fate.tool_in_flight);
                    self.cut_off(message, at);
                }
            }
        }
        let by_itself = matches!(cause, ExitCause::Crashed | ExitCause::Lost);
        // A tool may have run: only a person can know whether to go on.
        self.view.carry_on = by_itself && to_go_on && !tool_in_flight;
        Ok(())
    }

    /// It stands in no conversation: it waits for the next run, with the same uuid.
    fn queue_again(&mut self, message: MessageId, delivered: bool, at: Timestamp) {
        if delivered {
            let data = json!({"message_id": message, "cause": "not_in_conversation"});
            self.added.events.push(self.view.event(at, OwnKind::Queued, &data));
        }
        self.changes.push(Change::Message(MessageUpdate {
            state: Some(MessageState::Queued),
            ..MessageUpdate::new(message)
        }));
    }

    fn cut_off(&mut self, message: MessageId, at: Timestamp) {
        self.view.interrupted(message, None, None, at, &mut self.added);
        self.settle_effects();
    }

    /// The newest transcript's bytes; empty when there is none.
    async fn transcript(&self) -> Result<Vec<u8>> {
        let Some(id) = self.view.claude_session_id else { return Ok(Vec::new()) };
        let place = self.place();
        let at = At::dir(place.project_dir, format!("{id}.jsonl"));
        match super::launch::whole(self.engine.host.files(), at).await {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(Error::Host(error)) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn claude_state_file(&self) -> Option<serde_json::Value> {
        let place = self.place();
        let files = self.engine.host.files();
        let dir = At::dir(place.config_dir.clone(), "sessions");
        let newest = files.list(dir).await.ok()?.into_iter().max_by_key(|entry| entry.mtime_ns)?;
        let at = At::dir(place.config_dir, format!("sessions/{}", newest.name));
        let (bytes, _) = files.get(at, 0, 64 << 10).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The run is final and committed: what the spec wants next. Done again after a crash, it does no more.
pub(crate) async fn afterwards(
    engine: &Arc<Engine>,
    id: SessionId,
    spec: &SessionSpec,
    view: &View,
) -> Result<()> {
    let Some(exit) = &view.exit else { return Ok(()) };
    if later_run(engine, id, view.run + 1).await?.is_some() {
        // A backup took the database's place: what came after this run is brought forward.
        match crate::supervisor::lifecycle::begin_next_run(engine, id, RESTORED, None).await {
            Ok(_) | Err(Error::Commit(_)) => {}
            Err(error) => return Err(error),
        }
    } else if spec.auto_resume
        && matches!(exit.cause, ExitCause::Crashed | ExitCause::Lost)
        && view.results > view.resumed_at
    {
        // A run that gave no result since the last resume is not begun again: it would go on for ever.
        match crate::supervisor::lifecycle::begin_next_run(engine, id, "castra:auto_resume", None).await {
            Ok(_) | Err(Error::Commit(_)) => {}
            Err(error) => return Err(error),
        }
    } else if spec.ephemeral && view.state == RunState::Ended {
        crate::supervisor::lifecycle::remove_ended(engine, id).await?;
    }
    Ok(())
}

/// The file or folder is not there.
pub(crate) fn is_missing(error: &crate::host::HostError) -> bool {
    matches!(error, crate::host::HostError::Relay(relay) if relay.errno() == Some(2))
}

/// Something on the way is no folder (ENOTDIR).
pub(crate) fn is_not_a_dir(error: &crate::host::HostError) -> bool {
    matches!(error, crate::host::HostError::Relay(relay) if relay.errno() == Some(20))
}

/// The directory of run `n`.
pub(crate) fn run_dir(id: castra_proto::SessionId, n: u32) -> RunDir {
    RunDir::new(&id.to_string(), u64::from(n))
}
