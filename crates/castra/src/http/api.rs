//! What handlers share: the supervisor, the end of it all, and the session that a path means.

use super::auth::{Admission, Grant};
use super::query::Names;
use super::refusal::Refusal;
use super::standing::{Lease, Standing};
use super::tickets::Tickets;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use castra_proto::api::Scope;
use castra_proto::{ErrorCode, SessionId, TaskId, TeamId, TokenId};
use castra_supervisor::Supervisor;
use std::time::Duration;
use tokio::time::Instant;

/// The state of every handler. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) supervisor: Supervisor,
    pub(super) standing: Standing,
    pub(super) doors: Doors,
}

/// The tickets that are out.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) sign_in: Tickets<Newcomer>,
    pub(super) terminal: Tickets<Admission>,
}

/// What a browser will be given.
pub(super) struct Newcomer {
    pub(super) scope: Scope,
    pub(super) only: Option<SessionId>,
    pub(super) maker: Option<TokenId>,
    pub(super) expires: Option<Instant>,
}

impl Doors {
    /// How long a link of `castra open` is good.
    pub(super) const SIGN_IN: Duration = Duration::from_secs(60);
    /// Between a page's two requests.
    const TERMINAL: Duration = Duration::from_secs(30);

    pub(super) fn new() -> Self {
        Self { sign_in: Tickets::new(Self::SIGN_IN, 64), terminal: Tickets::new(Self::TERMINAL, 256) }
    }
}

impl Api {
    /// Runs a command to its end, also when the caller hangs up in the middle.
    pub(super) async fn command<T, F>(&self, work: impl FnOnce(Supervisor) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = castra_supervisor::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        match tokio::spawn(work(self.supervisor.clone())).await {
            Ok(done) => done.map_err(Refusal::from),
            Err(_) => Err(Refusal::new(ErrorCode::Internal, "the command broke off")),
        }
    }

    pub(super) fn lease(&self, grant: &Grant) -> Lease {
        self.standing.lease(grant)
    }

    /// What `work` comes to; none when the daemon stops, or the token ends, before. It is dropped with its caller.
    pub(super) async fn waited<T>(
        &self,
        grant: &Grant,
        work: impl Future<Output = castra_supervisor::Result<T>>,
    ) -> Result<Option<T>, Refusal> {
        let mut lease = self.lease(grant);
        tokio::select! {
            done = work => Ok(Some(done?)),
            _ = lease.over() => Ok(None),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Grant {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let grant = parts.extensions.get::<Grant>().cloned();
        grant.ok_or_else(|| Refusal::new(ErrorCode::Forbidden, "the request did not pass the gate"))
    }
}

/// The task that `{id}` means: an id, a unique prefix of one, or a name. No token that is bound to a session gets here.
pub(super) struct TaskTarget(pub(super) TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskTarget
where
    Api: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let names = Names::from_request_parts(parts, state).await?;
        Ok(Self(Api::from_ref(state).supervisor.resolve_task(names.get("id")).await?))
    }
}

/// The team that `{id}` means, in the same way.
pub(super) struct TeamTarget(pub(super) TeamId);

impl<S: Send + Sync> FromRequestParts<S> for TeamTarget
where
    Api: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let names = Names::from_request_parts(parts, state).await?;
        Ok(Self(Api::from_ref(state).supervisor.resolve_team(names.get("id")).await?))
    }
}

/// The session that `{id}` means: an id, a unique prefix of one, or a name.
pub(super) struct Target(pub(super) SessionId);

impl<S: Send + Sync> FromRequestParts<S> for Target
where
    Api: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let grant = Grant::from_request_parts(parts, state).await?;
        let names = Names::from_request_parts(parts, state).await?;
        let reference = names.get("id");
        let found = Api::from_ref(state).supervisor.resolve(reference).await;
        match found {
            Ok(id) if grant.may_see(id) => Ok(Self(id)),
            Err(error) if grant.only.is_none() => Err(error.into()),
            // The same words for what is another's and what is not there.
            _ => Err(Refusal::new(
                ErrorCode::SessionNotFound,
                format!("there is no session `{}`", reference.escape_debug()),
            )),
        }
    }
}
