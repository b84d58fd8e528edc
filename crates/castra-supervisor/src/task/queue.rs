//! What waits, and what is let go: the loop reads, has `choose` choose, and commits.

use super::choose::{Limits, Waiting, choose};
use super::driver;
use super::group::is_group;
use super::held::{Held, parse};
use super::state::Cause;
use super::view::{Outcome, TaskView};
use crate::engine::{Engine, now};
use crate::supervisor::Supervisor;
use crate::{Error, Result};
use castra_proto::task::{Attempt, LaunchBlock, Reason, ReasonCode, TaskSpec};
use castra_proto::{TaskId, TaskState};
use castra_store::{StoreError, TaskError, TaskRow};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::warn;

/// Between two looks at a queue that could not be read or written.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How many of those that wait for nothing but room are read at first.
const PLAIN: u32 = 64;

/// How many tasks may run at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// On this server; unset: twice the number of cores, and at least 4.
    pub running: Option<usize>,
    /// Of those whose agents run on that host.
    pub hosts: BTreeMap<String, usize>,
    /// Of those that bear this label: `key=value`, or `key` for each of its values by itself.
    pub labels: BTreeMap<String, usize>,
}

/// Lets tasks go as there is room, for as long as the supervisor lives.
pub(crate) async fn keep(supervisor: Supervisor) {
    let engine = supervisor.engine.clone();
    let mut closing = engine.closing.subscribe();
    let mut broken = BTreeSet::new();
    let work = async {
        loop {
            match look(&supervisor, &mut broken).await {
                Ok(()) => engine.tasks.queue.notified().await,
                // A commit was overtaken, perhaps by one that wakes nobody.
                Err(Error::Task(TaskError::Moved(_))) => {}
                Err(error) => {
                    warn!(%error, "the queue of tasks cannot be looked at; it is tried again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

/// `broken`: tasks of which the database holds what cannot be read, each said once. They keep nobody else waiting.
async fn look(supervisor: &Supervisor, broken: &mut BTreeSet<TaskId>) -> Result<()> {
    let engine = &supervisor.engine;
    let blocks = engine.store.blocks().await?;
    let given = &engine.config.tasks;
    let mut limits = Limits {
        all: given.running.unwrap_or_else(|| (2 * engine.probe.cores as usize).max(4)),
        hosts: given.hosts.clone(),
        labels: engine.tasks.limits(&given.labels),
        host_of: BTreeMap::new(),
    };
    let mut plain = PLAIN;
    let chosen = loop {
        let rows = engine.store.queue(plain).await?;
        let (queued, running): (Vec<TaskRow>, Vec<TaskRow>) =
            rows.into_iter().partition(|row| row.state == TaskState::Queued);
        for row in &running {
            driver::drive(supervisor, row.id);
        }
        let plain_read = queued.iter().filter(|row| row.parent.is_none()).count();
        let mut waiting = Vec::new();
        for row in queued {
            let id = row.id;
            match wait(engine, row, &running, &blocks).await {
                Ok(found) => waiting.extend(found),
                Err(error) => pass_by(broken, id, error)?,
            }
        }
        waiting.iter_mut().for_each(|one| one.ready &= !broken.contains(&one.row.id));
        if !limits.hosts.is_empty() {
            let live = running.iter().chain(waiting.iter().map(|one| &one.row));
            limits.host_of = live.filter_map(|row| Some((row.id, host(row)?))).collect();
        }
        let (chosen, room) = choose(&waiting, &running, &limits);
        if room == 0 || plain_read < plain as usize {
            break chosen;
        }
        // Those in front are held up by labels or blocks: further behind somebody may not be.
        plain = plain.saturating_mul(4);
    };
    for id in chosen {
        match admit(engine, id).await {
            Ok(()) => driver::drive(supervisor, id),
            Err(error) => pass_by(broken, id, error)?,
        }
    }
    Ok(())
}

/// Where its agent runs; None: it has none.
fn host(row: &TaskRow) -> Option<String> {
    let spec: TaskSpec = parse(row, "spec", &row.spec).ok()?;
    (!is_group(&spec)).then(|| spec.session.host.unwrap_or_else(|| "local".into()))
}

/// What is wrong with one task alone is said once, and the task stays where it is.
fn pass_by(broken: &mut BTreeSet<TaskId>, id: TaskId, error: Error) -> Result<()> {
    match error {
        Error::Refused(_) | Error::Store(StoreError::TaskSecretsDamaged { .. }) => {
            if broken.insert(id) {
                warn!(task = %id, %error, "a task cannot be read; it stays in the queue until the daemon starts again");
            }
            Ok(())
        }
        other => Err(other),
    }
}

/// None: it is none of those that can be chosen.
async fn wait(
    engine: &Engine,
    row: TaskRow,
    running: &[TaskRow],
    blocks: &[LaunchBlock],
) -> Result<Option<Waiting>> {
    let view: TaskView = parse(&row, "state", &row.view)?;
    // Its siblings are still being made.
    let is_made = |parent: &TaskRow| row.parent != Some(parent.id) || parent.state != TaskState::Starting;
    if view.sibling.is_some() && !running.iter().all(is_made) {
        return Ok(None);
    }
    let ready = match first_of(engine, &view).await? {
        Dependencies::Done => !super::block::holds(blocks, &row),
        Dependencies::Open => false,
        Dependencies::Failed(message) => {
            refuse(engine, &row, message).await?;
            return Ok(None);
        }
    };
    Ok(Some(Waiting { row, sibling: view.sibling, ready }))
}

enum Dependencies {
    Done,
    Open,
    Failed(String),
}

async fn first_of(engine: &Engine, view: &TaskView) -> Result<Dependencies> {
    let mut open = false;
    for id in &view.depends_on {
        match engine.store.task(*id).await?.map(|row| row.state) {
            Some(TaskState::Done) => {}
            Some(state) if !state.is_final() => open = true,
            Some(state) => {
                return Ok(Dependencies::Failed(format!("task {id}, which it depends on, was {state}")));
            }
            None => return Ok(Dependencies::Failed(format!("task {id}, which it depends on, was removed"))),
        }
    }
    Ok(if open { Dependencies::Open } else { Dependencies::Done })
}

async fn refuse(engine: &Engine, row: &TaskRow, message: String) -> Result<()> {
    let mut task = Held::of(engine, row).await?;
    let reason = Some(Reason { code: ReasonCode::Dependency, message, tail: Vec::new() });
    task.view.reason.clone_from(&reason);
    task.view.conclude(Outcome { state: TaskState::Failed, result: None, reason }, now(), &mut task.events);
    task.view.shift(Cause::Failed, now(), &mut task.events);
    task.commit(engine).await
}

/// Another attempt begins.
async fn admit(engine: &Engine, id: TaskId) -> Result<()> {
    let Some(mut task) = Held::load(engine, id).await? else { return Ok(()) };
    let n = task.view.attempt() + 1;
    // It may never have come to a session of its own.
    let before = match task.session().filter(|_| task.view.resume) {
        Some(session) => engine.store.session(session).await?.map(|row| row.id),
        None => None,
    };
    let session_id = (!is_group(&task.spec)).then(|| before.unwrap_or_else(|| id.session(n)));
    if !task.view.shift(Cause::Admitted, now(), &mut task.events) {
        return Ok(());
    }
    // What another attempt has said, and how it ended, is not this one's.
    task.view.cursor = match before {
        Some(session) => engine.store.head(session).await?.unwrap_or_default(),
        None => 0,
    };
    if before.is_none() {
        task.view.progress = Default::default();
        task.view.todos = Default::default();
    }
    if !task.view.resume {
        task.view.children.clear();
    }
    (task.view.kickoff, task.view.goes_on) = (None, None);
    (task.view.gathered, task.view.begun) = (false, false);
    task.view.attempts.push(Attempt {
        n,
        session_id,
        resumed: before.is_some(),
        started_at: now(),
        ended_at: None,
        state: None,
        reason: None,
    });
    task.commit(engine).await
}
