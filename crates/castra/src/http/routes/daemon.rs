//! The daemon itself: health, metrics, doctor, upkeep, its end, and this API's own document.

use crate::http::api::Api;
use crate::http::body::{Input, Nothing};
use crate::http::document;
use crate::http::query::{Query, flag};
use crate::http::refusal::{Answer, Refusal};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use castra_proto::api::{Backup, Page};
use castra_proto::{ErrorCode, SessionId};
use castra_supervisor::Supervisor;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Beside the API, where probes and scrapers look.
pub(super) fn root_routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(healthz)).routes(routes!(metrics))
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(doctor))
        .routes(routes!(prune))
        .routes(routes!(check))
        .routes(routes!(backup))
        .routes(routes!(shutdown))
        .routes(routes!(openapi))
}

/// Whether the daemon answers, and how it is.
#[utoipa::path(get, path = "/healthz", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, description = "`{status, version, sessions: {state: n}, …}`", body = Value)))]
async fn healthz(State(api): State<Api>) -> Answer<Json<Value>> {
    Ok(Json(api.supervisor.health().await?))
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
async fn metrics(State(api): State<Api>) -> Answer {
    let text = api.supervisor.metrics().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Check what castra needs here.
#[utoipa::path(get, path = "/doctor", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, description = "`{name, ok, detail, remedy}` for each requirement", body = Page<Value>)))]
async fn doctor(State(api): State<Api>) -> Answer<Json<Page<Value>>> {
    Ok(Json(Page { items: api.supervisor.doctor().await?, next: None }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PruneQuery {
    /// Only say what would be removed.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    dry_run: bool,
}

/// Remove what retention no longer keeps.
///
/// Nothing unsaved is ever removed.
#[utoipa::path(post, path = "/prune", tag = "daemon", security(("token" = ["admin"])),
    params(PruneQuery), responses((status = 200, description = "The sessions", body = Page<SessionId>)))]
async fn prune(
    State(api): State<Api>,
    Query(query): Query<PruneQuery>,
    _: Nothing,
) -> Answer<Json<Page<SessionId>>> {
    let items =
        api.command(async move |supervisor: Supervisor| supervisor.prune(query.dry_run).await).await?;
    Ok(Json(Page { items, next: None }))
}

/// Check the store and the record logs.
#[utoipa::path(get, path = "/check", tag = "daemon", security(("token" = ["admin"])),
    responses((status = 200, description = "What is damaged; empty when all is well", body = Page<String>)))]
async fn check(State(api): State<Api>) -> Answer<Json<Page<String>>> {
    Ok(Json(Page { items: api.supervisor.check().await?, next: None }))
}

/// Write a backup of the store.
#[utoipa::path(post, path = "/backup", tag = "daemon", security(("token" = ["admin"])),
    request_body = Backup, responses((status = 201, description = "Written", body = Backup)))]
async fn backup(State(api): State<Api>, Input(backup): Input<Backup>) -> Answer<(StatusCode, Json<Backup>)> {
    let path = PathBuf::from(&backup.path);
    if !path.is_absolute() {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "path must be absolute: the daemon has its own folder",
        ));
    }
    api.command(async move |supervisor: Supervisor| supervisor.backup(&path).await).await?;
    Ok((StatusCode::CREATED, Json(backup)))
}

/// End the daemon.
///
/// Sessions live on, and are found again by the next one.
#[utoipa::path(post, path = "/shutdown", tag = "daemon", security(("token" = ["admin"])),
    responses((status = 202, description = "It will be gone in a moment")))]
async fn shutdown(State(api): State<Api>, _: Nothing) -> StatusCode {
    api.standing.stop();
    StatusCode::ACCEPTED
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "daemon", security(("token" = ["read"])),
    responses((status = 200, description = "OpenAPI 3.1", body = Value)))]
async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document::text())
}
