//! How a task comes to be: everything is checked, with all that is below it, before anything is made.

use super::start::{check_scope, hash};
use super::task_spec::{check, launched};
use super::tasks::no_task;
use super::{Caller, Supervisor};
use crate::engine::{json_text, now};
use crate::task::announce::announced;
use crate::task::driver::caller;
use crate::task::group::{MAX_DEPTH, name_of, settled};
use crate::task::held::Held;
use crate::task::hooks;
use crate::task::view::{Sibling, TaskView, mode};
use crate::{Error, Result, redact};
use castra_proto::task::{Level, TaskEventKind};
use castra_proto::{ErrorCode, SessionId, Task, TaskId, TaskSpec, TaskState};
use castra_store::{NewTask, TaskCommit};
use serde_json::json;
use uuid::Uuid;

/// What a task is besides its spec.
struct Born {
    id: TaskId,
    by: String,
    request_hash: [u8; 32],
    /// A child that its parent declares is named among its siblings only.
    name: Option<String>,
    depends_on: Vec<TaskId>,
    sibling: Option<Sibling>,
}

impl Supervisor {
    /// A new task, on disk when this returns; it begins when its turn comes. With `key` (Idempotency-Key) a retry gets
    /// the task of the first call; another body is refused.
    ///
    /// Errors: `invalid_request` with the reason, before anything is made; `conflict` for a taken name, and for a
    /// parent that is not at work; `launch_blocked`.
    pub async fn create_task(&self, spec: TaskSpec, key: Option<&str>, caller: &Caller) -> Result<Task> {
        let id = key.map_or_else(TaskId::now, |key| TaskId::of_key(&caller.by, key));
        let request_hash = hash(&spec);
        let spec = self.checked(spec, caller).await?;
        self.may_launch(id, &spec).await?;
        let depends_on = self.dependencies(&spec.depends_on).await?;
        if let Some(parent) = spec.parent {
            self.check_parent(parent, &depends_on).await?;
        }
        let born = Born {
            id,
            by: caller.by.clone(),
            request_hash,
            name: spec.name.clone(),
            depends_on,
            sibling: None,
        };
        self.bear(&spec, born).await?;
        self.task(id).await
    }

    /// A task as it would be made, with all that is below it, where neither it nor its maker stands in the way.
    pub(super) async fn checked(&self, spec: TaskSpec, caller: &Caller) -> Result<TaskSpec> {
        redact::refuse_masked(redact::split_task(&spec).1.as_ref())?;
        let mut spec = filled(spec)?;
        check(&spec)?;
        self.settle_inputs(&mut spec, false, caller).await?;
        self.check_around(&mut spec, &mut Vec::new(), caller).await?;
        Ok(spec)
    }

    /// A child that a task declares, counted from 0. Done again, it makes nothing new.
    pub(crate) async fn create_child(&self, parent: &Held, n: usize) -> Result<TaskId> {
        let attempt = parent.view.attempt();
        let id = parent.id.child(attempt, n);
        let Some(spec) = parent.spec.children.get(n) else {
            return Err(Error::new(ErrorCode::Internal, format!("task {} has no child {n}", parent.id)));
        };
        let mut depends_on = Vec::with_capacity(spec.depends_on.len());
        for reference in &spec.depends_on {
            let named = |child: &TaskSpec| child.name.as_ref() == Some(reference);
            depends_on.push(match parent.spec.children.iter().position(named) {
                Some(sibling) => parent.id.child(attempt, sibling),
                // An id, found when the parent was made: the task may be gone.
                None => reference.parse().map_err(|_| no_task(reference))?,
            });
        }
        let group = &parent.spec.group;
        let born = Born {
            id,
            by: caller(parent.id).by,
            request_hash: hash(spec),
            name: None,
            depends_on,
            sibling: Some(Sibling { n, at_once: group.at_once(), in_order: group.order }),
        };
        let spec = TaskSpec { parent: Some(parent.id), ..spec.clone() };
        self.bear(&spec, born).await?;
        Ok(id)
    }

