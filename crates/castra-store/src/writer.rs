//! The one writer: a bounded queue, and commits that wait in it grouped into one transaction. Refuses SQL.
//!
//! A commit costs one sync of the disk. While one is under way others queue up, and the next transaction
//! takes all of them: nobody waits for a timer, and the more callers there are, the larger the groups.

use crate::commit::{Change, Commit, Committed, CommittedBatch, Observer, RunUpdate};
use crate::error::{CommitError, StoreError};
use castra_proto::api::ServerEvent;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Commits and jobs that may wait; then callers do.
const QUEUE_ITEMS: usize = 1024;
/// What waiting commits may weigh, in KiB: 64 MiB. A heavier commit goes alone.
const QUEUE_KIB: u32 = 64 * 1024;
const GROUP_ITEMS: usize = 256;
/// A group ends when it weighs this much: a transaction should not hold up small commits for long.
const GROUP_BYTES: usize = 8 << 20;

/// What a backend gives the writer.
pub(crate) trait Engine: Send + 'static {
    /// Applies all of these in one transaction. The inner errors are commits refused alone; on the outer
    /// one nothing of the group is in the store.
    fn group(&mut self, commits: &[Commit]) -> impl Future<Output = Result<Vec<Outcome>, StoreError>> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

pub(crate) type Outcome = Result<Applied, CommitError>;

/// A commit that is in the transaction.
#[derive(Debug)]
pub(crate) struct Applied {
    pub committed: Committed,
    pub server_events: Vec<ServerEvent>,
    pub removed: bool,
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Job<E> = Box<dyn for<'e> FnOnce(&'e mut E) -> BoxFuture<'e, ()> + Send>;
type Reply<T> = oneshot::Sender<T>;

enum Item<E> {
    Commit {
        commit: Box<Commit>,
        weight: usize,
        room: OwnedSemaphorePermit,
        reply: Reply<Result<Committed, CommitError>>,
    },
    /// Something rare that is a transaction of its own.
    Job(Job<E>),
    Close(Reply<()>),
}

/// The callers' end.
pub(crate) struct Queue<E> {
    items: mpsc::Sender<Item<E>>,
    room: Arc<Semaphore>,
}

impl<E> fmt::Debug for Queue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl<E: Engine> Queue<E> {
    pub(crate) fn spawn(engine: E, observer: Option<Observer>) -> Self {
        let (items, queued) = mpsc::channel(QUEUE_ITEMS);
        tokio::spawn(write(engine, queued, observer));
        Self { items, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)) }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let weight = commit.weight();
        let kib = u32::try_from(weight / 1024 + 1).unwrap_or(QUEUE_KIB).min(QUEUE_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let item = Item::Commit { commit: Box::new(commit), weight, room, reply };
        self.items.send(item).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn job<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'e> FnOnce(&'e mut E) -> BoxFuture<'e, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job<E> = Box::new(move |engine| {
            Box::pin(async move {
                let result = job(engine).await;
                // Whoever asked may be gone; it is done all the same.
                let _ = reply.send(result);
            })
        });
        self.items.send(Item::Job(job)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.items.send(Item::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

struct Waiting {
    reply: Reply<Result<Committed, CommitError>>,
    /// Given back when the commit is on disk.
    _room: OwnedSemaphorePermit,
}

async fn write<E: Engine>(mut engine: E, mut queued: mpsc::Receiver<Item<E>>, observer: Option<Observer>) {
    let mut closing = Vec::new();
    let mut group = Vec::new();
    let mut waiting = Vec::new();
    while let Some(first) = queued.recv().await {
        let mut weighs = 0;
        let mut next = Some(first);
        // Commits up to the first item that is something else, which comes after them.
        let after = loop {
            match next {
                Some(Item::Commit { commit, weight, room, reply }) => {
                    weighs += weight;
                    group.push(*commit);
                    waiting.push(Waiting { reply, _room: room });
                }
                other => break other,
            }
            if group.len() == GROUP_ITEMS || weighs >= GROUP_BYTES {
                break None;
            }
            next = queued.try_recv().ok();
        };
        if !group.is_empty() {
            commit_group(&mut engine, &mut group, &mut waiting, observer.as_ref()).await;
        }
        match after {
            Some(Item::Job(job)) => job(&mut engine).await,
            Some(Item::Close(reply)) => {
                // What is queued already is still written; nothing comes after it.
                queued.close();
                closing.push(reply);
            }
            Some(Item::Commit { .. }) | None => {}
        }
    }
    engine.close().await;
    for reply in closing {
        let _ = reply.send(());
    }
}

async fn commit_group<E: Engine>(
    engine: &mut E,
    group: &mut Vec<Commit>,
    waiting: &mut Vec<Waiting>,
    observer: Option<&Observer>,
) {
    let outcomes = match engine.group(group).await {
        Ok(outcomes) => outcomes,
        Err(error) if group.len() == 1 => vec![Err(CommitError::Store(error))],
        Err(error) => {
            // One of them may be what the database chokes on: each has its own chance and its own error.
            tracing::warn!(%error, commits = group.len(), "a transaction failed; trying its commits one by one");
            let mut outcomes = Vec::with_capacity(group.len());
            for alone in group.iter() {
                outcomes.push(match engine.group(std::slice::from_ref(alone)).await {
                    Ok(mut one) => one.pop().unwrap_or(Err(CommitError::Store(StoreError::Closed))),
                    Err(error) => Err(CommitError::Store(error)),
                });
            }
            outcomes
        }
    };
    for ((commit, outcome), waiting) in group.drain(..).zip(outcomes).zip(waiting.drain(..)) {
        let result = outcome.map(|applied| {
            let committed = applied.committed;
            if let (Some(observer), None) = (observer, committed.duplicate_of) {
                observe(observer, commit, applied);
            }
            committed
        });
        // Whoever asked may be gone; it is committed all the same.
        let _ = waiting.reply.send(result);
    }
}

fn observe(observer: &Observer, commit: Commit, applied: Applied) {
    let batch = CommittedBatch {
        session: commit.session,
        first_seq: applied.committed.first_seq,
        head: applied.committed.last_seq,
        events: commit.events,
        server_events: applied.server_events,
        messages: commit.changes.iter().any(|change| {
            matches!(
                change,
                Change::Message(_) | Change::Run(RunUpdate { state: Some(_), .. }) | Change::Remove
            )
        }),
        removed: applied.removed,
    };
    // A panic there must not end all writing.
    if catch_unwind(AssertUnwindSafe(|| (observer.0)(&batch))).is_err() {
        tracing::error!(session = %batch.session, "the commit observer panicked");
    }
}
