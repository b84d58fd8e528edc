//! `/tasks/{id}/tree`: a task and all that is below it.

use crate::http::api::{Api, TaskTarget};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use castra_proto::task::TaskTree;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(tree))
}

/// A task and all that is below it.
#[utoipa::path(get, path = "/tasks/{id}/tree", tag = "tasks", security(("token" = ["read"])),
    responses((status = 200, description = "The task and its children, and theirs", body = TaskTree)))]
async fn tree(State(api): State<Api>, TaskTarget(id): TaskTarget) -> Answer<Json<TaskTree>> {
    Ok(Json(api.supervisor.task_tree(id).await?))
}
