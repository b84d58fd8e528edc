//! Tasks: created, shown, cancelled, gone on with, removed; and what they have handed over.

use super::{Caller, Supervisor, read_cursor, the_one};
use crate::engine::now;
use crate::task::end_again;
use crate::task::held::{Held, parse};
use crate::task::state::Cause;
use crate::task::view::{Cancel, TaskView};
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::api::Page;
use castra_proto::task::{
    CancelTask, Deliverable, LaunchBlock, Level, Reason, ReasonCode, TaskEvent, TaskEventKind,
};
use castra_proto::{ErrorCode, Task, TaskId, TaskSpec, TaskState};
use castra_store::{TaskError, TaskFilter, TaskRow};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

const PAGE_TASKS: usize = 100;
const PAGE_EVENTS: usize = 1000;
/// What the agent of a cancelled task has to come to rest by itself, in seconds.
const GRACE_S: u64 = 5;
/// Tasks that are removed at one look.
const OUTLIVED: u32 = 1000;
/// Tries at a change that others were faster with.
pub(super) const TRIES: usize = 50;

impl Supervisor {
    /// Resolves an id, a unique prefix (4 characters or more), a name, or `PARENT/NAME` of a child.
    pub async fn resolve_task(&self, reference: &str) -> Result<TaskId> {
        if let Some((parent, child)) = reference.rsplit_once('/') {
            let parent = Box::pin(self.resolve_task(parent)).await?;
            return self.resolve_child(parent, child).await;
        }
        Ok(the_one(self.engine.store.find_task(reference).await?, reference, "tasks", no_task)?.id)
    }

    pub async fn task(&self, id: TaskId) -> Result<Task> {
        let row = self.engine.store.task(id).await?.ok_or_else(|| no_task(&id.to_string()))?;
        self.shown_task(row, &self.engine.store.blocks().await?).await
    }

