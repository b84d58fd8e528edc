//! What waits, and what is let go: limits in number, tasks that others depend on. Choosing is pure; the loop reads and
//! commits.

use super::driver;
use super::group::MAX_DEPTH;
use super::group::is_group;
use super::held::{Held, parse};
use super::state::Cause;
use super::view::{Outcome, Sibling, TaskView};
use crate::engine::{Engine, now};
use crate::supervisor::Supervisor;
use crate::{Error, Result};
use castra_proto::task::{Attempt, LaunchBlock, Order, Reason, ReasonCode};
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
    let limits = &engine.config.tasks;
    let all = limits.running.unwrap_or_else(|| (2 * engine.probe.cores as usize).max(4));
    let labels = engine.tasks.limits(&limits.labels);
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
        let (chosen, room) = choose(&waiting, &running, all, &labels);
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

/// A task in the queue.
struct Waiting {
    row: TaskRow,
    sibling: Option<Sibling>,
    /// All that it depends on is done.
    ready: bool,
}

/// What may be let go now, in order; and how many places are left then.
fn choose(
    queued: &[Waiting],
    running: &[TaskRow],
    all: usize,
    labels: &BTreeMap<String, usize>,
) -> (Vec<TaskId>, usize) {
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
    // Its children count in a task's place: who waits for them would else keep them from running.
    let live = running.iter().chain(queued.iter().map(|one| &one.row));
    let parents: BTreeSet<TaskId> = live.filter_map(|row| row.parent).collect();
    let counting = || running.iter().filter(|row| !parents.contains(&row.id));
    // Of a label only where a task below bears it too.
    let below = borne_below(queued, running);
    for row in running {
        for (label, _) in
            places(row).into_iter().filter(|(label, _)| !below.contains(&(row.id, label.clone())))
        {
            *taken.entry(label).or_default() += 1;
        }
    }
    let mut at_work: BTreeMap<TaskId, u32> = BTreeMap::new();
    for parent in running.iter().filter_map(|row| row.parent) {
        *at_work.entry(parent).or_default() += 1;
    }
    let mut room = all.saturating_sub(counting().count());
    let mut chosen = Vec::new();
    for one in queued.iter().filter(|one| one.ready) {
        if room == 0 {
            break;
        }
        let wanted = places(&one.row);
        // Whoever waits for a label, or for its siblings, does not hold up others behind it.
        if wanted.iter().any(|(label, limit)| taken.get(label).copied().unwrap_or(0) >= *limit) {
            continue;
        }
        if let (Some(sibling), Some(parent)) = (one.sibling, one.row.parent) {
            let at_work = at_work.entry(parent).or_default();
            if *at_work >= sibling.at_once || sibling.in_order == Order::Sequential && is_behind(queued, one)
            {
                continue;
            }
            *at_work += 1;
        }
        for (label, _) in wanted {
            *taken.entry(label).or_default() += 1;
        }
        room -= 1;
        chosen.push(one.row.id);
    }
    (chosen, room)
}

/// The labels of all that is live, with each task that these are below of.
fn borne_below(queued: &[Waiting], running: &[TaskRow]) -> BTreeSet<(TaskId, String)> {
    let live: BTreeMap<TaskId, &TaskRow> =
        running.iter().chain(queued.iter().map(|one| &one.row)).map(|row| (row.id, row)).collect();
    let mut borne = BTreeSet::new();
    for row in live.values().filter(|row| row.parent.is_some()) {
        let above = std::iter::successors(row.parent, |id| live.get(id)?.parent).take(MAX_DEPTH);
        for id in above {
            borne.extend(row.labels.iter().map(|(key, value)| (id, format!("{key}={value}"))));
        }
    }
    borne
}

