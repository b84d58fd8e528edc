//! The handle of a task, and what has happened to it, one event after the other. Refuses to be the task's lifetime.

use super::Session;
use crate::supervisor::{Caller, Supervisor};
use crate::task::hooks::{Hooks, Registered};
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::task::{CancelTask, Deliverable, Level, LogLine, TaskEvent};
use castra_proto::{ErrorCode, TaskId, TaskSpec};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// One wait for events, or for an end; it waits as often as it must.
const WAIT: Duration = Duration::from_secs(3600);
/// Events that are read at once.
const BATCH: usize = 500;

/// One task, driven from the program that embeds the supervisor.
///
/// A cheap handle: clones are the same task. Dropping it ends nothing; [`Task::cancel`] does.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/setup.in"));
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// # let mut config = Config::new(home.path());
/// # config.inherited = std::env::vars().collect();
/// # scripted_model(&mut config, Script::parse(r#"
/// # [[rule]]
/// # name = "kickoff"
/// # when.last_user.contains = "read CLAUDE.md in this folder"
/// # reply.blocks = [{ tool_use = { name = "mcp__castra__message_caller", input = { name = "colour", data = {} } } }]
/// # [[rule]]
/// # name = "was told"
/// # when.tool_result = { tool = "mcp__castra__message_caller", regex = '(\w+)' }
/// # reply.blocks = [{ tool_use = { name = "mcp__castra__done", input = { summary = "a {{capture:1}} door" } } }]
/// # [[rule]]
/// # name = "else"
/// # reply.text = "I see."
/// # "#)?).await?;
/// # let supervisor = castra_supervisor::Supervisor::open(config).await?;
/// use castra_proto::task::{HookCall, HookPoint, TaskState};
/// use castra_supervisor::{Answer, HookCtx, HookResult, Hooks};
/// use futures::future::BoxFuture;
///
/// /// Knows what its agents ask.
/// struct Colours;
///
/// impl Hooks for Colours {
///     fn points(&self) -> &[HookPoint] {
///         &[HookPoint::CallerMessage]
///     }
///
///     fn on_caller_message(&self, _: HookCtx, call: HookCall) -> BoxFuture<'_, HookResult<Answer>> {
///         Box::pin(async move {
///             match call.message.ok_or("no message")?.name.as_str() {
///                 "colour" => Ok(Answer::Text("blue".into())),
///                 _ => Ok(Answer::Accepted),
///             }
///         })
///     }
/// }
///
/// let spec = castra_proto::TaskSpec {
///     instructions: Some("Paint a door; ask which colour.".into()),
/// #   session: demo_spec(),
///     ..Default::default()
/// };
/// let (task, _answers) = supervisor.launch_with(spec, Arc::new(Colours)).await?;
/// let shown = task.wait().await?;
/// assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("a blue door")));
/// # supervisor.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Task {
    supervisor: Supervisor,
    id: TaskId,
    caller: Caller,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A new task, on disk when this returns; it begins when its turn comes.
    ///
    /// Errors: `invalid_request` with the reason, before anything is made; `conflict` for a taken name.
    pub async fn launch(&self, spec: TaskSpec) -> Result<Task> {
        let caller = Caller::embedded();
        let made = self.create_task(spec, None, &caller).await?;
        Ok(Task { supervisor: self.clone(), id: made.id, caller })
    }

    /// The same, with callbacks of its own from its first moment on, for as long as what is returned with it lives.
    ///
    /// Errors: as [`Supervisor::launch`].
    pub async fn launch_with(&self, spec: TaskSpec, hooks: Arc<dyn Hooks>) -> Result<(Task, Registered)> {
        let caller = Caller::embedded();
        let key = Uuid::new_v4().to_string();
        let id = TaskId::of_key(&caller.by, &key);
        let registered = self.register_hooks(Some(id), hooks);
        self.create_task(spec, Some(&key), &caller).await?;
        Ok((Task { supervisor: self.clone(), id, caller }, registered))
    }

    /// A handle to a task that exists: by id, by a unique prefix of it, or by name.
    ///
    /// Errors: `not_found`; `conflict` where several begin like this.
    pub async fn task_handle(&self, reference: &str) -> Result<Task> {
        let id = self.resolve_task(reference).await?;
        Ok(Task { supervisor: self.clone(), id, caller: Caller::embedded() })
    }
}

impl Task {
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// What it is now: state, progress, outcome, what it has handed over.
    ///
    /// Errors: `not_found` when it was removed.
    pub async fn show(&self) -> Result<castra_proto::Task> {
        self.supervisor.task(self.id).await
    }

