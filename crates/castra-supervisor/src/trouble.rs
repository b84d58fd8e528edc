//! Why sessions cannot be driven just now, as `flags.trouble` shows it. In memory: the store may be what fails, and
//! the next daemon finds out for itself.

use crate::Error;
use crate::host::{ConnError, HostError};
use castra_proto::session::Trouble;
use castra_proto::shim::Reason;
use castra_proto::{SessionId, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sessions whose actor fails and is tried again.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    // Held for a few instructions, never across an await.
    sessions: Mutex<HashMap<SessionId, Trouble>>,
}

impl Troubles {
    /// A try has failed. True: the reason is another one than before.
    pub(crate) fn failed(&self, id: SessionId, error: &Error, at: Timestamp) -> bool {
        let reason = reason(error);
        let mut sessions = self.lock();
        let trouble = sessions.entry(id).or_insert_with(|| Trouble { since: at, reason: String::new() });
        let new = trouble.reason != reason;
        trouble.reason = reason;
        new
    }

    /// It is driven again, or there is nothing to drive.
    pub(crate) fn over(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    pub(crate) fn of(&self, id: SessionId) -> Option<Trouble> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Trouble>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The public message, in words for somebody who knows sessions and not frames.
fn reason(error: &Error) -> String {
    match error {
        Error::Host(HostError::Conn(ConnError::Refused(Reason::NoCommonVersion) | ConnError::Version(_))) => {
            "the run's shim speaks no protocol version that this daemon knows".into()
        }
        Error::Host(HostError::Conn(ConnError::Refused(Reason::Fenced))) => {
            "the run's shim listens to another daemon".into()
        }
        Error::Host(HostError::Conn(ConnError::Timeout(_))) => "the run's shim does not answer".into(),
        error => error.problem().detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_store::StoreError;
    use std::time::Duration;

    fn conn(error: ConnError) -> Error {
        error.into()
    }

    #[test]
    fn what_is_wrong_is_said_in_words_for_people() {
        let table: [(Error, &str); 6] = [
            (
                conn(ConnError::Refused(Reason::NoCommonVersion)),
                "the run's shim speaks no protocol version that this daemon knows",
            ),
            (
                conn(ConnError::Version(vec![9])),
                "the run's shim speaks no protocol version that this daemon knows",
            ),
            (conn(ConnError::Refused(Reason::Fenced)), "the run's shim listens to another daemon"),
            (conn(ConnError::Timeout(Duration::from_secs(10))), "the run's shim does not answer"),
            (Error::Host(HostError::Unreachable("no route".into())), "host is not reachable: no route"),
            (Error::Store(StoreError::DiskFull), "the disk of CASTRA_HOME is full"),
        ];
        for (error, expected) in table {
            assert_eq!(reason(&error), expected);
        }
    }

    #[test]
    fn a_trouble_began_with_the_first_try_and_ends_once() {
        let (troubles, id) = (Troubles::default(), SessionId::now());
        let slow = || conn(ConnError::Timeout(Duration::from_secs(10)));
        assert_eq!(troubles.of(id), None);
        assert!(troubles.failed(id, &slow(), Timestamp(1)));
        assert!(!troubles.failed(id, &slow(), Timestamp(2)), "said once");
        assert!(troubles.failed(id, &Error::Store(StoreError::DiskFull), Timestamp(3)));
        let reason = "the disk of CASTRA_HOME is full".to_owned();
        assert_eq!(troubles.of(id), Some(Trouble { since: Timestamp(1), reason }));
        troubles.over(id);
        assert_eq!(troubles.of(id), None);
        assert!(troubles.failed(id, &slow(), Timestamp(4)), "and again after it was over");
    }
}
