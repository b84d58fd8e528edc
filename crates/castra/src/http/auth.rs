//! Who asks: peers, tokens, and what a request is granted. Refuses to know what a route needs.

use super::refusal::Refusal;
use super::tickets::{Hash, Tickets, hash};
use super::{browser, origin};
use axum::http::{HeaderMap, header};
use castra_proto::api::{Scope, Token};
use castra_proto::{ErrorCode, SessionId, TokenId};
use castra_supervisor::{Caller, HookCtx, Supervisor};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// The only two questions that the gate asks: so that it can be tested without a supervisor.
pub trait Auth: Send + Sync + 'static {
    /// The token of this secret, if it is known and has not expired.
    fn authenticate<'a>(&'a self, secret: &'a str)
    -> BoxFuture<'a, castra_supervisor::Result<Option<Token>>>;
    /// The session whose agent this process belongs to, if it is one; an error when that cannot be told.
    fn session_of_pid(&self, pid: i32) -> std::io::Result<Option<SessionId>>;
    /// The hook that runs now with this secret.
    fn hook(&self, _secret: &str) -> Option<HookCtx> {
        None
    }
}

impl Auth for Supervisor {
    fn authenticate<'a>(
        &'a self,
        secret: &'a str,
    ) -> BoxFuture<'a, castra_supervisor::Result<Option<Token>>> {
        Box::pin(Supervisor::authenticate(self, secret))
    }

    fn session_of_pid(&self, pid: i32) -> std::io::Result<Option<SessionId>> {
        Supervisor::session_of_pid(self, pid)
    }

    fn hook(&self, secret: &str) -> Option<HookCtx> {
        Supervisor::hook(self, secret)
    }
}

/// The other end of a connection, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of our own user; `agent` when it runs inside a session.
    Unix { agent: Option<SessionId> },
    /// `local` is the address that it reached us by.
    Tcp { local: SocketAddr },
}

/// What a request may do, once it is known who asks.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) caller: Caller,
    /// Bound to this session: everything else does not exist.
    pub(super) only: Option<SessionId>,
    pub(super) token: Option<TokenId>,
    pub(super) expires: Option<Instant>,
    /// Of the cookie that it came by, if it did.
    pub(super) cookie: Option<Hash>,
    /// A hook that runs: it may act for its task, and nothing else.
    pub(super) hook: Option<HookCtx>,
}

/// What a ticket to a terminal allows: what its maker was allowed, at this session.
pub(super) struct Admission {
    pub(super) session: SessionId,
    pub(super) grant: Grant,
}

impl Grant {
    pub(super) fn may_see(&self, id: SessionId) -> bool {
        self.only.is_none_or(|only| only == id)
    }

    fn of_token(token: Token) -> Self {
        Self {
            caller: Caller { by: format!("token:{}", token.id), scope: token.scope },
            only: token.session_id,
            token: Some(token.id),
            expires: token.expires_at.map(|at| {
                let left = at.0.saturating_sub(jiff::Timestamp::now().as_microsecond());
                Instant::now() + Duration::from_micros(left.max(0).unsigned_abs())
            }),
            cookie: None,
            hook: None,
        }
    }

    fn of_hook(hook: HookCtx) -> Self {
        let caller = Caller { scope: Scope::Drive, ..hook.caller() };
        Self { caller, only: None, token: None, expires: None, cookie: None, hook: Some(hook) }
    }

    fn of_owner() -> Self {
        let caller = Caller { by: "cli".into(), scope: Scope::Admin };
        Self { caller, only: None, token: None, expires: None, cookie: None, hook: None }
    }
}

/// Longer secrets are not ours, and are not hashed.
const MAX_SECRET: usize = 512;

