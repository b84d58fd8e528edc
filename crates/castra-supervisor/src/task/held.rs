//! A task in its driver's hands: as it was read, what is folded since, and the transaction that makes it so.

use super::announce::announced;
use super::view::TaskView;
use super::workspace::Workspace;
use crate::engine::{Engine, json_text, now};
use crate::{Error, Result, redact};
use castra_proto::task::{Attempt, Deliverable, Level, TaskEventKind};
use castra_proto::{ErrorCode, SessionId, TaskId, TaskSpec};
use castra_store::{NewTaskEvent, TaskCommit, TaskRow};
use serde_json::Value;

pub(crate) struct Held {
    pub id: TaskId,
    head: u64,
    /// With its secret values.
    pub spec: TaskSpec,
    pub view: TaskView,
    /// Folded and not yet committed.
    pub events: Vec<NewTaskEvent>,
    pub deliverables: Vec<Deliverable>,
}

impl Held {
    pub(crate) async fn load(engine: &Engine, id: TaskId) -> Result<Option<Self>> {
        match engine.store.task(id).await? {
            Some(row) => Ok(Some(Self::of(engine, &row).await?)),
            None => Ok(None),
        }
    }

    pub(crate) async fn of(engine: &Engine, row: &TaskRow) -> Result<Self> {
        let shown: TaskSpec = parse(row, "spec", &row.spec)?;
        let spec = redact::restore_task(shown, engine.store.task_secrets(row.id).await?)?;
        Ok(Self {
            id: row.id,
            head: row.head,
            spec,
            view: parse(row, "state", &row.view)?,
            events: Vec::new(),
            deliverables: Vec::new(),
        })
    }

    /// The newest event's number, as it was read or committed.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Of the newest attempt.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.view.attempts.last()
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.attempt().and_then(|attempt| attempt.session_id)
    }

    pub(crate) fn workspace(&self, session: SessionId) -> Workspace {
        Workspace::new(self.id, session, &self.spec)
    }

    pub(crate) fn say(&mut self, kind: TaskEventKind, level: Level, message: impl Into<String>, data: Value) {
        let event = self.view.event(now(), kind, level, message, data);
        self.events.push(event);
    }

    /// On disk when this returns; then whoever waits for it is woken. `conflict`: somebody else was faster, and
    /// nothing was changed.
    pub(crate) async fn commit(&mut self, engine: &Engine) -> Result<()> {
        let shifted = self.events.iter().any(|event| event.kind == TaskEventKind::State);
        let commit = TaskCommit {
            task: self.id,
            at: now(),
            create: None,
            head: Some(self.head),
            state: self.view.state,
            session: self.session(),
            view: json_text(&self.view)?,
            server_events: announced(&self.spec, &self.events),
            events: std::mem::take(&mut self.events),
            deliverables: std::mem::take(&mut self.deliverables),
        };
        crate::failpoint::failpoint!("task.commit");
        let before = self.head;
        let done = engine.store.commit_task(commit).await?;
        self.head = done.head;
        crate::failpoint::failpoint!("task.committed");
        engine.task_committed(self.id, shifted, done.server_head);
        engine.hooks.committed(self.id, before);
        Ok(())
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(row: &TaskRow, what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorCode::Internal,
            format!("the stored {what} of task {} cannot be read: {error}", row.id),
        )
    })
}
