//! Where a session's news is: heads, a ring of frames just committed, the text of the open message.
//!
//! A head is a number and carries nothing. The ring is a cache of rows, never a queue: whoever misses
//! it reads the store, so that a slow reader slows only itself.

use super::screen::Screen;
use crate::frame::{EventFrame, encode};
use castra_claude::open::{BlockKind, OpenMessage};
use castra_proto::SessionId;
use castra_store::CommittedBatch;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Bytes of frames that a session's ring keeps while somebody watches.
const TAIL_BYTES: usize = 4 << 20;

/// What moved. Only ever compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub seq: u64,
    /// Counts changes of the open message.
    pub partial: u64,
    pub removed: bool,
}

/// One session's hub. Shared by its actor, the store's observer and its subscribers.
#[derive(Debug)]
pub(crate) struct Hub {
    pub id: SessionId,
    pub head: watch::Sender<Head>,
    /// Counts commits that changed a message or a run's state: whoever waits for an answer looks then only.
    pub messages: watch::Sender<u64>,
    /// Wakes the actor: there is a new row for it.
    pub poke: Notify,
    /// What a session on a terminal shows.
    pub screen: Arc<Screen>,
    // Std mutexes: held for a few instructions, never across an await.
    tail: Mutex<Tail>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Tail {
    frames: VecDeque<Arc<EventFrame>>,
    bytes: usize,
}

/// The open message as subscribers see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    pub message: OpenMessage,
}

impl Hub {
    fn new(id: SessionId) -> Self {
        Self {
            id,
            head: watch::Sender::new(Head::default()),
            messages: watch::Sender::new(0),
            poke: Notify::new(),
            screen: Arc::default(),
            tail: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Frames after `seq`, if the ring has the very next one; at most `max_bytes`, at least one.
    pub(crate) fn tail_after(&self, seq: u64, max_bytes: usize) -> Option<Vec<Arc<EventFrame>>> {
        let tail = lock(&self.tail);
        let first = tail.frames.front()?.seq;
        let skip = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        if skip >= tail.frames.len() {
            return None;
        }
        let mut bytes = 0;
        let take = tail.frames.range(skip..).take_while(|frame| {
            let fits = bytes == 0 || bytes + frame.json.len() <= max_bytes;
            bytes += frame.json.len();
            fits
        });
        Some(take.cloned().collect())
    }

    /// Replaces what subscribers see of the open message; appends only what is new of its text.
    pub(crate) fn show_open(&self, now: &OpenMessage) {
        let mut open = lock(&self.open);
        if !follow(&mut open.message, now) {
            return;
        }
        drop(open);
        self.head.send_modify(|head| head.partial += 1);
    }

    /// Takes away the blocks that are not open any more, and shows nothing new: the next block is not to be seen
    /// before the event that closes this one.
    pub(crate) fn close_open(&self, now: &OpenMessage) {
        let mut open = lock(&self.open);
        let same = open.message.generation == now.generation;
        open.message.blocks.retain(|block| same && now.blocks.iter().any(|other| other.index == block.index));
    }

    pub(crate) fn with_open<T>(&self, read: impl FnOnce(&OpenMessage) -> T) -> T {
        read(&lock(&self.open).message)
    }

    fn committed(&self, batch: &CommittedBatch) {
        if !batch.events.is_empty() {
            let mut tail = lock(&self.tail);
            if self.head.receiver_count() == 0 {
                *tail = Tail::default();
            } else {
                tail.push(batch);
            }
        }
        if batch.messages {
            self.messages.send_modify(|count| *count += 1);
        }
        self.head.send_modify(|head| {
            head.seq = batch.head.max(head.seq);
            head.removed |= batch.removed;
        });
    }
}

impl Tail {
    fn push(&mut self, batch: &CommittedBatch) {
        for (seq, event) in batch.numbered() {
            if self.frames.back().is_some_and(|last| last.seq + 1 != seq) {
                *self = Self::default();
            }
            if event.data.len() > TAIL_BYTES {
                // It would push out everything, itself too: whoever wants it reads the store.
                *self = Self::default();
                continue;
            }
            let frame = encode(
                seq,
                batch.session,
                event.at,
                event.run,
                event.turn,
                &event.kind,
                &event.data,
                event.raw.as_deref(),
            );
            self.bytes += frame.json.len();
            self.frames.push_back(Arc::new(frame));
        }
        while self.bytes > TAIL_BYTES {
            let Some(frame) = self.frames.pop_front() else { break };
            self.bytes -= frame.json.len();
        }
    }
}

/// Makes `shown` equal to `now`, touching only what differs. False: nothing did.
fn follow(shown: &mut OpenMessage, now: &OpenMessage) -> bool {
    if shown.generation != now.generation || shown.blocks.len() > now.blocks.len() {
        let changed = !(shown.blocks.is_empty() && now.blocks.is_empty());
        shown.clone_from(now);
        return changed;
    }
    let mut changed = false;
    for (index, block) in now.blocks.iter().enumerate() {
        match shown.blocks.get_mut(index) {
            Some(old) if old.index == block.index => {
                if old.text.len() < block.text.len() {
                    old.text.push_str(&block.text[old.text.len()..]);
                    changed = true;
                }
            }
            Some(old) => {
                old.clone_from(block);
                changed = true;
            }
            None => {
                shown.blocks.push(block.clone());
                changed = true;
            }
        }
    }
    changed
}

pub(crate) const fn block_kind(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Text => "text",
        BlockKind::Thinking => "thinking",
        BlockKind::ToolInput => "tool_input",
    }
}

/// All hubs of this supervisor, made when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    sessions: Mutex<HashMap<SessionId, Arc<Hub>>>,
    /// The head of the server-wide sequence.
    pub server: watch::Sender<u64>,
}