    pub(super) async fn shown_task(&self, row: TaskRow, blocks: &[LaunchBlock]) -> Result<Task> {
        let view: TaskView = parse(&row, "state", &row.view)?;
        let mut deliverables: Vec<Deliverable> = match view.deliverables.is_empty() {
            true => Vec::new(),
            false => self.engine.store.deliverables(row.id).await?,
        };
        // By path and version: of each path the last one stays.
        deliverables.reverse();
        deliverables.dedup_by(|later, kept| later.path == kept.path);
        deliverables.reverse();
        // An attempt names its session before it begins.
        let session_id = match row.session {
            Some(session) => self.engine.store.session(session).await?.map(|row| row.id),
            None => None,
        };
        let spec: TaskSpec = parse(&row, "spec", &row.spec)?;
        let held = match crate::task::block::waits(blocks, &row) {
            None if row.state == TaskState::Queued => self.waited_for(&view).await?,
            held => held,
        };
        Ok(Task {
            children: self.shown_children(&row, &view).await?,
            id: row.id,
            name: row.name.or_else(|| spec.name.clone()),
            spec,
            state: row.state,
            since: view.since,
            attempt: view.attempt(),
            attempts: view.attempts,
            progress: view.progress,
            result: view.result,
            reason: held.or(view.reason),
            session_id,
            deliverables,
            parent: row.parent,
            labels: row.labels,
            metadata: Some(row.metadata).filter(|metadata| !metadata.is_null()),
            priority: row.priority,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }

    /// The first of the tasks that one in the queue waits for.
    async fn waited_for(&self, view: &TaskView) -> Result<Option<Reason>> {
        for id in &view.depends_on {
            if let Some(other) = self.engine.store.task(*id).await?
                && !other.state.is_final()
            {
                let message = format!("waits for task {id}, which is {}", other.state);
                return Ok(Some(Reason { code: ReasonCode::Waiting, message, tail: Vec::new() }));
            }
        }
        Ok(None)
    }

    /// Newest first.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Page<Task>> {
        let cursor = read_cursor(cursor)?;
        let limit = limit.unwrap_or(PAGE_TASKS).clamp(1, 1000) as u32;
        let rows = self.engine.store.tasks(filter, cursor, limit).await?;
        let blocks = self.engine.store.blocks().await?;
        let mut items = Vec::with_capacity(rows.items.len());
        for row in rows.items {
            items.push(self.shown_task(row, &blocks).await?);
        }
        Ok(Page { items, next: rows.next.map(|next| next.to_string()) })
    }

    /// Events with `seq > after`.
    pub async fn task_events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<TaskEvent>> {
        let rows = self.engine.store.task_events(id, after, limit.clamp(1, PAGE_EVENTS) as u32).await?;
        if rows.is_empty() && self.engine.store.task(id).await?.is_none() {
            return Err(no_task(&id.to_string()));
        }
        let event = |row: castra_store::StoredTaskEvent| TaskEvent {
            seq: row.seq,
            at: row.at,
            task_id: id,
            attempt: row.attempt,
            kind: row.kind,
            level: row.level,
            message: row.message,
            data: row.data,
        };
        Ok(rows.into_iter().map(event).collect())
    }

    /// The same, and where there are none, those that come within `wait`.
    pub async fn next_task_events(
        &self,
        id: TaskId,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<TaskEvent>> {
        let mut changed = self.engine.tasks.changed.subscribe();
        let deadline = Instant::now() + wait;
        loop {
            changed.mark_unchanged();
            let events = self.task_events(id, after, limit).await?;
            if !events.is_empty() || !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Ok(events);
            }
        }
    }

    /// Waits until the task is over, or has handed over `deliverable`, or `timeout` is over.
    pub async fn wait_task(&self, id: TaskId, deliverable: Option<&str>, timeout: Duration) -> Result<Task> {
        let mut changed = self.engine.tasks.changed.subscribe();
        let deadline = Instant::now() + timeout;
        loop {
            changed.mark_unchanged();
            let task = self.task(id).await?;
            let there = deliverable.is_some_and(|path| task.deliverables.iter().any(|one| one.path == path));
            if there
                || task.state.is_final()
                || !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(())))
            {
                return Ok(task);
            }
        }
    }

    /// Changes a task by what `change` makes of it; done again when somebody else was faster.
    async fn change_task(&self, id: TaskId, change: impl Fn(&mut Held) -> Result<()>) -> Result<Task> {
        for _ in 0..TRIES {
            let Some(mut task) = Held::load(&self.engine, id).await? else {
                return Err(no_task(&id.to_string()));
            };
            change(&mut task)?;
            if task.events.is_empty() {
                return self.task(id).await;
            }
            match task.commit(&self.engine).await {
                Err(Error::Task(TaskError::Moved(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => return self.task(id).await,
            }
        }
        Err(Error::with_hint(ErrorCode::Conflict, format!("task {id} changes all the time"), "try again"))
    }

    /// Asks a task to end: its agent is interrupted, has `grace_s` to come to rest, and is stopped. A task that is over
    /// stays as it is; one whose attempt is about to end has its outcome, and no other attempt.
    ///
    /// Errors: `forbidden` where its definition says that it is not to be cancelled, but for admins.
    pub async fn cancel_task(&self, id: TaskId, request: &CancelTask, caller: &Caller) -> Result<Task> {
        self.may_cancel(id, caller).await?;
        self.change_task(id, |task| {
            if task.view.state.is_final() || task.view.cancel.is_some() {
                return Ok(());
            }
            if task.view.outcome.is_some() {
                give_up_retries(task, caller, request);
                return Ok(());
            }
            let cancel = Cancel {
                by: caller.by.clone(),
                at: now(),
                reason: request.reason.clone(),
                grace_s: request.grace_s.unwrap_or(GRACE_S),
            };
            if task.view.state == TaskState::Queued {
                let outcome = cancel.outcome();
                task.view.reason.clone_from(&outcome.reason);
                task.view.conclude(outcome, now(), &mut task.events);
                task.view.shift(Cause::Cancelled, now(), &mut task.events);
                return Ok(());
            }
            let data = json!({"by": caller.by, "reason": request.reason});
            let text = format!("is to be cancelled {}", cancel.message());
            task.view.cancel = Some(cancel);
            task.say(TaskEventKind::Log, Level::Event, text, data);
            Ok(())
        })
        .await
    }

    /// Another attempt in the session of the last one, which goes on where it was.
    ///
    /// Errors: `conflict` while it is not over, or where no session is left; `launch_blocked`.
    pub async fn resume_task(&self, id: TaskId) -> Result<Task> {
        let row = self.engine.store.task(id).await?.ok_or_else(|| no_task(&id.to_string()))?;
        self.may_go_on(id).await?;
        let session = match row.session {
            Some(session) => self.engine.store.session(session).await?,
            None => None,
        };
        let spec: TaskSpec = parse(&row, "spec", &row.spec)?;
        if session.is_none() && spec.children.is_empty() {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                "the task has no session to go on in",
                "`castra task retry ID` begins anew",
            ));
        }
        self.change_task(id, |task| another(task, Cause::Resumed)).await
    }

    /// Another attempt, in a fresh session.
    ///
    /// Errors: `conflict` while it is not over.
    pub async fn retry_task(&self, id: TaskId) -> Result<Task> {
        self.may_go_on(id).await?;
        self.change_task(id, |task| another(task, Cause::Retried)).await
    }

    /// Removes a task that is over, with its deliverables, its sessions, and all tasks below it.
    ///
    /// Errors: `conflict` while it, or the task that it is a child of, is not over.
    pub async fn remove_task(&self, id: TaskId) -> Result<()> {
        let row = self.engine.store.task(id).await?.ok_or_else(|| no_task(&id.to_string()))?;
        if !row.state.is_final() {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("the task is {}", row.state),
                "`castra task cancel ID` ends it",
            ));
        }
        if let Some(parent) = row.parent
            && self.engine.store.task(parent).await?.is_some_and(|parent| !parent.state.is_final())
        {
            let hint = "remove it with that task, when that is over";
            return Err(Error::with_hint(ErrorCode::Conflict, format!("task {parent} still needs it"), hint));
        }
        self.forget_task(id).await
    }

    /// Removes tasks whose time to live is over, and ephemeral ones whose removal was cut short.
    pub(crate) async fn forget_outlived(&self) -> Result<()> {
        for id in self.engine.store.outlived_tasks(now(), OUTLIVED).await? {
            if self.is_needed(id).await? {
                continue;
            }
            match self.remove_task(id).await {
                // A parent still needs it, or somebody has it go on.
                Err(error) if matches!(error.problem().code, ErrorCode::Conflict | ErrorCode::NotFound) => {}
                // The others go nevertheless.
                Err(error) => warn!(task = %id, %error, "a task whose time is over cannot be removed"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Somebody is still to be told of it, or waits for it.
    pub(crate) async fn is_needed(&self, id: TaskId) -> Result<bool> {
        let store = &self.engine.store;
        Ok(store.hooks_open(id).await? || store.is_waited_for(id).await?)
    }

    /// All versions of all that it has handed over.
    pub async fn deliverables(&self, id: TaskId) -> Result<Vec<Deliverable>> {
        self.task(id).await?;
        Ok(self.engine.store.deliverables(id).await?)
    }

    /// A deliverable with its bytes; the newest version, where none is named.
    pub async fn deliverable(
        &self,
        id: TaskId,
        path: &str,
        version: Option<u32>,
    ) -> Result<(Deliverable, Bytes)> {
        let all = self.deliverables(id).await?;
        let wanted = |one: &&Deliverable| one.path == path && version.is_none_or(|n| one.version == n);
        let Some(found) = all.iter().rfind(wanted) else {
            return Err(Error::with_hint(
                ErrorCode::NotFound,
                format!("the task has not handed over {path:?}"),
                "`castra task show ID` lists what it has",
            ));
        };
        match self.engine.store.blob(id, &found.sha256).await? {
            Some(bytes) => Ok((found.clone(), bytes)),
            None => Err(Error::new(
                ErrorCode::Internal,
                format!("the content of {path:?} is missing from CASTRA_HOME/blobs"),
            )),
        }
    }
}

fn another(task: &mut Held, cause: Cause) -> Result<()> {
    if !task.view.state.is_final() {
        return Err(Error::with_hint(
            ErrorCode::Conflict,
            format!("the task is {}", task.view.state),
            "`castra task cancel ID` ends it first",
        ));
    }
    end_again(task, cause);
    Ok(())
}

pub(super) fn no_task(reference: &str) -> Error {
    Error::with_hint(
        ErrorCode::NotFound,
        format!("there is no task {reference:?}"),
        "`castra task list -a` lists all tasks",
    )
}

/// The outcome stays what it is; what would come after it does not come.
fn give_up_retries(task: &mut Held, caller: &Caller, request: &CancelTask) {
    if task.view.retries_left == 0 {
        return;
    }
    task.view.retries_left = 0;
    let why = request.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let data = json!({"by": caller.by, "reason": request.reason});
    let text = format!("is not tried again: cancelled by {}{why}", caller.by);
    task.say(TaskEventKind::Log, Level::Event, text, data);
}
