//! `/launch-blocks`: what holds tasks back. Reading is for everybody, deciding for admins.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::Input;
use crate::http::query::Names;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::BlockId;
use castra_proto::api::Page;
use castra_proto::task::{CreateBlock, LaunchBlock};
use castra_supervisor::Supervisor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(remove))
}

/// Hold tasks back.
///
/// From now on those that the filter means are not created, resumed or retried (409 `launch_blocked`), and those that
/// are queued wait. It holds over restarts, until it is lifted or `until` is over.
#[utoipa::path(post, path = "/launch-blocks", tag = "launch-blocks", security(("token" = ["admin"])),
    request_body = CreateBlock, responses((status = 201, description = "The block", body = LaunchBlock)))]
async fn create(
    State(api): State<Api>,
    grant: Grant,
    Input(request): Input<CreateBlock>,
) -> Answer<(StatusCode, Json<LaunchBlock>)> {
    let work = async move |supervisor: Supervisor| supervisor.block_launches(request, &grant.caller).await;
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}

/// List the launch blocks that hold, oldest first.
#[utoipa::path(get, path = "/launch-blocks", tag = "launch-blocks", security(("token" = ["read"])),
    responses((status = 200, description = "All of them", body = Page<LaunchBlock>)))]
async fn list(State(api): State<Api>) -> Answer<Json<Page<LaunchBlock>>> {
    Ok(Json(Page { items: api.supervisor.blocks().await?, next: None }))
}

/// Lift a launch block.
///
/// What waited for it goes on.
#[utoipa::path(delete, path = "/launch-blocks/{block_id}", tag = "launch-blocks", security(("token" = ["admin"])),
    responses((status = 204, description = "Lifted")))]
async fn remove(State(api): State<Api>, names: Names) -> Answer<StatusCode> {
    let id = names.id::<BlockId>("block_id")?;
    api.command(async move |supervisor: Supervisor| supervisor.unblock(id).await).await?;
    Ok(StatusCode::NO_CONTENT)
}
