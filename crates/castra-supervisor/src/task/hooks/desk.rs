//! The hooks that run now, by the secret that each was given, and the callbacks of the program that embeds castra.
//! Nothing of it outlives the supervisor.

use super::callback::Hooks;
use bytes::Bytes;
use castra_proto::task::HookPoint;
use castra_proto::{SessionId, TaskId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// In front of a hook's secret, so that a leaked one is recognised.
const PREFIX: &str = "castra_hook_";

/// One call of the hooks of a point, about one thing.
#[derive(Debug)]
pub(crate) struct Firing {
    /// The same whenever the same thing is told again.
    pub id: Uuid,
    pub task: TaskId,
    /// Of the attempt; it may not have begun.
    pub session: Option<SessionId>,
    pub on: HookPoint,
    /// What waits to be accepted.
    pub offered: Option<Bytes>,
    /// Messages that it has sent to the agent.
    pub sent: AtomicU32,
}

#[derive(Default)]
pub(crate) struct Desk {
    // Each held for a map operation, never across an await.
    open: Mutex<HashMap<[u8; 32], Arc<Firing>>>,
    callbacks: Mutex<Vec<Registration>>,
    numbers: AtomicU64,
    /// Something may be to be told.
    pub told: Notify,
}

/// Tasks that have changed since their callback has looked: from where it looks on.
#[derive(Default)]
pub(super) struct Changed {
    // Held for a map operation, never across an await.
    tasks: Mutex<BTreeMap<TaskId, u64>>,
    pub more: Notify,
}

impl Changed {
    pub(super) fn take(&self) -> Option<(TaskId, u64)> {
        lock(&self.tasks).pop_first()
    }
}

struct Registration {
    n: u64,
    /// Of callbacks that are told of states.
    changed: Option<Arc<Changed>>,
    /// None: for all tasks.
    task: Option<TaskId>,
    hooks: Arc<dyn Hooks>,
}

impl Desk {
    /// A secret that stands for this firing until it is dropped.
    pub(super) fn admit(self: &Arc<Self>, firing: &Arc<Firing>) -> Pass {
        // Two v4 UUIDs are 244 random bits from the operating system.
        let secret = format!("{PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let hash = Sha256::digest(&secret).into();
        lock(&self.open).insert(hash, firing.clone());
        Pass { desk: self.clone(), hash, secret }
    }

    pub(super) fn find(&self, secret: &str) -> Option<Arc<Firing>> {
        let hash: [u8; 32] = Sha256::digest(secret.strip_prefix(PREFIX).map(|_| secret)?).into();
        lock(&self.open).get(&hash).cloned()
    }

    /// `changed`: where it finds the tasks that have changed, if it wants to know.
    pub(super) fn register(
        self: &Arc<Self>,
        task: Option<TaskId>,
        hooks: Arc<dyn Hooks>,
        changed: Option<Arc<Changed>>,
    ) -> Registered {
        let n = self.numbers.fetch_add(1, Ordering::Relaxed);
        lock(&self.callbacks).push(Registration { n, task, hooks, changed });
        Registered { desk: self.clone(), n, listener: None }
    }

    /// Events behind this one are on disk.
    pub(crate) fn committed(&self, task: TaskId, after: u64) {
        for one in lock(&self.callbacks).iter().filter(|one| one.task.is_none_or(|id| id == task)) {
            if let Some(changed) = &one.changed {
                lock(&changed.tasks).entry(task).or_insert(after);
                changed.more.notify_one();
            }
        }
        self.told.notify_one();
    }

    /// In the order in which they were registered.
    pub(super) fn callbacks(&self, task: TaskId, on: HookPoint) -> Vec<Arc<dyn Hooks>> {
        let all = lock(&self.callbacks);
        let wanted = all.iter().filter(|one| one.task.is_none_or(|id| id == task));
        wanted.filter(|one| one.hooks.points().contains(&on)).map(|one| one.hooks.clone()).collect()
    }

    pub(crate) fn has_callback(&self, task: TaskId, on: HookPoint) -> bool {
        !self.callbacks(task, on).is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hook that runs; its secret dies with it.
pub(super) struct Pass {
    desk: Arc<Desk>,
    hash: [u8; 32],
    pub secret: String,
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.desk.open).remove(&self.hash);
    }
}

/// Callbacks are called for as long as this lives.
#[must_use = "callbacks are called only while this lives"]
pub struct Registered {
    desk: Arc<Desk>,
    n: u64,
    listener: Option<JoinHandle<()>>,
}

impl Registered {
    /// With it ends whoever tells it of states.
    pub(super) fn with(self, listener: JoinHandle<()>) -> Self {
        let mut own = self;
        own.listener = Some(listener);
        own
    }
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registered").field(&self.n).finish()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.desk.callbacks).retain(|one| one.n != self.n);
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}
