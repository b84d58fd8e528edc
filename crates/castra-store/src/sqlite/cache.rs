//! Rows that every request asks for, kept by the process that alone writes them. Refuses to be the truth: whatever is
//! missing here is read.

use super::apply::Current;
use crate::commit::{Change, Commit};
use crate::rows::{SessionRow, TokenRow};
use castra_proto::{SessionId, TokenId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sessions and tokens that are kept, of each; then all are forgotten and the busy ones come back.
const KEPT: usize = 256;
/// A row with more text than this is read each time. Bytes.
const LARGEST: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(super) struct Cache {
    // Held for a few instructions, never across an await.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<SessionId, Slot>,
    tokens: HashMap<[u8; 32], TokenRow>,
    /// Counts removals of tokens and reads of sessions.
    tick: u64,
}

#[derive(Debug)]
enum Slot {
    /// Somebody reads it now. A commit takes the slot away, and what was read is not kept.
    Reading(u64),
    Row(Arc<SessionRow>),
}

/// What a reader must show to have its row kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Cache {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic cannot leave a map of rows half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        *self.inner() = Inner::default();
    }

    /// The row, or the right to bring it.
    pub(super) fn session(&self, id: SessionId) -> Result<Arc<SessionRow>, Ticket> {
        let mut inner = self.inner();
        if let Some(Slot::Row(row)) = inner.sessions.get(&id) {
            return Ok(Arc::clone(row));
        }
        if inner.sessions.len() >= KEPT {
            inner.sessions.clear();
        }
        inner.tick += 1;
        let tick = inner.tick;
        inner.sessions.insert(id, Slot::Reading(tick));
        Err(Ticket(tick))
    }

    /// A session's newest event, if its row is here.
    pub(super) fn head(&self, id: SessionId) -> Option<u64> {
        match self.inner().sessions.get(&id) {
            Some(Slot::Row(row)) => Some(row.head),
            _ => None,
        }
    }

    /// What was read, unless it has changed since.
    pub(super) fn bring(&self, id: SessionId, ticket: Ticket, row: Option<&SessionRow>) {
        let mut inner = self.inner();
        if !matches!(inner.sessions.get(&id), Some(Slot::Reading(tick)) if *tick == ticket.0) {
            return;
        }
        match row.filter(|row| row.spec.len() + row.view.len() + row.offers.len() <= LARGEST) {
            Some(row) => inner.sessions.insert(id, Slot::Row(Arc::new(row.clone()))),
            None => inner.sessions.remove(&id),
        };
    }

    /// A commit is on disk, and left the session so.
    pub(super) fn follow(&self, commit: &Commit, now: &Current) {
        let mut inner = self.inner();
        if now.removed {
            inner.sessions.remove(&commit.session);
            inner.tick += 1;
            inner.tokens.retain(|_, token| token.session != Some(commit.session));
            return;
        }
        match inner.sessions.get_mut(&commit.session) {
            Some(Slot::Row(row)) => change(Arc::make_mut(row), commit, now),
            Some(Slot::Reading(_)) => {
                inner.sessions.remove(&commit.session);
            }
            None => {}
        }
    }

    /// Whatever is kept of it, or being read, may be old.
    pub(super) fn forget(&self, id: SessionId) {
        self.inner().sessions.remove(&id);
    }

    /// The token, or the right to bring it.
    pub(super) fn token(&self, hash: &[u8; 32]) -> Result<TokenRow, Ticket> {
        let inner = self.inner();
        inner.tokens.get(hash).cloned().ok_or(Ticket(inner.tick))
    }

    /// Unless one was removed meanwhile: it could be this one.
    pub(super) fn bring_token(&self, hash: [u8; 32], ticket: Ticket, row: &TokenRow) {
        let mut inner = self.inner();
        if inner.tick != ticket.0 {
            return;
        }
        if inner.tokens.len() >= KEPT {
            inner.tokens.clear();
        }
        inner.tokens.insert(hash, row.clone());
    }

    pub(super) fn forget_token(&self, id: TokenId) {
        let mut inner = self.inner();
        inner.tick += 1;
        inner.tokens.retain(|_, token| token.id != id);
    }
}

/// The row as the commit has changed it; `apply` does the same to the database.
fn change(row: &mut SessionRow, commit: &Commit, now: &Current) {
    row.epoch = now.epoch;
    row.head = now.head;
    row.newest_run = now.newest_run;
    row.state = now.state;
    row.updated_at = commit.at;
    for change in &commit.changes {
        match change {
            Change::Session(update) => {
                let set = |field: &mut String, value: &Option<String>| {
                    if let Some(value) = value {
                        field.clone_from(value);
                    }
                };
                set(&mut row.view, &update.view);
                set(&mut row.offers, &update.offers);
                set(&mut row.spec, &update.spec);
                set(&mut row.owner, &update.owner);
                if let Some(name) = &update.name {
                    row.name.clone_from(name);
                }
                if let Some(labels) = &update.labels {
                    row.labels.clone_from(labels);
                }
                if let Some(mode) = update.mode {
                    row.mode = mode;
                }
                if update.cwd.is_some() {
                    row.cwd.clone_from(&update.cwd);
                }
            }
            Change::ClaudeSession(id) if row.claude_session_ids.last() != Some(id) => {
                row.claude_session_ids.push(*id);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::api::Scope;
    use castra_proto::{RunState, Timestamp};
    use uuid::Uuid;

    fn token(id: u128) -> TokenRow {
        TokenRow {
            id: TokenId(Uuid::from_u128(id)),
            name: None,
            scope: Scope::Read,
            session: Some(SessionId(Uuid::from_u128(9))),
            created_at: Timestamp(0),
            expires_at: None,
        }
    }

    #[test]
    fn a_token_that_goes_while_it_is_read_is_not_kept() {
        let cache = Cache::default();
        let hash = [1; 32];
        let ticket = cache.token(&hash).unwrap_err();
        cache.forget_token(TokenId(Uuid::from_u128(1)));
        cache.bring_token(hash, ticket, &token(1));
        let ticket = cache.token(&hash).unwrap_err();
        cache.bring_token(hash, ticket, &token(2));
        assert_eq!(cache.token(&hash).unwrap(), token(2));
        cache.forget_token(TokenId(Uuid::from_u128(2)));
        cache.token(&hash).unwrap_err();
    }

    #[test]
    fn tokens_of_a_removed_session_are_gone() {
        let cache = Cache::default();
        let hash = [1; 32];
        let ticket = cache.token(&hash).unwrap_err();
        cache.bring_token(hash, ticket, &token(1));
        let session = SessionId(Uuid::from_u128(9));
        let gone = Current { no: 1, epoch: 0, head: 0, newest_run: 0, state: RunState::Ended, removed: true };
        cache.follow(&Commit::new(session, Timestamp(1)), &gone);
        cache.token(&hash).unwrap_err();
    }
}
