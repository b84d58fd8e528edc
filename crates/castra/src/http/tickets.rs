//! Tickets: random words that are good once, for a short time. Refuses to know what for.
//!
//! In memory: whoever holds one when the daemon ends asks for another.

use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// What a secret is looked up by, so that the time it takes says nothing about it.
pub(super) type Hash = [u8; 32];

pub(super) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// Tickets of one kind. Clones share them.
pub(super) struct Tickets<T>(Arc<Kind<T>>);

struct Kind<T> {
    ttl: Duration,
    most: usize,
    // A std mutex: held while a short list is walked, never across an await.
    issued: Mutex<VecDeque<Issued<T>>>,
}

struct Issued<T> {
    hash: Hash,
    until: Instant,
    what: T,
}

impl<T> Clone for Tickets<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Tickets<T> {
    /// Good for `ttl`; of more than `most` the oldest is given up.
    pub(super) fn new(ttl: Duration, most: usize) -> Self {
        Self(Arc::new(Kind { ttl, most, issued: Mutex::default() }))
    }

    pub(super) fn issue(&self, what: T) -> String {
        // Two v4 UUIDs are 244 random bits from the operating system.
        let ticket = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut issued = self.live();
        if issued.len() >= self.0.most {
            issued.pop_front();
        }
        issued.push_back(Issued { hash: hash(&ticket), until: Instant::now() + self.0.ttl, what });
        ticket
    }

    /// What the ticket is for; nobody gets it again.
    pub(super) fn redeem(&self, ticket: &str) -> Option<T> {
        let hash = hash(ticket);
        let mut issued = self.live();
        let place = issued.iter().position(|issued| issued.hash == hash)?;
        issued.remove(place).map(|issued| issued.what)
    }

    /// The newest for which `read` says something; it stays good.
    pub(super) fn find<U>(&self, read: impl Fn(&T) -> Option<U>) -> Option<U> {
        self.live().iter().rev().find_map(|issued| read(&issued.what))
    }

    /// What has not expired.
    fn live(&self) -> MutexGuard<'_, VecDeque<Issued<T>>> {
        let mut issued = self.0.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        issued.retain(|issued| issued.until > now);
        issued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_good_once_and_for_its_time() {
        let tickets = Tickets::new(Duration::from_secs(30), 8);
        let (one, two) = (tickets.issue(1), tickets.issue(2));
        assert_ne!(one, two);
        assert_eq!(tickets.redeem("nothing"), None);
        assert_eq!((tickets.redeem(&one), tickets.redeem(&one)), (Some(1), None));
        tokio::time::advance(Duration::from_secs(29)).await;
        let three = tickets.issue(3);
        assert_eq!(tickets.find(|what| Some(*what)), Some(3));
        assert_eq!(tickets.find(|what| (*what == 2).then_some("two")), Some("two"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((tickets.redeem(&two), tickets.redeem(&three)), (None, Some(3)));
    }

    #[test]
    fn the_oldest_makes_room() {
        let tickets = Tickets::new(Duration::from_secs(30), 2);
        let all: Vec<_> = (0..3).map(|n| tickets.issue(n)).collect();
        let left: Vec<_> = all.iter().map(|ticket| tickets.redeem(ticket)).collect();
        assert_eq!(left, [None, Some(1), Some(2)]);
    }
}
