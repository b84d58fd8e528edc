//! `/sessions`: start, list, show, change, remove, and the commands to a session as a whole.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::body::{Input, Nothing, Optional};
use crate::http::query::{Key, Query, RemoveQuery, flag, items, label};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::{Control, ControlAnswer, Fork, Page, Resume, SessionPatch};
use castra_proto::{Session, SessionSpec};
use castra_supervisor::ListFilter;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(show, patch, remove))
        .routes(routes!(interrupt))
        .routes(routes!(stop))
        .routes(routes!(resume))
        .routes(routes!(fork))
        .routes(routes!(clear))
        .routes(routes!(control))
        .routes(routes!(info))
}

/// Start a session.
///
/// With `Idempotency-Key` a retry gets the session of the first call; another body is refused.
#[utoipa::path(post, path = "/sessions", tag = "sessions", security(("token" = ["drive"])),
    params(Key),
    request_body = SessionSpec, responses((status = 201, description = "The session", body = Session)))]
async fn create(
    State(api): State<Api>,
    grant: Grant,
    Key(key): Key,
    Input(spec): Input<SessionSpec>,
) -> Answer<(StatusCode, Json<Session>)> {
    let session = api
        .command(async move |supervisor| supervisor.create(spec, key.as_deref(), &grant.caller).await)
        .await?;
    Ok((StatusCode::CREATED, Json(session)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Ended sessions too.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    all: bool,
    /// `NAME=VALUE`: only sessions with this label.
    label: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Items of a page, up to 500.
    #[serde(default = "items::<50>")]
    #[param(default = 50, minimum = 1, maximum = 500)]
    limit: usize,
}

/// List sessions.
#[utoipa::path(get, path = "/sessions", tag = "sessions", security(("token" = ["read"])),
    params(ListQuery), responses((status = 200, description = "A page of sessions", body = Page<Session>)))]
async fn list(
    State(api): State<Api>,
    grant: Grant,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<Session>>> {
    let label = query.label.as_deref().map(label).transpose()?;
    let limit = Some(query.limit.clamp(1, 500));
    let filter = ListFilter { all: query.all, label, cursor: query.cursor, limit, only: grant.only };
    Ok(Json(api.supervisor.list(filter).await?))
}

/// Show a session.
#[utoipa::path(get, path = "/sessions/{id}", tag = "sessions", security(("token" = ["read"])),
    responses((status = 200, description = "The session", body = Session)))]
async fn show(State(api): State<Api>, Target(id): Target) -> Answer<Json<Session>> {
    Ok(Json(api.supervisor.show(id).await?))
}

/// Change a session.
///
/// Fields that are left out stay as they are. Model, effort and permission mode reach claude as well.
#[utoipa::path(patch, path = "/sessions/{id}", tag = "sessions", security(("token" = ["drive"])),
    request_body = SessionPatch, responses((status = 200, description = "The session", body = Session)))]
async fn patch(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Input(patch): Input<SessionPatch>,
) -> Answer<Json<Session>> {
    Ok(Json(api.command(async move |supervisor| supervisor.patch(id, patch, &grant.caller).await).await?))
}

/// Remove a session.
///
/// Removes what castra created for it, never a `workdir` of the caller's.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", security(("token" = ["drive"])),
    params(RemoveQuery), responses((status = 204, description = "Removed")))]
async fn remove(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<RemoveQuery>,
) -> Answer<StatusCode> {
    api.command(async move |supervisor| supervisor.remove(id, query.force, &grant.caller).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Interrupt the turn.
#[utoipa::path(post, path = "/sessions/{id}/interrupt", tag = "sessions", security(("token" = ["drive"])),
    responses((status = 200, description = "The session", body = Session)))]
async fn interrupt(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    _: Nothing,
) -> Answer<Json<Session>> {
    Ok(Json(api.command(async move |supervisor| supervisor.interrupt(id, &grant.caller).await).await?))
}

/// Stop the run.
///
/// Answers when the run is over. The session stays, and can be resumed.
#[utoipa::path(post, path = "/sessions/{id}/stop", tag = "sessions", security(("token" = ["drive"])),
    responses((status = 200, description = "The session", body = Session)))]
async fn stop(State(api): State<Api>, grant: Grant, Target(id): Target, _: Nothing) -> Answer<Json<Session>> {
    Ok(Json(api.command(async move |supervisor| supervisor.stop(id, &grant.caller).await).await?))
}

/// Resume a session whose run has ended or was lost.
#[utoipa::path(post, path = "/sessions/{id}/resume", tag = "sessions", security(("token" = ["drive"])),
    request_body = Option<Resume>, responses((status = 200, description = "The session, with its new run", body = Session)))]
async fn resume(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Optional(resume): Optional<Resume>,
) -> Answer<Json<Session>> {
    Ok(Json(api.command(async move |supervisor| supervisor.resume(id, resume, &grant.caller).await).await?))
}

/// Fork a session.
///
/// The new one continues from a copy of the conversation. A `workdir` of the caller's is shared by both.
#[utoipa::path(post, path = "/sessions/{id}/fork", tag = "sessions", security(("token" = ["drive"])),
    request_body = Option<Fork>, responses((status = 201, description = "The new session", body = Session)))]
async fn fork(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Optional(fork): Optional<Fork>,
) -> Answer<(StatusCode, Json<Session>)> {
    let session = api.command(async move |supervisor| supervisor.fork(id, fork, &grant.caller).await).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// Begin a new conversation in the same session.
#[utoipa::path(post, path = "/sessions/{id}/clear", tag = "sessions", security(("token" = ["drive"])),
    responses((status = 200, description = "The session", body = Session)))]
async fn clear(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    _: Nothing,
) -> Answer<Json<Session>> {
    Ok(Json(api.command(async move |supervisor| supervisor.clear(id, &grant.caller).await).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ControlQuery {
    /// Seconds to wait for claude's answer, up to 600.
    #[serde(default = "default_timeout")]
    #[param(default = 30, minimum = 1, maximum = 600)]
    timeout: u64,
}

fn default_timeout() -> u64 {
    30
}

/// Send a control request of the CLI.
///
/// `{subtype, …}`, of the list that castra knows; each needs its own scope.
#[utoipa::path(post, path = "/sessions/{id}/control", tag = "sessions", security(("token" = ["drive"])),
    params(ControlQuery), request_body = Control,
    responses((status = 200, description = "claude's answer", body = ControlAnswer)))]
async fn control(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<ControlQuery>,
    Input(control): Input<Control>,
) -> Answer<Json<ControlAnswer>> {
    let timeout = Duration::from_secs(query.timeout.clamp(1, 600));
    let work = async move |supervisor: castra_supervisor::Supervisor| {
        supervisor.control(id, control, &grant.caller, timeout).await
    };
    Ok(Json(api.command(work).await?))
}

/// Models, commands, agents and account, as claude tells them.
#[utoipa::path(get, path = "/sessions/{id}/info", tag = "sessions", security(("token" = ["read"])),
    responses((status = 200, description = "claude's answer to `initialize`", body = Value)))]
async fn info(State(api): State<Api>, Target(id): Target) -> Answer<Json<Value>> {
    Ok(Json(api.supervisor.info(id).await?))
}
