//! `/schedules`: tasks by the clock.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::{Input, Nothing};
use crate::http::query::Names;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::Task;
use castra_proto::api::Page;
use castra_proto::task::{Schedule, SchedulePatch, ScheduleSpec};
use castra_supervisor::Supervisor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(show, patch, remove))
        .routes(routes!(run))
}

/// Create a schedule.
///
/// Its tasks are made in the caller's name and with the caller's scope: what they may not create is refused now.
#[utoipa::path(post, path = "/schedules", tag = "schedules", security(("token" = ["drive"])),
    request_body = ScheduleSpec, responses((status = 201, description = "The schedule", body = Schedule)))]
async fn create(
    State(api): State<Api>,
    grant: Grant,
    Input(spec): Input<ScheduleSpec>,
) -> Answer<(StatusCode, Json<Schedule>)> {
    let work = async move |supervisor: Supervisor| supervisor.create_schedule(spec, &grant.caller).await;
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}

/// List schedules, by name.
#[utoipa::path(get, path = "/schedules", tag = "schedules", security(("token" = ["read"])),
    responses((status = 200, description = "All of them", body = Page<Schedule>)))]
async fn list(State(api): State<Api>) -> Answer<Json<Page<Schedule>>> {
    Ok(Json(Page { items: api.supervisor.schedules().await?, next: None }))
}

/// Show a schedule: its next five times, and what came of the last ones.
#[utoipa::path(get, path = "/schedules/{name}", tag = "schedules", security(("token" = ["read"])),
    responses((status = 200, description = "The schedule", body = Schedule)))]
async fn show(State(api): State<Api>, names: Names) -> Answer<Json<Schedule>> {
    Ok(Json(api.supervisor.schedule(names.get("name")).await?))
}

/// Switch a schedule on or off.
///
/// Times that pass while it is off are not made up for. It takes the scope that its tasks are made with.
#[utoipa::path(patch, path = "/schedules/{name}", tag = "schedules", security(("token" = ["drive"])),
    request_body = SchedulePatch, responses((status = 200, description = "The schedule", body = Schedule)))]
async fn patch(
    State(api): State<Api>,
    grant: Grant,
    names: Names,
    Input(patch): Input<SchedulePatch>,
) -> Answer<Json<Schedule>> {
    let name = names.get("name").to_owned();
    let work =
        async move |supervisor: Supervisor| supervisor.patch_schedule(&name, patch, &grant.caller).await;
    Ok(Json(api.command(work).await?))
}

/// Remove a schedule.
///
/// Its tasks stay, and go on. It takes the scope that its tasks are made with.
#[utoipa::path(delete, path = "/schedules/{name}", tag = "schedules", security(("token" = ["drive"])),
    responses((status = 204, description = "Removed")))]
async fn remove(State(api): State<Api>, grant: Grant, names: Names) -> Answer<StatusCode> {
    let name = names.get("name").to_owned();
    let work = async move |supervisor: Supervisor| supervisor.remove_schedule(&name, &grant.caller).await;
    api.command(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Fire a schedule now.
///
/// In the caller's name, beside its plan; 409 while a task of it is not over and its rule is `overlap: skip`.
#[utoipa::path(post, path = "/schedules/{name}/run", tag = "schedules", security(("token" = ["drive"])),
    responses((status = 201, description = "The task", body = Task)))]
async fn run(
    State(api): State<Api>,
    grant: Grant,
    names: Names,
    _: Nothing,
) -> Answer<(StatusCode, Json<Task>)> {
    let name = names.get("name").to_owned();
    let work = async move |supervisor: Supervisor| supervisor.run_schedule(&name, &grant.caller).await;
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}
