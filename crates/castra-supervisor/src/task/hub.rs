//! Who drives which task, and how others learn that one has changed. Refuses to know what a task is.

use castra_proto::TaskId;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

#[derive(Debug, Default)]
pub(crate) struct TaskHub {
    /// Counts commits of tasks. Only ever compared.
    pub changed: watch::Sender<u64>,
    /// Something about the queue may be different.
    pub queue: Notify,
    /// Something about schedules or launch blocks is different.
    pub clock: Notify,
    /// Limits beside those of the configuration, by label: what definitions and schedules say of their tasks.
    limits: Mutex<Arc<BTreeMap<String, usize>>>,
    drivers: Mutex<HashMap<TaskId, Arc<Notify>>>,
}

impl TaskHub {
    /// A commit is on disk: whoever drives the task looks at it again; the queue does where a state is another.
    pub(crate) fn committed(&self, id: TaskId, shifted: bool) {
        if let Some(driver) = self.lock().get(&id) {
            driver.notify_one();
        }
        self.changed.send_modify(|count| *count += 1);
        if shifted {
            self.queue.notify_one();
        }
    }

    /// What definitions and schedules say, beside what the configuration does; of two the smaller number holds.
    pub(crate) fn limits(&self, configured: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
        let own = self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = configured.clone();
        for (label, limit) in own.iter() {
            let limit = all.get(label).map_or(*limit, |one| *one.min(limit));
            all.insert(label.clone(), limit);
        }
        all
    }

    pub(crate) fn set_limits(&self, limits: BTreeMap<String, usize>) {
        let mut held = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if **held != limits {
            *held = Arc::new(limits);
            self.queue.notify_one();
        }
    }

    /// The right to drive this task, unless somebody has it.
    pub(crate) fn take(self: &Arc<Self>, id: TaskId) -> Option<Driving> {
        let poke = Arc::new(Notify::new());
        let mut drivers = self.lock();
        if drivers.contains_key(&id) {
            return None;
        }
        drivers.insert(id, poke.clone());
        Some(Driving { hub: self.clone(), id, poke })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Arc<Notify>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a task's one driver.
pub(crate) struct Driving {
    hub: Arc<TaskHub>,
    pub id: TaskId,
    pub poke: Arc<Notify>,
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.hub.lock().remove(&self.id);
        // It may have been queued again meanwhile.
        self.hub.queue.notify_one();
    }
}