/// Another one comes before it.
fn is_behind(queued: &[Waiting], one: &Waiting) -> bool {
    let place = |one: &Waiting| one.sibling.map(|sibling| sibling.n);
    queued.iter().any(|other| other.row.parent == one.row.parent && place(other) < place(one))
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
    (task.view.kickoff, task.view.gathered, task.view.begun) = (None, false, false);
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

    fn waiting(row: TaskRow) -> Waiting {
        Waiting { row, sibling: None, ready: true }
    }

    fn chosen(
        queued: &[Waiting],
        running: &[TaskRow],
        all: usize,
        labels: &BTreeMap<String, usize>,
    ) -> Vec<TaskId> {
        choose(queued, running, all, labels).0
    }

    #[test]
    fn as_many_as_there_is_room_for_in_order() {
        let queued = [0; 3].map(|_| waiting(row(&[])));
        let ids: Vec<TaskId> = queued.iter().map(|one| one.row.id).collect();
        assert_eq!(chosen(&queued, &[], 2, &BTreeMap::new()), ids[..2]);
        assert_eq!(chosen(&queued, &[row(&[])], 2, &BTreeMap::new()), ids[..1]);
        assert_eq!(chosen(&queued, &[row(&[]), row(&[])], 2, &BTreeMap::new()), []);
        assert_eq!(chosen(&queued, &[], 9, &BTreeMap::new()), ids);
    }

    #[test]
    fn a_label_that_is_full_holds_up_only_its_own() {
        let limits = BTreeMap::from([("team=blue".to_owned(), 1), ("user".to_owned(), 1)]);
        let blue = || row(&[("team", "blue")]);
        let (first, second, red) = (blue(), blue(), row(&[("team", "red")]));
        let queued = [first.clone(), second, red.clone()].map(waiting);
        assert_eq!(chosen(&queued, &[], 9, &limits), [first.id, red.id]);
        assert_eq!(chosen(&queued, &[blue()], 9, &limits), [red.id]);
        let users = [row(&[("user", "a")]), row(&[("user", "a")]), row(&[("user", "b")])];
        let ids = users.clone().map(|row| row.id);
        assert_eq!(chosen(&users.map(waiting), &[], 9, &limits), [ids[0], ids[2]]);
    }

    fn children<const N: usize>(parent: &TaskRow, at_once: u32, in_order: Order) -> [Waiting; N] {
        std::array::from_fn(|n| Waiting {
            row: TaskRow { parent: Some(parent.id), ..row(&[]) },
            sibling: Some(Sibling { n, at_once, in_order }),
            ready: true,
        })
    }

    #[test]
    fn children_have_their_parents_place_and_their_own_limit() {
        let parent = row(&[]);
        let running = std::slice::from_ref(&parent);
        let none = BTreeMap::new();
        let queued: [Waiting; 4] = children(&parent, 2, Order::Parallel);
        assert_eq!(chosen(&queued, running, 1, &none), [queued[0].row.id]);
        assert_eq!(chosen(&queued, running, 9, &none), [queued[0].row.id, queued[1].row.id]);
        let [first, mut rest @ ..]: [Waiting; 4] = queued;
        let both = [parent.clone(), first.row];
        assert_eq!(chosen(&rest, &both, 9, &none), [rest[0].row.id]);
        // Whoever waits for something is passed by.
        rest[0].ready = false;
        assert_eq!(chosen(&rest, &both, 9, &none), [rest[1].row.id]);
        // Without children it counts for itself.
        assert_eq!(chosen(&[waiting(row(&[]))], running, 1, &none), []);
    }

    #[test]
    fn a_label_is_its_bearers_while_its_children_run_unless_they_bear_it_too() {
        let limits = BTreeMap::from([("definition=d".to_owned(), 1)]);
        let parent = row(&[("definition", "d")]);
        let other = row(&[("definition", "d")]);
        let [child]: [Waiting; 1] = children(&parent, 1, Order::Parallel);
        let both = [parent.clone(), child.row.clone()];
        assert_eq!(chosen(&[waiting(other.clone())], &both, 9, &limits), []);
        let [mut child]: [Waiting; 1] = children(&parent, 1, Order::Parallel);
        child.row.labels = parent.labels.clone();
        let (id, running) = (child.row.id, [parent]);
        assert_eq!(chosen(&[child, waiting(other)], &running, 9, &limits), [id]);
    }

    #[test]
    fn a_sequence_is_kept_also_where_its_next_one_waits() {
        let parent = row(&[]);
        let running = std::slice::from_ref(&parent);
        let none = BTreeMap::new();
        let mut queued: [Waiting; 3] = children(&parent, 1, Order::Sequential);
        // As priorities have it.
        queued.reverse();
        assert_eq!(chosen(&queued, running, 9, &none), [queued[2].row.id]);
        queued[2].ready = false;
        assert_eq!(chosen(&queued, running, 9, &none), []);
        let others = [waiting(row(&[]))];
        assert_eq!(chosen(&others, running, 9, &none), [others[0].row.id]);
    }
}
