//! `/tasks/{id}/deliverables`: what a task has handed over. Bytes of an agent's: never shown, only saved.

use crate::http::api::{Api, TaskTarget};
use crate::http::query::{Names, Query};
use crate::http::refusal::{Answer, Refusal};
use crate::http::streams::attachment;
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use castra_proto::ErrorCode;
use castra_proto::api::Page;
use castra_proto::task::Deliverable;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(deliverables)).routes(routes!(deliverable))
}

/// List what a task has handed over, every version.
#[utoipa::path(get, path = "/tasks/{id}/deliverables", tag = "tasks", security(("token" = ["read"])),
    responses((status = 200, description = "By path and version", body = Page<Deliverable>)))]
async fn deliverables(State(api): State<Api>, TaskTarget(id): TaskTarget) -> Answer<Json<Page<Deliverable>>> {
    Ok(Json(Page { items: api.supervisor.deliverables(id).await?, next: None }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// The newest when unset.
    #[param(minimum = 1)]
    version: Option<u32>,
}

/// Download a deliverable.
///
/// An attachment with the media type that was recorded; its ETag is the SHA-256 of its bytes.
#[utoipa::path(get, path = "/tasks/{id}/deliverables/{*path}", tag = "tasks", security(("token" = ["read"])),
    params(VersionQuery, ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 when it is the same")),
    responses((status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The same as with `If-None-Match`")))]
async fn deliverable(
    State(api): State<Api>,
    TaskTarget(id): TaskTarget,
    names: Names,
    Query(query): Query<VersionQuery>,
    headers: HeaderMap,
) -> Answer {
    let (found, bytes) = api.supervisor.deliverable(id, names.get("path"), query.version).await?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", found.sha256))
        .map_err(|_| Refusal::new(ErrorCode::Internal, "the hash on record is none"))?;
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value == etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let media = HeaderValue::from_str(&found.media_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media);
    headers
        .insert(header::CONTENT_DISPOSITION, attachment(found.path.rsplit('/').next().unwrap_or_default()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ETAG, etag);
    Ok(response)
}