impl Hubs {
    pub(crate) fn get(&self, id: SessionId) -> Arc<Hub> {
        lock(&self.sessions).entry(id).or_insert_with(|| Arc::new(Hub::new(id))).clone()
    }

    /// Called by the store's writer after each commit, in commit order.
    pub(crate) fn committed(&self, batch: &CommittedBatch) {
        let hub = lock(&self.sessions).get(&batch.session).cloned();
        if let Some(hub) = hub {
            hub.committed(batch);
            if batch.removed {
                lock(&self.sessions).remove(&batch.session);
            }
        }
        if let Some(last) = batch.server_events.last() {
            self.announced(last.seq);
        }
    }

    /// The server-wide sequence has come to here.
    pub(crate) fn announced(&self, seq: u64) {
        self.server.send_modify(|head| *head = seq.max(*head));
    }

    /// Lets go of hubs that nobody holds.
    pub(crate) fn sweep(&self) {
        lock(&self.sessions).retain(|_, hub| Arc::strong_count(hub) > 1);
    }
}

/// A poisoned mutex guards plain data that no panic leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_claude::open::OpenBlock;

    #[test]
    fn a_block_that_an_event_closes_is_gone_before_the_next_one_is_shown() {
        let block = |index, text: &str| OpenBlock { index, kind: BlockKind::Text, text: text.into() };
        let open = |generation, blocks| OpenMessage { message_id: Some("m".into()), generation, blocks };
        let hub = Hub::new(SessionId::now());
        let shown = || hub.with_open(OpenMessage::clone);
        hub.show_open(&open(7, vec![block(0, "who"), block(1, "nex")]));
        let now = open(7, vec![block(1, "next"), block(2, "and")]);
        hub.close_open(&now);
        assert_eq!(shown(), open(7, vec![block(1, "nex")]));
        hub.show_open(&now);
        assert_eq!(shown(), now);
        hub.close_open(&open(9, vec![block(1, "another message")]));
        assert_eq!(shown(), open(7, vec![]));
    }
}