    /// The session of its newest attempt, once that has begun.
    pub async fn session(&self) -> Result<Option<Session>> {
        match self.show().await?.session_id {
            Some(session) => self.supervisor.session(&session.to_string()).await.map(Some),
            None => Ok(None),
        }
    }

    /// What has happened after `after` (0: from the first), and what will.
    pub fn events(&self, after: u64) -> TaskEvents {
        TaskEvents { supervisor: self.supervisor.clone(), id: self.id, after, batch: VecDeque::new() }
    }

    /// All that has been said so far at this level and above.
    pub async fn log(&self, level: Level) -> Result<Vec<LogLine>> {
        let (mut lines, mut after) = (Vec::new(), 0);
        loop {
            let events = self.supervisor.task_events(self.id, after, BATCH).await?;
            let Some(last) = events.last() else { return Ok(lines) };
            after = last.seq;
            let said = events.into_iter().filter(|event| event.level >= level);
            lines.extend(said.map(|event| LogLine {
                seq: event.seq,
                at: event.at,
                level: event.level,
                message: event.message,
            }));
        }
    }

    /// Waits, without a limit, until it is over, whatever came of it.
    ///
    /// Errors: `not_found` when it was removed; `conflict` when the supervisor was closed.
    pub async fn wait(&self) -> Result<castra_proto::Task> {
        self.waited(None).await
    }

    /// Waits until it has handed this over; its newest version. `None`: it is over without.
    ///
    /// Errors: as [`Task::wait`].
    pub async fn wait_for(&self, deliverable: &str) -> Result<Option<Deliverable>> {
        let shown = self.waited(Some(deliverable)).await?;
        Ok(shown.deliverables.into_iter().find(|one| one.path == deliverable))
    }

    async fn waited(&self, deliverable: Option<&str>) -> Result<castra_proto::Task> {
        let mut closing = self.supervisor.engine.closing.subscribe();
        loop {
            let shown = tokio::select! {
                shown = self.supervisor.wait_task(self.id, deliverable, WAIT) => shown?,
                _ = closing.wait_for(|closing| *closing) => {
                    return Err(Error::with_hint(
                        ErrorCode::Conflict,
                        "the supervisor was closed; the task goes on when the data folder is opened again",
                        "take a new handle by id",
                    ));
                }
            };
            let there = |path: &str| shown.deliverables.iter().any(|one| one.path == path);
            if shown.state.is_final() || deliverable.is_some_and(there) {
                return Ok(shown);
            }
        }
    }

    /// Asks it to end. What is over stays as it is.
    pub async fn cancel(&self, request: CancelTask) -> Result<castra_proto::Task> {
        self.supervisor.cancel_task(self.id, &request, &self.caller).await
    }

    /// Another attempt, in the session of the last one.
    ///
    /// Errors: `conflict` while it is not over, or where no session is left.
    pub async fn resume(&self) -> Result<castra_proto::Task> {
        self.supervisor.resume_task(self.id).await
    }

    /// Another attempt, in a fresh session.
    ///
    /// Errors: `conflict` while it is not over.
    pub async fn retry(&self) -> Result<castra_proto::Task> {
        self.supervisor.retry_task(self.id).await
    }

    /// All versions of all that it has handed over.
    pub async fn deliverables(&self) -> Result<Vec<Deliverable>> {
        self.supervisor.deliverables(self.id).await
    }

    /// The newest version of one, with its bytes.
    ///
    /// Errors: `not_found`.
    pub async fn deliverable(&self, path: &str) -> Result<(Deliverable, Bytes)> {
        self.supervisor.deliverable(self.id, path, None).await
    }
}

/// A task's events, from [`Task::events`]. Reading slowly slows nobody else.
pub struct TaskEvents {
    supervisor: Supervisor,
    id: TaskId,
    after: u64,
    batch: VecDeque<TaskEvent>,
}

impl TaskEvents {
    /// The next one; waits while there is none. `None` when the task was removed or the supervisor closed. Cancel safe.
    ///
    /// Errors: those of the store. Reading on is allowed.
    pub async fn next(&mut self) -> Option<Result<TaskEvent>> {
        let mut closing = self.supervisor.engine.closing.subscribe();
        loop {
            if let Some(event) = self.batch.pop_front() {
                self.after = event.seq;
                return Some(Ok(event));
            }
            let more = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return None,
                more = self.supervisor.next_task_events(self.id, self.after, BATCH, WAIT) => more,
            };
            match more {
                Ok(events) => self.batch.extend(events),
                Err(error) if error.problem().code == ErrorCode::NotFound => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
