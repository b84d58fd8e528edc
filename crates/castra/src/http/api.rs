//! What handlers share: the supervisor, the end of it all, and the session that a path means.

use super::auth::Grant;
use super::query::Names;
use super::refusal::Refusal;
use super::standing::{Lease, Standing};
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use castra_proto::{ErrorCode, SessionId};
use castra_supervisor::Supervisor;

/// The state of every handler. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) supervisor: Supervisor,
    pub(super) standing: Standing,
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
}

impl<S: Send + Sync> FromRequestParts<S> for Grant {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let grant = parts.extensions.get::<Grant>().cloned();
        grant.ok_or_else(|| Refusal::new(ErrorCode::Forbidden, "the request did not pass the gate"))
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
