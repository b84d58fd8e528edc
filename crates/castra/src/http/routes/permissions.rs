//! `/sessions/{id}/permissions`: what claude waits for, and the answers.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::body::Input;
use crate::http::query::Names;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use castra_proto::api::Page;
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(answer))
}

/// List the permission requests that wait for an answer.
#[utoipa::path(get, path = "/sessions/{id}/permissions", tag = "permissions", security(("token" = ["read"])),
    responses((status = 200, description = "All of them", body = Page<PermissionRequest>)))]
async fn list(State(api): State<Api>, Target(id): Target) -> Answer<Json<Page<PermissionRequest>>> {
    Ok(Json(Page { items: api.supervisor.permissions(id).await?, next: None }))
}

/// Answer a permission request.
///
/// The decision is on disk when this answers. A second answer, and one whose `input_hash` is not of the input that
/// waits, are 409.
#[utoipa::path(post, path = "/sessions/{id}/permissions/{request_id}", tag = "permissions", security(("token" = ["approve"])),
    request_body = PermissionAnswer, responses((status = 200, description = "The request, decided", body = PermissionRequest)))]
async fn answer(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    names: Names,
    Input(answer): Input<PermissionAnswer>,
) -> Answer<Json<PermissionRequest>> {
    let request_id = names.get("request_id").to_owned();
    let work = async move |supervisor: castra_supervisor::Supervisor| {
        supervisor.answer(id, &request_id, answer, &grant.caller).await
    };
    Ok(Json(api.command(work).await?))
}
