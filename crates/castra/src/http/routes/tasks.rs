//! `/tasks`: create, list, show and wait, remove, and the commands to a task as a whole.

mod deliverables;
mod events;
mod files;
mod group;
mod hook;
mod tree;

use crate::http::api::{Api, TaskTarget};
use crate::http::auth::Grant;
use crate::http::body::{Input, Nothing, Optional};
use crate::http::query::{self, Key, Query, flag, items, label};
use crate::http::refusal::{Answer, Refusal};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::Page;
use castra_proto::task::CancelTask;
use castra_proto::{ErrorCode, Task, TaskSpec, TaskState};
use castra_supervisor::task::document;
use castra_supervisor::{Supervisor, TaskFilter};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(show, remove))
        .routes(routes!(cancel))
        .routes(routes!(resume))
        .routes(routes!(retry))
        .merge(group::routes())
        .merge(events::routes())
        .merge(tree::routes())
        .merge(deliverables::routes())
        .merge(files::routes())
        .merge(hook::routes())
}

/// Create a task.
///
/// It begins when its turn comes. With `Idempotency-Key` a retry gets the task of the first call; another body is
/// refused.
#[utoipa::path(post, path = "/tasks", tag = "tasks", security(("token" = ["drive"])),
    params(Key),
    request_body = TaskSpec, responses((status = 201, description = "The task", body = Task)))]
async fn create(
    State(api): State<Api>,
    grant: Grant,
    Key(key): Key,
    Input(spec): Input<TaskSpec>,
) -> Answer<(StatusCode, Json<Task>)> {
    let task = api
        .command(async move |supervisor: Supervisor| {
            supervisor.create_task(spec, key.as_deref(), &grant.caller).await
        })
        .await?;
    Ok((StatusCode::CREATED, Json(task)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only tasks in one of these states, separated by commas. Without it: those that are not over.
    state: Option<String>,
    /// Tasks that are over too.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    all: bool,
    /// `NAME=VALUE`: only tasks with this label.
    label: Option<String>,
    /// Only those that are made for this task: an id, a unique prefix of one, or a name.
    parent: Option<String>,
    /// A filter as JSON, e.g. `{"labels.team": "blue"}`. A page may have fewer items than `limit`, and go on.
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Items of a page, up to 500.
    #[serde(default = "items::<50>")]
    #[param(default = 50, minimum = 1, maximum = 500)]
    limit: usize,
}

/// List tasks, newest first.
#[utoipa::path(get, path = "/tasks", tag = "tasks", security(("token" = ["read"])),
    params(ListQuery), responses((status = 200, description = "A page of tasks", body = Page<Task>)))]
async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Json<Page<Task>>> {
    let states = query.state.as_deref().map(states).transpose()?.unwrap_or_default();
    let label = query.label.as_deref().map(label).transpose()?;
    let parent = match &query.parent {
        Some(parent) => Some(api.supervisor.resolve_task(parent).await?),
        None => None,
    };
    let filter = TaskFilter { states, all: query.all, label, parent };
    let limit = query.limit.clamp(1, 500);
    if let Some(wanted) = &query.filter {
        let wanted = document::read(wanted)?;
        let page = api.supervisor.tasks_where(&filter, &wanted, query.cursor.as_deref(), limit).await?;
        return Ok(Json(page));
    }
    Ok(Json(api.supervisor.tasks(&filter, query.cursor.as_deref(), Some(limit)).await?))
}

fn states(text: &str) -> Result<Vec<TaskState>, Refusal> {
    let state = |name: &str| {
        TaskState::parse(name).ok_or_else(|| {
            let known = TaskState::ALL.map(TaskState::as_str).join(", ");
            Refusal::new(
                ErrorCode::InvalidRequest,
                format!("`{}` is no state of a task", name.escape_debug()),
            )
            .hint(format!("there are {known}"))
        })
    };
    text.split(',').map(state).collect()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Seconds to wait until it is over, up to 3600.
    #[param(maximum = 3600)]
    wait: Option<u64>,
    /// With `wait`: also answer when it has handed this over.
    deliverable: Option<String>,
}

/// Show a task, or wait for it.
///
/// With `wait` the answer comes when the task is over, has that deliverable, or the time is up: its `state` says which.
#[utoipa::path(get, path = "/tasks/{id}", tag = "tasks", security(("token" = ["read"])),
    params(ShowQuery), responses((status = 200, description = "The task as it is now", body = Task)))]
async fn show(
    State(api): State<Api>,
    grant: Grant,
    TaskTarget(id): TaskTarget,
    Query(query): Query<ShowQuery>,
) -> Answer<Json<Task>> {
    let Some(wait) = query::wait(query.wait, "ask for the task again")? else {
        return Ok(Json(api.supervisor.task(id).await?));
    };
    let task = api.supervisor.wait_task(id, query.deliverable.as_deref(), wait);
    match api.waited(&grant, task).await? {
        Some(task) => Ok(Json(task)),
        None => Ok(Json(api.supervisor.task(id).await?)),
    }
}

/// Remove a task that is over.
///
/// With its deliverables and its sessions; never a `workdir` of the caller's.
#[utoipa::path(delete, path = "/tasks/{id}", tag = "tasks", security(("token" = ["drive"])),
    responses((status = 204, description = "Removed")))]
async fn remove(State(api): State<Api>, TaskTarget(id): TaskTarget) -> Answer<StatusCode> {
    api.command(async move |supervisor: Supervisor| supervisor.remove_task(id).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Cancel a task.
///
/// Its agent is interrupted, may come to rest, and is stopped; the answer does not wait for that. A task that is over
/// stays as it is.
#[utoipa::path(post, path = "/tasks/{id}/cancel", tag = "tasks", security(("token" = ["drive"])),
    request_body = Option<CancelTask>, responses((status = 200, description = "The task", body = Task)))]
async fn cancel(
    State(api): State<Api>,
    grant: Grant,
    TaskTarget(id): TaskTarget,
    Optional(request): Optional<CancelTask>,
) -> Answer<Json<Task>> {
    let work = async move |supervisor: Supervisor| supervisor.cancel_task(id, &request, &grant.caller).await;
    Ok(Json(api.command(work).await?))
}

/// Go on with a task that is over: another attempt, in the session of the last one.
#[utoipa::path(post, path = "/tasks/{id}/resume", tag = "tasks", security(("token" = ["drive"])),
    responses((status = 200, description = "The task, queued", body = Task)))]
async fn resume(State(api): State<Api>, TaskTarget(id): TaskTarget, _: Nothing) -> Answer<Json<Task>> {
    Ok(Json(api.command(async move |supervisor: Supervisor| supervisor.resume_task(id).await).await?))
}

/// Begin a task that is over anew: another attempt, in a fresh session.
#[utoipa::path(post, path = "/tasks/{id}/retry", tag = "tasks", security(("token" = ["drive"])),
    responses((status = 200, description = "The task, queued", body = Task)))]
async fn retry(State(api): State<Api>, TaskTarget(id): TaskTarget, _: Nothing) -> Answer<Json<Task>> {
    Ok(Json(api.command(async move |supervisor: Supervisor| supervisor.retry_task(id).await).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_a_list_of_known_names() {
        let read = |text: &str| states(text).map_err(|refusal| refusal.problem().code);
        assert_eq!(read("done"), Ok(vec![TaskState::Done]));
        assert_eq!(read("queued,needs_input"), Ok(vec![TaskState::Queued, TaskState::NeedsInput]));
        for text in ["", "Done", "queued,", "queued, running"] {
            assert_eq!(read(text), Err(ErrorCode::InvalidRequest), "{text}");
        }
    }
}
