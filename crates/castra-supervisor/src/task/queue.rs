//! What waits, and what is let go: limits in number, tasks that others depend on. Choosing is pure; the loop reads and
//! commits.

use super::driver;
use super::held::{Held, parse};
use super::state::Cause;
use super::view::{Outcome, TaskView};
use crate::engine::{Engine, now};
use crate::supervisor::Supervisor;
use crate::{Error, Result};
use castra_proto::task::{Attempt, Reason, ReasonCode};
use castra_proto::{TaskId, TaskState};
use castra_store::{TaskError, TaskRow};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::warn;

/// Between two looks at a queue that could not be read or written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How many tasks may run at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// On this server; unset: twice the number of cores, and at least 4.
    pub running: Option<usize>,
    /// Of those that bear this label: `key=value`, or `key` for each of its values by itself.
    pub labels: BTreeMap<String, usize>,
}

/// Lets tasks go as there is room, for as long as the supervisor lives.
pub(crate) async fn keep(supervisor: Supervisor) {
    let engine = supervisor.engine.clone();
    let mut closing = engine.closing.subscribe();
    let work = async {
        loop {
            match look(&supervisor).await {
                // A commit was overtaken: what has changed wakes this loop too.
                Ok(()) | Err(Error::Task(TaskError::Moved(_))) => engine.tasks.queue.notified().await,
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

async fn look(supervisor: &Supervisor) -> Result<()> {
    let engine = &supervisor.engine;
    let rows = engine.store.live_tasks().await?;
    let (queued, running): (Vec<TaskRow>, Vec<TaskRow>) =
        rows.into_iter().partition(|row| row.state == TaskState::Queued);
    for row in &running {
        driver::drive(supervisor, row.id);
    }
    let mut ready = Vec::new();
    for row in queued {
        match first_of(engine, &row).await? {
            Dependencies::Done => ready.push(row),
            Dependencies::Open => {}
            Dependencies::Failed(message) => refuse(engine, &row, message).await?,
        }
    }
    let limits = &engine.config.tasks;
    let all = limits.running.unwrap_or_else(|| (2 * engine.probe.cores as usize).max(4));
    for id in choose(&ready, &running, all, &limits.labels) {
        admit(engine, id).await?;
        driver::drive(supervisor, id);
    }
    Ok(())
}

/// What may be let go now, in order.
fn choose(
    queued: &[TaskRow],
    running: &[TaskRow],
    all: usize,
    labels: &BTreeMap<String, usize>,
) -> Vec<TaskId> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let places = |row: &TaskRow| -> Vec<(String, usize)> {
        row.labels
            .iter()
            .flat_map(|(key, value)| {
                let exact = format!("{key}={value}");
                let limit = labels.get(&exact).or_else(|| labels.get(key)).copied();
                limit.map(|limit| (exact, limit))
            })
            .collect()
    };
    for row in running {
        for (label, _) in places(row) {
            *taken.entry(label).or_default() += 1;
        }
    }
    let mut room = all.saturating_sub(running.len());
    let mut chosen = Vec::new();
    for row in queued {
        if room == 0 {
            break;
        }
        let wanted = places(row);
        // Whoever waits for a label does not hold up others behind it.
        if wanted.iter().any(|(label, limit)| taken.get(label).copied().unwrap_or(0) >= *limit) {
            continue;
        }
        for (label, _) in wanted {
            *taken.entry(label).or_default() += 1;
        }
        room -= 1;
        chosen.push(row.id);
    }
    chosen
}

enum Dependencies {
    Done,
    Open,
    Failed(String),
}

async fn first_of(engine: &Engine, row: &TaskRow) -> Result<Dependencies> {
    let view: TaskView = parse(row, "state", &row.view)?;
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
    let before = task.session().filter(|_| task.view.resume);
    let session_id = before.unwrap_or_else(|| id.session(n));
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
    }
    task.view.kickoff = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::Timestamp;
    use serde_json::Value;

    fn row(labels: &[(&str, &str)]) -> TaskRow {
        TaskRow {
            id: TaskId::now(),
            name: None,
            state: TaskState::Queued,
            priority: 0,
            parent: None,
            session: None,
            head: 0,
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            metadata: Value::Null,
            spec: String::new(),
            view: String::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn as_many_as_there_is_room_for_in_order() {
        let queued = [row(&[]), row(&[]), row(&[])];
        let ids: Vec<TaskId> = queued.iter().map(|row| row.id).collect();
        assert_eq!(choose(&queued, &[], 2, &BTreeMap::new()), ids[..2]);
        assert_eq!(choose(&queued, &[row(&[])], 2, &BTreeMap::new()), ids[..1]);
        assert_eq!(choose(&queued, &[row(&[]), row(&[])], 2, &BTreeMap::new()), []);
        assert_eq!(choose(&queued, &[], 9, &BTreeMap::new()), ids);
    }

    #[test]
    fn a_label_that_is_full_holds_up_only_its_own() {
        let limits = BTreeMap::from([("team=blue".to_owned(), 1), ("user".to_owned(), 1)]);
        let blue = || row(&[("team", "blue")]);
        let (first, second, red) = (blue(), blue(), row(&[("team", "red")]));
        let queued = [first.clone(), second, red.clone()];
        assert_eq!(choose(&queued, &[], 9, &limits), [first.id, red.id]);
        assert_eq!(choose(&queued, &[blue()], 9, &limits), [red.id]);
        let users = [row(&[("user", "a")]), row(&[("user", "a")]), row(&[("user", "b")])];
        assert_eq!(choose(&users, &[], 9, &limits), [users[0].id, users[2].id]);
    }
}
