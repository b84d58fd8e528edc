//! Whether what was once allowed still is: the daemon's end, revoked and expired tokens. Long answers hold a lease.

use super::auth::Grant;
use castra_proto::TokenId;
use std::collections::HashSet;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Default)]
struct State {
    stopping: bool,
    revoked: HashSet<TokenId>,
}

/// What may end an answer that is under way. Clones share one state.
#[derive(Clone)]
pub(super) struct Standing(watch::Sender<State>);

impl Standing {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    pub(super) fn stop(&self) {
        self.0.send_modify(|state| state.stopping = true);
    }

    pub(super) fn revoke(&self, token: TokenId) {
        self.0.send_modify(|state| {
            state.revoked.insert(token);
        });
    }

    pub(super) fn lease(&self, grant: &Grant) -> Lease {
        Lease { state: self.0.subscribe(), token: grant.token, expires: grant.expires }
    }

    /// Ends with the daemon.
    pub(super) fn until_stop(&self) -> Lease {
        Lease { state: self.0.subscribe(), token: None, expires: None }
    }
}

/// Why a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Stopping,
    /// The token was revoked or has expired.
    Revoked,
}

/// Held by every answer that lasts.
#[derive(Clone)]
pub(super) struct Lease {
    state: watch::Receiver<State>,
    token: Option<TokenId>,
    expires: Option<Instant>,
}

impl Lease {
    /// Returns when the daemon stops, or the token is revoked or expires. Cancel safe.
    pub(super) async fn over(&mut self) -> End {
        let Self { state, token, expires } = self;
        let ended = state
            .wait_for(|state| state.stopping || token.is_some_and(|token| state.revoked.contains(&token)));
        let expired = async {
            match *expires {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Nobody can change the state any more: as good as stopping.
            ended = ended => if ended.is_ok_and(|state| !state.stopping) { End::Revoked } else { End::Stopping },
            () = expired => End::Revoked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::api::Scope;
    use castra_supervisor::Caller;
    use futures::FutureExt;
    use std::time::Duration;

    fn grant(token: TokenId, expires: Option<Instant>) -> Grant {
        let caller = Caller { by: "t".into(), scope: Scope::Read };
        Grant { caller, only: None, token: Some(token), expires, cookie: None, hook: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_its_own_token_by_time_and_with_the_daemon() {
        let standing = Standing::new();
        let (mine, other) = (TokenId::now(), TokenId::now());
        let mut lease = standing.lease(&grant(mine, None));
        let mut timed = standing.lease(&grant(other, Some(Instant::now() + Duration::from_secs(5))));
        standing.revoke(TokenId::now());
        assert!(lease.over().now_or_never().is_none());
        standing.revoke(mine);
        assert_eq!(lease.over().now_or_never(), Some(End::Revoked));
        assert!(timed.over().now_or_never().is_none());
        assert_eq!(timed.over().await, End::Revoked);
        let mut last = standing.until_stop();
        assert!(last.over().now_or_never().is_none());
        standing.stop();
        assert_eq!(last.over().now_or_never(), Some(End::Stopping));
    }
}