    async fn bear(&self, spec: &TaskSpec, born: Born) -> Result<()> {
        let at = now();
        let view = TaskView {
            since: at,
            nonce: nonce(),
            retries_left: spec.retries,
            depends_on: born.depends_on,
            sibling: born.sibling,
            ..TaskView::default()
        };
        let (shown, secrets) = redact::split_task(spec);
        let said = json!({"from": null, "to": TaskState::Queued, "cause": "created", "by": born.by});
        let events = vec![view.event(at, TaskEventKind::State, Level::Event, "queued", said)];
        let commit = TaskCommit {
            task: born.id,
            at,
            create: Some(NewTask {
                name: born.name,
                request_hash: born.request_hash,
                priority: spec.priority,
                parent: spec.parent,
                labels: spec.labels.clone(),
                metadata: spec.metadata.clone().unwrap_or_default(),
                spec: json_text(&shown)?,
                secrets,
                told: hooks::told(spec),
            }),
            head: None,
            state: TaskState::Queued,
            session: None,
            server_events: announced(spec, &events),
            events,
            view: json_text(&view)?,
            deliverables: Vec::new(),
        };
        let done = self.engine.store.commit_task(commit).await?;
        crate::failpoint::failpoint!("task.created");
        self.engine.task_committed(born.id, true, done.server_head);
        self.engine.hooks.committed(born.id, 0);
        Ok(())
    }

    /// What only this server and this caller can say no to, of a task and all that is below it.
    async fn check_around(
        &self,
        spec: &mut TaskSpec,
        above: &mut Vec<String>,
        caller: &Caller,
    ) -> Result<()> {
        check_scope(&spec.session, caller)?;
        hooks::check(&spec.hooks, self.engine.config.webhooks.is_some())?;
        hooks::check_scope(&spec.hooks, caller)?;
        self.settle_folders(&mut spec.session, caller).await?;
        let mut attempt = spec.session.clone();
        attempt.mode = mode(spec);
        self.check_spec(SessionId::now(), &attempt).await?;
        above.extend(spec.name.clone());
        let siblings: Vec<Option<String>> = spec.children.iter().map(|child| child.name.clone()).collect();
        for n in 0..spec.children.len() {
            let name = name_of(&spec.children, n);
            let Some(child) = spec.children.get_mut(n) else { break };
            let inside = |error: Error| below(&name, error);
            for name in child.depends_on.iter_mut().filter(|name| !siblings.contains(&Some((**name).clone())))
            {
                if above.contains(name) {
                    return Err(inside(waits_for_itself(name)));
                }
                // Who bears that name when the child is made may be another.
                *name = self.resolve_task(name).await.map_err(inside)?.to_string();
            }
            self.settle_inputs(child, true, caller).await.map_err(inside)?;
            Box::pin(self.check_around(child, above, caller)).await.map_err(inside)?;
        }
        if spec.name.is_some() {
            above.pop();
        }
        Ok(())
    }

    async fn dependencies(&self, references: &[String]) -> Result<Vec<TaskId>> {
        let mut ids = Vec::with_capacity(references.len());
        for reference in references {
            ids.push(self.resolve_task(reference).await?);
        }
        Ok(ids)
    }

    /// A task that is made for another one: not too far below, and it does not wait for what waits for it.
    async fn check_parent(&self, parent: TaskId, depends_on: &[TaskId]) -> Result<()> {
        let mut above = Some(parent);
        for _ in 0..MAX_DEPTH {
            let Some(id) = above else { return Ok(()) };
            if depends_on.contains(&id) {
                return Err(waits_for_itself(&id.to_string()));
            }
            above = self.task(id).await?.parent;
        }
        match above {
            None => Ok(()),
            Some(_) => Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("it would be more than {MAX_DEPTH} tasks below the first"),
                "make it without `parent`",
            )),
        }
    }
}

/// A template, with all that is below it, with its values in their places.
fn filled(spec: TaskSpec) -> Result<TaskSpec> {
    fn whole(spec: TaskSpec) -> Result<TaskSpec> {
        let mut spec = launched(spec)?;
        let children = std::mem::take(&mut spec.children);
        for (n, child) in children.iter().enumerate() {
            let inside = |error| below(&name_of(&children, n), error);
            spec.children.push(whole(child.clone()).map_err(inside)?);
        }
        Ok(spec)
    }
    settled(whole(spec)?).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
}

/// The same error, said of a child.
pub(super) fn below(child: &str, error: Error) -> Error {
    let mut problem = error.problem();
    problem.detail = format!("{child}: {}", problem.detail);
    Error::Refused(problem)
}

fn waits_for_itself(name: &str) -> Error {
    Error::with_hint(
        ErrorCode::InvalidRequest,
        format!("it would wait for {name}, which it is a part of and which waits for it"),
        "`depends_on` names siblings, or tasks outside",
    )
}

/// In castra's messages to the agent: short enough to be read, long enough not to be guessed by what it reads.
fn nonce() -> String {
    Uuid::new_v4().simple().to_string()[..12].to_owned()
}
