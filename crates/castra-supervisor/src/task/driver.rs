//! Drives one task from its admission to its end. Whatever it knows is in the store, and whatever it does it may do
//! again: it can be killed at any point and begun anew.

use super::held::Held;
use super::hooks::{self, Due};
use super::hub::Driving;
use super::mended::is_for_good;
use super::protocol::Enabled;
use super::protocol::notice;
use super::protocol::text::MCP_SERVER;
use super::state::Cause;
use super::view::{Effect, Outcome, Told, completion, has_mcp, mode};
use super::{children, end, group, inputs, resumed, upload};
use crate::engine::now;
use crate::session::coordinate::Coordination;
use crate::supervisor::start::Plan;
use crate::supervisor::{Caller, Supervisor};
use crate::{Error, Result};
use castra_proto::api::{MessageState, Scope, SendMessage};
use castra_proto::task::{Completion, HookPoint, Level, ReasonCode, Start, TaskEventKind};
use castra_proto::{ErrorCode, MessageId, SessionId, SessionSpec, TaskId, TaskState};
use castra_store::{CommitError, TaskError};
use serde_json::json;
use std::time::Duration;
use tracing::warn;

/// Between two tries at a task that could not be driven: at first, and doubled up to the last.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRY_LATER: Duration = Duration::from_secs(8);
/// Events of a session that are folded before they are committed.
const BATCH: u32 = 500;
const BATCH_BYTES: usize = 4 << 20;

/// Whoever acts for a task, where it is written who did.
pub(crate) fn caller(task: TaskId) -> Caller {
    Caller { by: format!("task:{task}"), scope: Scope::Admin }
}

