//! `/definitions`: the catalogue of tasks that are launched by name. Putting one is for admins: others launch it.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::{Input, Optional};
use crate::http::query::{Key, Names, Query, flag};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::Task;
use castra_proto::task::{Catalogue, Definition, KnownDefinition, Launch};
use castra_supervisor::Supervisor;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show, put, remove)).routes(routes!(launch))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Hidden ones too.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    all: bool,
}

/// List definitions, by name.
///
/// The files are read anew, where they have changed; what is wrong with one is under `faults`.
#[utoipa::path(get, path = "/definitions", tag = "definitions", security(("token" = ["read"])),
    params(ListQuery), responses((status = 200, description = "All of them", body = Catalogue)))]
async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Json<Catalogue>> {
    let mut catalogue = api.supervisor.catalogue().await?;
    catalogue.items.retain(|one| query.all || !one.definition.hidden);
    Ok(Json(catalogue))
}

/// Show a definition, hidden or not.
#[utoipa::path(get, path = "/definitions/{name}", tag = "definitions", security(("token" = ["read"])),
    responses((status = 200, description = "The definition", body = KnownDefinition)))]
async fn show(State(api): State<Api>, names: Names) -> Answer<Json<KnownDefinition>> {
    Ok(Json(api.supervisor.definition(names.get("name")).await?))
}

/// Make a definition, or put another in its place.
#[utoipa::path(put, path = "/definitions/{name}", tag = "definitions", security(("token" = ["admin"])),
    request_body = Definition, responses((status = 200, description = "The definition", body = KnownDefinition)))]
async fn put(
    State(api): State<Api>,
    grant: Grant,
    names: Names,
    Input(definition): Input<Definition>,
) -> Answer<Json<KnownDefinition>> {
    let name = names.get("name").to_owned();
    let work =
        async move |supervisor: Supervisor| supervisor.put_definition(&name, definition, &grant.caller).await;
    Ok(Json(api.command(work).await?))
}

/// Remove a definition that was put.
///
/// Its tasks stay, and go on.
#[utoipa::path(delete, path = "/definitions/{name}", tag = "definitions", security(("token" = ["admin"])),
    responses((status = 204, description = "Removed")))]
async fn remove(State(api): State<Api>, names: Names) -> Answer<StatusCode> {
    let name = names.get("name").to_owned();
    api.command(async move |supervisor: Supervisor| supervisor.remove_definition(&name).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Launch a definition.
///
/// Values are checked before anything is made. What the task may do is decided by the caller's scope.
#[utoipa::path(post, path = "/definitions/{name}/launch", tag = "definitions", security(("token" = ["drive"])),
    params(Key),
    request_body = Option<Launch>, responses((status = 201, description = "The task", body = Task)))]
async fn launch(
    State(api): State<Api>,
    grant: Grant,
    names: Names,
    Key(key): Key,
    Optional(launch): Optional<Launch>,
) -> Answer<(StatusCode, Json<Task>)> {
    let name = names.get("name").to_owned();
    let work = async move |supervisor: Supervisor| {
        supervisor.launch_definition(&name, launch, key.as_deref(), &grant.caller).await
    };
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}
