//! Who may begin a conversation now: stopping an agent shuts its gate, and whoever was let in before finds it shut.
//! Refuses to know what a conversation is.

use castra_proto::TeamId;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::RwLock;

/// Requests that are remembered by their key. One that is forgotten is a new one: it may start what was stopped.
const REMEMBERED: usize = 1024;

type Begun = VecDeque<((TeamId, String), u64)>;

#[derive(Debug, Default)]
pub(crate) struct TeamHub {
    gates: Mutex<HashMap<TeamId, HashMap<String, Arc<Gate>>>>,
    /// Counts requests and stops: what is larger came later.
    clock: AtomicU64,
    begun: Mutex<Begun>,
}

/// Of one agent.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Read by whoever begins or resumes one of its sessions, written by whoever ends them: between the look at what
    /// there is to stop and its end, nothing is begun.
    pub open: RwLock<()>,
    stopped: AtomicU64,
}

impl TeamHub {
    /// When a request began. The same one, made again with its key, began when it was made first: it does not start
    /// again what was stopped since.
    pub(crate) fn begin(&self, team: TeamId, key: Option<&str>) -> u64 {
        let now = || self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(key) = key else { return now() };
        let mut begun = lock(&self.begun);
        if let Some((_, at)) = begun.iter().find(|((of, known), _)| *of == team && known == key) {
            return *at;
        }
        if begun.len() >= REMEMBERED {
            begun.pop_front();
        }
        let at = now();
        begun.push_back(((team, key.to_owned()), at));
        at
    }

    pub(crate) fn gate(&self, team: TeamId, agent: &str) -> Arc<Gate> {
        lock(&self.gates).entry(team).or_default().entry(agent.to_owned()).or_default().clone()
    }

    /// Whoever has begun until now begins nothing more with this agent.
    pub(crate) fn stop(&self, gate: &Gate) {
        gate.stopped.store(self.clock.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    pub(crate) fn forget(&self, team: TeamId) {
        lock(&self.gates).remove(&team);
    }
}

impl Gate {
    pub(crate) fn was_stopped_since(&self, begun: u64) -> bool {
        self.stopped.load(Ordering::SeqCst) > begun
    }
}

/// A poisoned mutex guards plain data that no panic leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_for_what_began_before_it_and_for_that_agent() {
        let (hub, team) = (TeamHub::default(), TeamId::now());
        let (before, keyed) = (hub.begin(team, None), hub.begin(team, Some("k")));
        let gate = hub.gate(team, "a");
        assert!(!gate.was_stopped_since(before));
        hub.stop(&gate);
        assert!(gate.was_stopped_since(before) && gate.was_stopped_since(keyed));
        assert!(gate.was_stopped_since(hub.begin(team, Some("k"))), "made again, it is the same request");
        assert!(!gate.was_stopped_since(hub.begin(team, None)));
        assert!(!gate.was_stopped_since(hub.begin(TeamId::now(), Some("k"))));
        assert!(!hub.gate(team, "b").was_stopped_since(before));
        assert!(hub.gate(team, "a").was_stopped_since(before));
    }

    #[test]
    fn the_oldest_requests_are_forgotten() {
        let (hub, team) = (TeamHub::default(), TeamId::now());
        let first = hub.begin(team, Some("first"));
        for n in 0..REMEMBERED {
            hub.begin(team, Some(&n.to_string()));
        }
        assert_ne!(hub.begin(team, Some("first")), first);
        assert_eq!(lock(&hub.begun).len(), REMEMBERED);
    }
}
