//! `/tasks/cancel`: all tasks that a filter means.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::Input;
use crate::http::query;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use castra_proto::task::{CancelTasks, CancelledTasks};
use castra_supervisor::Supervisor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(cancel_group))
}

/// Cancel every task that a filter means.
///
/// As cancelling each of them. With `wait_s` the answer comes when all are over, or the time is: `open` says which.
#[utoipa::path(post, path = "/tasks/cancel", tag = "tasks", security(("token" = ["drive"])),
    request_body = CancelTasks, responses((status = 200, description = "Which were asked to end", body = CancelledTasks)))]
async fn cancel_group(
    State(api): State<Api>,
    grant: Grant,
    Input(request): Input<CancelTasks>,
) -> Answer<Json<CancelledTasks>> {
    let wait = query::wait(request.wait_s, "ask for the tasks again")?.unwrap_or_default();
    let caller = grant.caller.clone();
    let work = async move |supervisor: Supervisor| supervisor.cancel_tasks(&request, &caller).await;
    let mut done = api.command(work).await?;
    if !wait.is_zero()
        && let Some(open) = api.waited(&grant, api.supervisor.wait_tasks(&done.asked, wait)).await?
    {
        done.open = open;
    }
    Ok(Json(done))
}