/// Makes sure that somebody drives this task.
pub(crate) fn drive(supervisor: &Supervisor, id: TaskId) {
    let Some(driving) = supervisor.engine.tasks.take(id) else { return };
    let supervisor = supervisor.clone();
    tokio::spawn(async move {
        let mut closing = supervisor.engine.closing.subscribe();
        tokio::select! {
            () = Driver { supervisor, driving }.live() => {}
            // Dropped wherever it stands: the next one begins from the store.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
}

pub(super) struct Driver {
    pub supervisor: Supervisor,
    pub driving: Driving,
}

impl Driver {
    async fn live(self) {
        let (mut pause, mut said) = (TRY_AGAIN, None);
        loop {
            match self.step().await {
                Ok(true) => pause = TRY_AGAIN,
                Ok(false) => return,
                Err(error) if is_overtaken(&error) => {}
                Err(error) => {
                    warn!(task = %self.driving.id, %error, "the task's driver failed; it is tried again");
                    let trouble = error.problem().detail;
                    if said.as_ref() != Some(&trouble) {
                        self.say_trouble(&trouble).await;
                        said = Some(trouble);
                    }
                    tokio::time::sleep(pause).await;
                    pause = TRY_LATER.min(pause * 2);
                }
            }
        }
    }

    /// Whoever waits for the task is told what it waits for, once for each reason.
    async fn say_trouble(&self, trouble: &str) {
        let engine = &self.supervisor.engine;
        if let Ok(Some(mut task)) = Held::load(engine, self.driving.id).await {
            let text = format!("castra cannot go on with it, and tries again: {trouble}");
            task.say(TaskEventKind::Log, Level::Warning, text, json!({}));
            // Where the store is what fails, its log has to do.
            let _ = task.commit(engine).await;
        }
    }

    /// False: nothing is left to be done by it.
    async fn step(&self) -> Result<bool> {
        let Some(mut task) = Held::load(&self.supervisor.engine, self.driving.id).await? else {
            return Ok(false);
        };
        match task.view.state {
            TaskState::Starting | TaskState::Running | TaskState::NeedsInput => {
                if task.view.outcome.is_some() {
                    end::end(self, &mut task).await?;
                } else if task.view.cancel.is_some() {
                    end::cancel(self, &mut task).await?;
                } else if task.view.gathers(&task.spec) {
                    match task.view.state {
                        TaskState::Starting => self.gather(&mut task).await?,
                        _ => children::follow(self, &mut task).await?,
                    }
                } else if !task.view.begun {
                    self.start(&mut task).await?;
                } else {
                    self.follow(&mut task).await?;
                }
            }
            TaskState::Queued | TaskState::Done | TaskState::Failed | TaskState::Cancelled => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Somebody has changed the task; or it was this driver itself, who looks again.
    pub(super) async fn poked(&self) {
        self.driving.poke.notified().await;
    }

    /// From an attempt that was admitted to its children. Where nothing else is begun, hooks are asked here.
    async fn gather(&self, task: &mut Held) -> Result<()> {
        let begun = async {
            if group::is_group(&task.spec) && !hooks::before(self, task).await? {
                return Ok(());
            }
            children::begin(self, task).await
        };
        match begun.await {
            Err(error) if is_for_good(&error) => self.cannot_start(task, &error).await,
            done => done,
        }
    }

    async fn cannot_start(&self, task: &mut Held, error: &Error) -> Result<()> {
        task.view.fail(ReasonCode::Start, error.problem().detail, now(), &mut task.events);
        task.commit(&self.supervisor.engine).await
    }

    /// From an attempt that was admitted to a session that works on it.
    async fn start(&self, task: &mut Held) -> Result<()> {
        let engine = &self.supervisor.engine;
        let (Some(attempt), Some(session)) = (task.attempt().cloned(), task.session()) else {
            return Err(Error::new(
                ErrorCode::Internal,
                format!("task {} starts without an attempt", task.id),
            ));
        };
        crate::failpoint::failpoint!("task.start");
        let begun = async {
            match self.prepare(task, session, attempt.resumed).await? {
                true => self.begin(task, session, attempt.resumed).await.map(Some),
                false => Ok(None),
            }
        };
        let first_word = match begun.await {
            Ok(None) => return Ok(()),
            Ok(Some(first_word)) => first_word,
            Err(error) if is_for_good(&error) => return self.cannot_start(task, &error).await,
            Err(error) => return Err(error),
        };
        crate::failpoint::failpoint!("task.begun");
        if let Some(text) = first_word {
            let key = format!("task:{}:{}", task.id, attempt.n);
            task.view.kickoff = self.tell(task, &key, text).await?;
        }
        let data = json!({"session_id": session, "resumed": attempt.resumed});
        let message = match attempt.resumed {
            true => format!("attempt {} goes on in session {session}", attempt.n),
            false => format!("attempt {} in session {session}", attempt.n),
        };
        task.view.begun = true;
        task.say(TaskEventKind::Attempt, Level::Event, message, data);
        task.view.shift(Cause::Started, now(), &mut task.events);
        task.commit(engine).await
    }

    /// The workspace, and whoever is to be called before claude. False: the task is to be looked at anew first.
    async fn prepare(&self, task: &mut Held, session: SessionId, resumed: bool) -> Result<bool> {
        let known = self.supervisor.engine.store.session(session).await?;
        if known.as_ref().is_some_and(|row| !resumed || !row.state.is_final()) {
            // It has begun.
            return Ok(true);
        }
        if known.is_none() {
            self.plant(task, session).await?;
        }
        hooks::before(self, task).await
    }

    async fn plant(&self, task: &mut Held, session: SessionId) -> Result<()> {
        let engine = &self.supervisor.engine;
        if task.view.claim_uploads(session) {
            // What its instructions name is settled before anybody reads them.
            task.commit(engine).await?;
        }
        self.folders_are_there(task).await?;
        let workspace = task.workspace(session);
        workspace.plant(engine.host.files(), &self.instructions(task, session)).await?;
        if !task.spec.children.is_empty() {
            children::hand_up(self, task, &workspace).await?;
        }
        upload::plant(engine, task, &workspace, session).await?;
        inputs::fetch(self, task, session, &workspace).await
    }

    /// Whoever made the task was allowed these folders, and not others in their place.
    async fn folders_are_there(&self, task: &Held) -> Result<()> {
        let wanted = &task.spec.session;
        self.supervisor.engine.still_there(wanted.workdir.iter().chain(&wanted.add_dirs)).await
    }

    /// What its agent is told, whole.
    fn instructions(&self, task: &Held, session: SessionId) -> String {
        let workspace = task.workspace(session);
        let notes = [
            inputs::note(&task.spec, &workspace.paths()),
            upload::note(&task.view, session, &workspace.paths()),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        workspace.instructions(&task.spec, &task.view.nonce, self.enabled(task), &notes)
    }

    /// The keywords that its agent has.
    fn enabled(&self, task: &Held) -> Enabled {
        let answers = self.supervisor.engine.hooks.has_callback(task.id, HookPoint::CallerMessage);
        hooks::enabled(&task.spec, answers)
    }

    /// The session, new or resumed. What its agent is told first.
    async fn begin(&self, task: &mut Held, session: SessionId, is_resumed: bool) -> Result<Option<String>> {
        let engine = &self.supervisor.engine;
        let workspace = task.workspace(session);
        let enabled = self.enabled(task);
        let files = engine.host.files();
        let known = engine.store.session(session).await?;
        let text = self.instructions(task, session);
        let auto = task.spec.start == Start::Auto && task.spec.instructions.is_some();
        if is_resumed {
            if known.as_ref().is_none_or(|row| row.state.is_final()) {
                let goes_on = resumed::decide(engine, task, known.as_ref(), &workspace, &text).await?;
                workspace.refresh(files, &text, goes_on.found).await?;
                crate::failpoint::failpoint!("task.refreshed");
                match self.supervisor.resume(session, Default::default(), &caller(task.id)).await {
                    // Somebody was faster and has it go on: it is looked at anew.
                    Err(Error::Refused(problem)) if problem.code == ErrorCode::Conflict => {
                        return Err(TaskError::Moved(task.head()).into());
                    }
                    Err(Error::Commit(CommitError::RunConflict { .. })) => {
                        return Err(TaskError::Moved(task.head()).into());
                    }
                    resumed => resumed?,
                };
            }
            // Where a crash came between, it is told again, under the same key.
            let told = resumed::told(task, &workspace);
            return Ok(auto.then_some(told));
        }
        if known.is_none() {
            // Others had time to put something in their place.
            self.folders_are_there(task).await?;
            let mut plan = Plan::new(session, session_spec(task, &text));
            let log = task.spec.protocol.has_log().then(|| workspace.log());
            plan.coordination = Some(Coordination::new(task.id, log, has_mcp(&task.spec), enabled));
            match self.supervisor.begin(plan, None, &caller(task.id)).await {
                Ok(_) | Err(Error::Commit(CommitError::SessionExists(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(auto.then(|| notice::kickoff(&task.view.nonce, workspace.place())))
    }

    /// Sends the agent a message, once for each key. None: it is not there any more to hear it.
    pub(super) async fn tell(&self, task: &Held, key: &str, text: String) -> Result<Option<MessageId>> {
        let Some(session) = task.session() else { return Ok(None) };
        let message = SendMessage::from(text);
        match self.supervisor.send(session, message, Some(key), &caller(task.id)).await {
            Ok(accepted) => Ok(Some(accepted.message_id)),
            // Said before a crash, in other words.
            Err(Error::Commit(CommitError::IdempotencyMismatch)) => Ok(Some(MessageId::of_key(session, key))),
            Err(error) => match error.problem().code {
                ErrorCode::SessionEnded | ErrorCode::SessionLost | ErrorCode::SessionNotFound => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Folds what the session says, until the task is to be looked at anew.
    async fn follow(&self, task: &mut Held) -> Result<()> {
        let engine = &self.supervisor.engine;
        let Some(session) = task.session() else { return Ok(()) };
        let hub = match engine.hub(session).await {
            Ok(hub) => hub,
            Err(error) if error.problem().code == ErrorCode::SessionNotFound => {
                let said = "its session was removed before the task was done";
                task.view.fail(ReasonCode::Stopped, said, now(), &mut task.events);
                return task.commit(engine).await;
            }
            Err(error) => return Err(error),
        };
        upload::hand_in(self, task, session).await?;
        let mut head = hub.head.subscribe();
        loop {
            head.mark_unchanged();
            let events = engine.store.events(session, task.view.cursor, BATCH, BATCH_BYTES).await?;
            for event in &events {
                let refused = match hooks::due(self, task, event).await? {
                    Due::Now => None,
                    Due::Refused(why) => Some(why),
                    Due::Anew => return Ok(()),
                };
                let effect = task.view.apply(event, &task.spec, &mut task.events);
                match effect {
                    Some(Effect::Fetch { path, call }) => {
                        self.fetch(task, session, event.seq, (&path, refused), call.as_deref()).await?;
                    }
                    Some(Effect::Answer { name, call }) => {
                        self.answer(task, session, event.seq, &name, call.as_deref()).await?;
                    }
                    Some(Effect::Tell { what: Told::Stray(line) }) => {
                        let paths = task.workspace(session).paths();
                        let text = notice::stray(&task.view.nonce, &line, &paths);
                        self.reply(task, event.seq, text).await?;
                    }
                    Some(Effect::LookForResult) => self.look_for_result(task, session).await?,
                    None => {}
                }
                if task.view.outcome.is_some() {
                    break;
                }
            }
            if !task.events.is_empty() {
                task.commit(engine).await?;
            }
            if task.view.outcome.is_some() {
                return Ok(());
            }
            if events.is_empty() {
                tokio::select! {
                    changed = head.changed() => if changed.is_err() { return Ok(()) },
                    () = self.poked() => return Ok(()),
                }
            }
        }
    }

    /// Whether the turn that has ended is the one that counts.
    async fn look_for_result(&self, task: &mut Held, session: SessionId) -> Result<()> {
        let (true, Some(kickoff)) = (completion(&task.spec).contains(&Completion::Result), task.view.kickoff)
        else {
            return Ok(());
        };
        let message = self.supervisor.message(session, kickoff).await?;
        match (message.state, message.result) {
            (MessageState::Answered, Some(result)) if result.ok => {
                let done = Outcome { state: TaskState::Done, result: Some(result.text), reason: None };
                task.view.conclude(done, now(), &mut task.events);
            }
            (MessageState::Answered | MessageState::Interrupted, result) => {
                let said = result.map(|result| match result.error {
                    Some(problem) => problem.detail,
                    None if result.text.is_empty() => result.subtype,
                    None => result.text,
                });
                let said = format!("the turn did not end well: {}", said.as_deref().unwrap_or("interrupted"));
                task.view.fail(ReasonCode::Result, said, now(), &mut task.events);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The session that an attempt drives.
fn session_spec(task: &Held, instructions: &str) -> SessionSpec {
    let mut spec = task.spec.session.clone();
    spec.mode = mode(&task.spec);
    spec.labels.insert("task".into(), task.id.to_string());
    if has_mcp(&task.spec) {
        // What they do is to report: no person has to agree to that.
        spec.allowed_tools.push(format!("mcp__{MCP_SERVER}"));
    }
    if spec.workdir.is_some() {
        // Nothing of the user's is written: what CLAUDE.md would say comes with the system prompt.
        let before = spec.append_system_prompt.take().map(|text| format!("{text}\n\n")).unwrap_or_default();
        spec.append_system_prompt = Some(format!("{before}{instructions}"));
    }
    spec.limits.max_runtime_s = spec.limits.max_runtime_s.into_iter().chain(time_left(task)).min();
    spec.limits.max_budget_usd = match (spec.limits.max_budget_usd, task.spec.budget_usd) {
        (Some(own), Some(budget)) => Some(own.min(budget)),
        (own, budget) => own.or(budget),
    };
    spec
}

/// What its children have left of the attempt's time, in seconds.
fn time_left(task: &Held) -> Option<u64> {
    let allowed = task.spec.timeout_s?;
    let Some(attempt) = task.attempt().filter(|_| !task.spec.children.is_empty()) else {
        return Some(allowed);
    };
    Some(allowed.saturating_sub(now().seconds_since(attempt.started_at).max(0.0) as u64).max(1))
}

fn is_overtaken(error: &Error) -> bool {
    matches!(error, Error::Task(TaskError::Moved(_)))
}
