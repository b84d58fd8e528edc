//! How many connections there may be: strangers in a small lobby, known callers in a larger hall.
//!
//! Whoever has not shown a token yet can be replaced by the next: the lobby evicts its oldest. So a flood of
//! silent or slow connections pushes out its own, and a caller that speaks at once is let in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Connections without an authorised request, per listener.
const LOBBY: usize = 128;
/// Connections with one, per listener; event streams are among them.
const HALL: usize = 1024;

/// The seats of one listener.
pub(super) struct Seats {
    lobby: usize,
    hall: usize,
    // A std mutex: held for a few moves of numbers, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: VecDeque<(u64, Arc<Notify>)>,
    seated: usize,
}

/// One connection's place; given back when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Seat(Arc<Place>);

struct Place {
    seats: Arc<Seats>,
    id: u64,
    evicted: Arc<Notify>,
    seated: AtomicBool,
}

impl Seats {
    pub(super) fn new() -> Arc<Self> {
        Self::with(LOBBY, HALL)
    }

    fn with(lobby: usize, hall: usize) -> Arc<Self> {
        Arc::new(Self { lobby, hall, state: Mutex::default() })
    }

    /// A place in the lobby, if need be the oldest stranger's.
    pub(super) fn enter(self: &Arc<Self>) -> Seat {
        let evicted = Arc::new(Notify::new());
        let mut state = self.state();
        if state.waiting.len() >= self.lobby
            && let Some((_, oldest)) = state.waiting.pop_front()
        {
            oldest.notify_one();
        }
        let id = state.next;
        state.next += 1;
        state.waiting.push_back((id, evicted.clone()));
        drop(state);
        Seat(Arc::new(Place { seats: self.clone(), id, evicted, seated: AtomicBool::new(false) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The caller is known: from the lobby into the hall. False when the hall is full.
    pub(super) fn take(&self) -> bool {
        if self.0.seated.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.0.seats.state();
        if state.seated >= self.0.seats.hall {
            return false;
        }
        state.waiting.retain(|(id, _)| *id != self.0.id);
        state.seated += 1;
        self.0.seated.store(true, Ordering::Release);
        true
    }

    /// Returns when a newer stranger needed the place.
    pub(super) async fn evicted(&self) {
        self.0.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        if self.seated.load(Ordering::Acquire) {
            state.seated -= 1;
        } else {
            state.waiting.retain(|(id, _)| *id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn the_oldest_stranger_makes_room_and_known_callers_stay() {
        let seats = Seats::with(2, 2);
        let known = seats.enter();
        assert!(known.take() && known.take());
        let (first, second, third) = (seats.enter(), seats.enter(), seats.enter());
        assert!(first.evicted().now_or_never().is_some());
        assert!(second.evicted().now_or_never().is_none());
        assert!(known.evicted().now_or_never().is_none());
        drop(first);
        assert_eq!(seats.state().waiting.len(), 2);
        assert!(second.take());
        assert!(!third.take(), "the hall is full");
        drop(known);
        assert!(third.take());
        drop((second, third));
        let state = seats.state();
        assert_eq!((state.waiting.len(), state.seated), (0, 0));
    }
}
