//! `/teams`: made, shown, removed, stopped, and begun anew. What is said to them is in `talk`.

mod talk;

use crate::http::api::{Api, TeamTarget};
use crate::http::auth::Grant;
use crate::http::body::{Input, Optional};
use crate::http::query::{Key, Query, RemoveQuery, flag, items};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::Page;
use castra_proto::team::{ClearTeam, StopTeam};
use castra_proto::{Team, TeamSpec};
use castra_supervisor::Supervisor;
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
        .routes(routes!(clear))
        .routes(routes!(stop))
        .merge(talk::routes())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CreateQuery {
    /// Keep the team and what could be started of it, when an agent could not.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    keep: bool,
}

/// Make a team.
///
/// Its agents are ready when this answers, unless it is `lazy`. Where one cannot be started, none is left running and
/// there is no team. With `Idempotency-Key` a retry gets the team of the first call; another body is refused.
#[utoipa::path(post, path = "/teams", tag = "teams", security(("token" = ["drive"])),
    params(CreateQuery, Key),
    request_body = TeamSpec, responses((status = 201, description = "The team", body = Team)))]
async fn create(
    State(api): State<Api>,
    grant: Grant,
    Query(query): Query<CreateQuery>,
    Key(key): Key,
    Input(spec): Input<TeamSpec>,
) -> Answer<(StatusCode, Json<Team>)> {
    let work = async move |supervisor: Supervisor| {
        supervisor.create_team(spec, query.keep, key.as_deref(), &grant.caller).await
    };
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Items of a page, up to 500.
    #[serde(default = "items::<50>")]
    #[param(default = 50, minimum = 1, maximum = 500)]
    limit: usize,
}

/// List teams, newest first.
#[utoipa::path(get, path = "/teams", tag = "teams", security(("token" = ["read"])),
    params(ListQuery), responses((status = 200, description = "A page of teams", body = Page<Team>)))]
async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Json<Page<Team>>> {
    Ok(Json(api.supervisor.teams(query.cursor.as_deref(), Some(query.limit)).await?))
}

/// Show a team: what each agent does, has done and said last, by conversation.
#[utoipa::path(get, path = "/teams/{id}", tag = "teams", security(("token" = ["read"])),
    responses((status = 200, description = "The team", body = Team)))]
async fn show(State(api): State<Api>, TeamTarget(id): TeamTarget) -> Answer<Json<Team>> {
    Ok(Json(api.supervisor.team(id).await?))
}

/// Remove a team and all its sessions; never a `workdir` of the caller's.
#[utoipa::path(delete, path = "/teams/{id}", tag = "teams", security(("token" = ["drive"])),
    params(RemoveQuery), responses((status = 204, description = "Removed")))]
async fn remove(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Query(query): Query<RemoveQuery>,
) -> Answer<StatusCode> {
    let work =
        async move |supervisor: Supervisor| supervisor.remove_team(id, query.force, &grant.caller).await;
    api.command(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begin a conversation anew: the next message is the first that is said in it.
///
/// The session of the old conversation is stopped, and kept.
#[utoipa::path(post, path = "/teams/{id}/clear", tag = "teams", security(("token" = ["drive"])),
    request_body = Option<ClearTeam>, responses((status = 200, description = "The team", body = Team)))]
async fn clear(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Optional(request): Optional<ClearTeam>,
) -> Answer<Json<Team>> {
    let work = async move |supervisor: Supervisor| supervisor.clear_team(id, &request, &grant.caller).await;
    Ok(Json(api.command(work).await?))
}

/// Stop one agent, or all: no process of theirs is left when this answers.
///
/// What they were asked before and have not answered fails. What they are asked from now on starts them again.
#[utoipa::path(post, path = "/teams/{id}/stop", tag = "teams", security(("token" = ["drive"])),
    request_body = Option<StopTeam>, responses((status = 200, description = "The team", body = Team)))]
async fn stop(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Optional(request): Optional<StopTeam>,
) -> Answer<Json<Team>> {
    let work = async move |supervisor: Supervisor| supervisor.stop_team(id, &request, &grant.caller).await;
    Ok(Json(api.command(work).await?))
}
