//! `/transcripts`: claude's own conversations on this host, and taking one over.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::Optional;
use crate::http::query::{Names, Query, items};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::{Page, TranscriptInfo};
use castra_proto::{Session, SessionSpec};
use castra_supervisor::Supervisor;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(adopt))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TranscriptsQuery {
    /// Only conversations of this folder.
    cwd: Option<String>,
    /// The newest so many, up to 1000.
    #[serde(default = "items::<10>")]
    #[param(default = 10, minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List claude's own conversations on this host, newest first.
#[utoipa::path(get, path = "/transcripts", tag = "transcripts", security(("token" = ["read"])),
    params(TranscriptsQuery), responses((status = 200, description = "Conversations", body = Page<TranscriptInfo>)))]
async fn list(
    State(api): State<Api>,
    Query(query): Query<TranscriptsQuery>,
) -> Answer<Json<Page<TranscriptInfo>>> {
    let items = api.supervisor.transcripts(query.cwd.as_deref(), query.limit.clamp(1, 1000)).await?;
    Ok(Json(Page { items, next: None }))
}

/// Make a session of a conversation that castra did not start.
///
/// Its history is imported as events.
#[utoipa::path(post, path = "/transcripts/{transcript_id}/adopt", tag = "transcripts", security(("token" = ["drive"])),
    request_body = Option<SessionSpec>, responses((status = 201, description = "The session", body = Session)))]
async fn adopt(
    State(api): State<Api>,
    grant: Grant,
    names: Names,
    Optional(spec): Optional<SessionSpec>,
) -> Answer<(StatusCode, Json<Session>)> {
    let transcript = names.get("transcript_id").to_owned();
    let work = async move |supervisor: Supervisor| supervisor.adopt(&transcript, spec, &grant.caller).await;
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}