/// Decides who asks. A token is always judged by itself, also over the Unix socket. `tickets`: where a browser cannot
/// send more than its cookie, a ticket that it was given counts as its key.
pub(super) async fn grant(
    auth: &dyn Auth,
    peer: Peer,
    headers: &HeaderMap,
    tickets: Option<&Tickets<Admission>>,
) -> Result<Grant, Refusal> {
    let Some(secret) = bearer(headers)? else {
        if let Some(cookie) = browser::cookie(peer, headers) {
            return of_browser(auth, cookie, headers, tickets).await;
        }
        return match peer {
            Peer::Unix { agent: None } => Ok(Grant::of_owner()),
            Peer::Unix { agent: Some(_) } => Err(Refusal::new(
                ErrorCode::Forbidden,
                "an agent may use castra only with the token of its own session",
            )),
            Peer::Tcp { .. } => Err(Refusal::new(ErrorCode::Unauthorized, "this request has no token")
                .hint("send `Authorization: Bearer TOKEN`; `castra token create` makes one")),
        };
    };
    if let Some(hook) = auth.hook(secret) {
        if matches!(peer, Peer::Unix { agent: Some(_) }) {
            return Err(Refusal::new(ErrorCode::Forbidden, "a hook's token is not for an agent"));
        }
        return Ok(Grant::of_hook(hook));
    }
    let token = auth.authenticate(secret).await?;
    let token = token.ok_or_else(|| {
        Refusal::new(ErrorCode::Unauthorized, "the token is not known, or has expired")
            .hint("`castra token create` makes a new one")
    })?;
    let mut grant = Grant::of_token(token);
    if let Peer::Unix { agent: Some(agent) } = peer {
        if grant.only != Some(agent) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "an agent may use castra only with the token of its own session",
            ));
        }
        // Whatever it was given: an agent never answers its own permission requests.
        grant.caller.scope = grant.caller.scope.min(Scope::Drive);
    }
    Ok(grant)
}

/// Nobody but one of our own pages has both halves of a browser's token.
async fn of_browser(
    auth: &dyn Auth,
    cookie: &str,
    headers: &HeaderMap,
    tickets: Option<&Tickets<Admission>>,
) -> Result<Grant, Refusal> {
    let hint = "`castra open` signs this browser in";
    if !origin::is_own_page(headers) {
        return Err(Refusal::new(ErrorCode::Forbidden, "a cookie counts only from castra's own pages"));
    }
    let from = Some(hash(cookie));
    let Some(secret) = browser::join(cookie, headers) else {
        let waiting = tickets.and_then(|tickets| {
            tickets.find(|admission| (admission.grant.cookie == from).then(|| admission.grant.clone()))
        });
        return waiting
            .ok_or_else(|| Refusal::new(ErrorCode::Unauthorized, "a cookie alone is not enough").hint(hint));
    };
    let token = if secret.len() <= MAX_SECRET { auth.authenticate(&secret).await? } else { None };
    let token = token.ok_or_else(|| {
        Refusal::new(ErrorCode::Unauthorized, "this browser is not signed in, or no longer").hint(hint)
    })?;
    Ok(Grant { cookie: from, ..Grant::of_token(token) })
}

/// The secret of `Authorization: Bearer SECRET`, when the header is there.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let malformed =
        || Refusal::new(ErrorCode::Unauthorized, "the Authorization header is not `Bearer TOKEN`");
    if values.next().is_some() {
        return Err(malformed());
    }
    let (scheme, secret) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(malformed)?;
    let secret = secret.trim();
    let plain = !secret.is_empty() && secret.len() <= MAX_SECRET && !secret.contains(' ');
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(Some(secret)) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_bearer_is_a_token() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|secret| secret.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(read(&[]), Ok(None));
        for value in ["Bearer abc", "bearer  abc "] {
            assert_eq!(read(&[value]), Ok(Some("abc".into())), "{value}");
        }
        for value in ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "", "Bearerabc"] {
            assert_eq!(read(&[value]), Err(()), "{value}");
        }
        assert_eq!(read(&["Bearer abc", "Bearer abc"]), Err(()));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {}", "x".repeat(513)).parse().unwrap());
        assert!(bearer(&headers).is_err());
    }
}
