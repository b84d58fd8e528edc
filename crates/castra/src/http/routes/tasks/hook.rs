//! `/tasks/{id}/hook/…`: what a hook may do while it runs, by the token that it was given. No other token gets in, and
//! that one nowhere else.

use crate::http::api::{Api, TaskTarget};
use crate::http::auth::Grant;
use crate::http::body::{Input, Octets};
use crate::http::query::Query;
use crate::http::refusal::{Answer, Refusal};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use castra_proto::ErrorCode;
use castra_proto::api::FileWritten;
use castra_proto::task::{HookExec, HookExecEnd, HookProgress, HookText};
use castra_supervisor::{HookCtx, Supervisor};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(exec))
        .routes(routes!(put, get))
        .routes(routes!(progress))
        .routes(routes!(send))
}

/// The hook whose token this is, of the task that the path means.
struct Running(HookCtx);

impl<S: Send + Sync> FromRequestParts<S> for Running
where
    Api: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let TaskTarget(task) = TaskTarget::from_request_parts(parts, state).await?;
        let grant = Grant::from_request_parts(parts, state).await?;
        let hook = grant.hook.filter(|hook| hook.task() == task);
        hook.map(Self).ok_or_else(|| {
            Refusal::new(ErrorCode::Forbidden, "this is for a hook of this task, while it runs")
                .hint("a command hook has its token in CASTRA_HOOK_TOKEN")
        })
    }
}

/// Run a program where the task's agent works.
///
/// On the task's machine, as castra's user, outside the agent's sandbox.
#[utoipa::path(post, path = "/tasks/{id}/hook/exec", tag = "hooks", security(("token" = ["drive"])),
    request_body = HookExec, responses((status = 200, description = "How it ended", body = HookExecEnd)))]
async fn exec(
    State(_): State<Api>,
    Running(hook): Running,
    Input(request): Input<HookExec>,
) -> Answer<Json<HookExecEnd>> {
    // Whoever hangs up wants it no more: it is killed.
    Ok(Json(hook.exec(request).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    /// Relative to the workspace.
    path: String,
}

/// Write a file of the workspace.
#[utoipa::path(post, path = "/tasks/{id}/hook/files", tag = "hooks", security(("token" = ["drive"])),
    params(PutQuery), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Written", body = FileWritten)))]
async fn put(
    State(api): State<Api>,
    Running(hook): Running,
    Query(query): Query<PutQuery>,
    body: Octets,
) -> Answer<(StatusCode, Json<FileWritten>)> {
    let written = FileWritten { path: query.path.clone(), size: body.bytes.len() as u64 };
    let work = async move |_: Supervisor| {
        let done = hook.put(&query.path, body.bytes.clone()).await;
        drop(body);
        done
    };
    api.command(work).await?;
    Ok((StatusCode::CREATED, Json(written)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GetQuery {
    /// Relative to the workspace. Without it: of a `deliverable` hook what is handed over.
    path: Option<String>,
}

/// Read a file of the workspace, or what is handed over.
#[utoipa::path(get, path = "/tasks/{id}/hook/files", tag = "hooks", security(("token" = ["drive"])),
    params(GetQuery),
    responses((status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream")))]
async fn get(State(_): State<Api>, Running(hook): Running, Query(query): Query<GetQuery>) -> Answer {
    let bytes = match &query.path {
        Some(path) => hook.get(path).await?,
        None => hook.offered().ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidRequest, "nothing is handed over here").hint("name a `path`")
        })?,
    };
    let mut response = Response::new(Body::from(bytes)).into_response();
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Ok(response)
}

/// Say how far the task is.
#[utoipa::path(post, path = "/tasks/{id}/hook/progress", tag = "hooks", security(("token" = ["drive"])),
    request_body = HookProgress, responses((status = 204, description = "Written down")))]
async fn progress(
    State(api): State<Api>,
    Running(hook): Running,
    Input(said): Input<HookProgress>,
) -> Answer<StatusCode> {
    api.command(async move |_: Supervisor| hook.progress(said.percent, said.message.as_deref()).await)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say something to the agent, as castra does.
#[utoipa::path(post, path = "/tasks/{id}/hook/send", tag = "hooks", security(("token" = ["drive"])),
    request_body = HookText, responses((status = 202, description = "It will be delivered")))]
async fn send(
    State(api): State<Api>,
    Running(hook): Running,
    Input(said): Input<HookText>,
) -> Answer<StatusCode> {
    if said.text.trim().is_empty() {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "`text` is empty"));
    }
    api.command(async move |_: Supervisor| hook.send_to_agent(&said.text).await).await?;
    Ok(StatusCode::ACCEPTED)
}
