//! Which tasks in the queue may be let go: pure, from what waits, what runs and the limits in number.

use super::group::MAX_DEPTH;
use super::view::Sibling;
use castra_proto::TaskId;
use castra_proto::task::Order;
use castra_store::TaskRow;
use std::collections::{BTreeMap, BTreeSet};

/// A task in the queue.
pub(super) struct Waiting {
    pub(super) row: TaskRow,
    pub(super) sibling: Option<Sibling>,
    /// All that it depends on is done.
    pub(super) ready: bool,
}

/// How many may run at once.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) hosts: BTreeMap<String, usize>,
    pub(super) labels: BTreeMap<String, usize>,
    /// Where each task's agent runs; empty where no host has a limit.
    pub(super) host_of: BTreeMap<TaskId, String>,
}

/// What there are only so many of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Host(String),
    /// `key=value`.
    Label(String),
}

impl Limits {
    /// The places that a task takes, each with how many there are.
    fn places(&self, row: &TaskRow) -> Vec<(Place, usize)> {
        let labels = row.labels.iter().filter_map(|(key, value)| {
            let exact = format!("{key}={value}");
            let limit = self.labels.get(&exact).or_else(|| self.labels.get(key)).copied()?;
            Some((Place::Label(exact), limit))
        });
        let host = self.host_of.get(&row.id);
        let host = host.and_then(|host| Some((Place::Host(host.clone()), *self.hosts.get(host)?)));
        labels.chain(host).collect()
    }
}

/// What may be let go now, in order; and how many places are left then.
pub(super) fn choose(queued: &[Waiting], running: &[TaskRow], limits: &Limits) -> (Vec<TaskId>, usize) {
    let mut taken: BTreeMap<Place, usize> = BTreeMap::new();
    // Its children count in a task's place: who waits for them would else keep them from running.
    let live = running.iter().chain(queued.iter().map(|one| &one.row));
    let parents: BTreeSet<TaskId> = live.filter_map(|row| row.parent).collect();
    // Of a label only where a task below bears it too.
    let below = borne_below(queued, running);
    for row in running {
        for (place, _) in limits.places(row) {
            let is_theirs = match &place {
                Place::Host(_) => parents.contains(&row.id),
                Place::Label(label) => below.contains(&(row.id, label.clone())),
            };
            if !is_theirs {
                *taken.entry(place).or_default() += 1;
            }
        }
    }
    let mut at_work: BTreeMap<TaskId, u32> = BTreeMap::new();
    for parent in running.iter().filter_map(|row| row.parent) {
        *at_work.entry(parent).or_default() += 1;
    }
    let counting = running.iter().filter(|row| !parents.contains(&row.id)).count();
    let mut room = limits.all.saturating_sub(counting);
    let mut chosen = Vec::new();
    for one in queued.iter().filter(|one| one.ready) {
        if room == 0 {
            break;
        }
        let wanted = limits.places(&one.row);
        // Whoever waits for a host, a label, or for its siblings, does not hold up others behind it.
        if wanted.iter().any(|(place, limit)| taken.get(place).copied().unwrap_or(0) >= *limit) {
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
        for (place, _) in wanted {
            *taken.entry(place).or_default() += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::{TaskState, Timestamp};
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
        choose(queued, running, &Limits { all, labels: labels.clone(), ..Limits::default() }).0
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

    #[test]
    fn a_host_that_is_full_holds_up_only_its_own_and_children_count_for_their_parents() {
        let [first, second, other, parent] = [0; 4].map(|_| row(&[]));
        let child = TaskRow { parent: Some(parent.id), ..row(&[]) };
        let on = |host: &str, rows: &[&TaskRow]| -> Vec<_> {
            rows.iter().map(|row| (row.id, host.to_owned())).collect()
        };
        let limits = Limits {
            all: 9,
            hosts: [("one".to_owned(), 1), ("two".to_owned(), 2)].into(),
            host_of: on("one", &[&first, &second])
                .into_iter()
                .chain(on("two", &[&other, &parent, &child]))
                .collect(),
            ..Limits::default()
        };
        let ids = |rows: &[&TaskRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        let queued = [first.clone(), second.clone(), other.clone()].map(waiting);
        assert_eq!(choose(&queued, &[], &limits).0, ids(&[&first, &other]));
        assert_eq!(choose(&queued, std::slice::from_ref(&second), &limits).0, ids(&[&other]));
        assert_eq!(choose(&queued, &[second, parent, child], &limits).0, ids(&[&other]));
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
