//! What is said to teams. Each request is carried out twice under one key: without waiting, to its end, so that all of it
//! is on disk; and then for as long as the caller waits.

use crate::http::api::{Api, TeamTarget};
use crate::http::auth::Grant;
use crate::http::body::{Input, Optional};
use crate::http::query::{self, Key, Names, Query, WaitQuery};
use crate::http::refusal::{Answer, Refusal};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::team::{
    Answer as Answered, AnswerState, Answers, AskAgent, Fanout, FlowRun, RouteAnswer, Routed, RunFlow,
};
use castra_supervisor::{Caller, Supervisor};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(send))
        .routes(routes!(route))
        .routes(routes!(fanout))
        .routes(routes!(run))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RunQuery {
    /// Seconds to wait for the flow's end, up to 3600.
    #[param(maximum = 3600)]
    wait: Option<u64>,
    /// Answer as soon as more than so many steps are over.
    seen: Option<usize>,
}

fn timeout(seconds: Option<u64>) -> Result<Duration, Refusal> {
    let wait = query::wait(seconds, "ask again with the same Idempotency-Key: it is the same request")?;
    Ok(wait.unwrap_or_default())
}

/// Whether somebody is waited for.
trait Standing {
    fn state(&self) -> AnswerState;
}

macro_rules! state {
    ($($answer:ty),*) => { $(impl Standing for $answer { fn state(&self) -> AnswerState { self.state } })* };
}
state!(Answered, Routed, Answers, FlowRun);

/// Carries `work` out without waiting, whoever hangs up; and then once more, for as long as the caller waits.
async fn twice<T, F>(
    api: &Api,
    grant: &Grant,
    wait: Duration,
    key: Option<String>,
    work: impl Fn(Supervisor, Caller, String, Duration) -> F,
) -> Answer<(StatusCode, Json<T>)>
where
    F: Future<Output = castra_supervisor::Result<T>> + Send + 'static,
    T: Standing + Send + 'static,
{
    let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let begun = |supervisor: Supervisor| work(supervisor, grant.caller.clone(), key.clone(), Duration::ZERO);
    let mut answer = api.command(begun).await?;
    if answer.state() == AnswerState::Waiting && !wait.is_zero() {
        let later = work(api.supervisor.clone(), grant.caller.clone(), key.clone(), wait);
        // Else it is as it was.
        answer = api.waited(grant, later).await?.unwrap_or(answer);
    }
    let status = match answer.state() {
        AnswerState::Waiting => StatusCode::ACCEPTED,
        AnswerState::Answered | AnswerState::Failed => StatusCode::OK,
    };
    Ok((status, Json(answer)))
}

/// Say something to an agent.
///
/// It is started where it does not run; the message is on disk when this answers. With `wait` the answer is that of the
/// turn in which this message was delivered, whatever else the agent was asked. With `Idempotency-Key` a retry is the
/// same message, and gets its answer.
#[utoipa::path(post, path = "/teams/{id}/agents/{agent}/messages", tag = "teams", security(("token" = ["drive"])),
    params(WaitQuery, Key),
    request_body = AskAgent,
    responses((status = 202, description = "Accepted, and not answered yet", body = Answered),
        (status = 200, description = "Answered or failed", body = Answered)))]
async fn send(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    names: Names,
    Query(query): Query<WaitQuery>,
    Key(key): Key,
    Input(ask): Input<AskAgent>,
) -> Answer<(StatusCode, Json<Answered>)> {
    let (wait, agent) = (timeout(query.wait)?, names.get("agent").to_owned());
    twice(&api, &grant, wait, key, move |supervisor, caller, key, wait| {
        let (agent, ask) = (agent.clone(), ask.clone());
        async move { supervisor.ask_agent(id, &agent, ask, Some(&key), wait, &caller).await }
    })
    .await
}

/// Give one agent's answer to another.
///
/// With `from` and `text`, that agent is asked first; with `from` alone its newest answer is given on; with `text` alone
/// the text itself. What is no answer is not given on. The second message is sent while somebody waits: asked for again with
/// the same `Idempotency-Key`, it goes on.
#[utoipa::path(post, path = "/teams/{id}/route", tag = "teams", security(("token" = ["drive"])),
    params(WaitQuery, Key),
    request_body = RouteAnswer,
    responses((status = 202, description = "Not over yet", body = Routed),
        (status = 200, description = "Answered or failed", body = Routed)))]
async fn route(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Query(query): Query<WaitQuery>,
    Key(key): Key,
    Input(route): Input<RouteAnswer>,
) -> Answer<(StatusCode, Json<Routed>)> {
    let wait = timeout(query.wait)?;
    twice(&api, &grant, wait, key, move |supervisor, caller, key, wait| {
        let route = route.clone();
        async move { supervisor.route(id, &route, Some(&key), wait, &caller).await }
    })
    .await
}

/// Ask several agents the same, side by side.
///
/// Each has its answer or its error, in the order in which they were named; one that is slow or fails keeps no other
/// from its answer.
#[utoipa::path(post, path = "/teams/{id}/fanout", tag = "teams", security(("token" = ["drive"])),
    params(WaitQuery, Key),
    request_body = Fanout,
    responses((status = 202, description = "Some have not answered yet", body = Answers),
        (status = 200, description = "All have answered or failed", body = Answers)))]
async fn fanout(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Query(query): Query<WaitQuery>,
    Key(key): Key,
    Input(fanout): Input<Fanout>,
) -> Answer<(StatusCode, Json<Answers>)> {
    let wait = timeout(query.wait)?;
    twice(&api, &grant, wait, key, move |supervisor, caller, key, wait| {
        let fanout = fanout.clone();
        async move { supervisor.fan_out(id, &fanout, Some(&key), wait, &caller).await }
    })
    .await
}

/// Run the team's flow.
///
/// Its next step begins while somebody waits; asked for again with the same `Idempotency-Key`, it goes on where it was and
/// says nothing twice.
#[utoipa::path(post, path = "/teams/{id}/run", tag = "teams", security(("token" = ["drive"])),
    params(RunQuery, Key),
    request_body = Option<RunFlow>,
    responses((status = 202, description = "Not over yet", body = FlowRun),
        (status = 200, description = "Run to its end, or to the step that failed", body = FlowRun)))]
async fn run(
    State(api): State<Api>,
    grant: Grant,
    TeamTarget(id): TeamTarget,
    Query(query): Query<RunQuery>,
    Key(key): Key,
    Optional(run): Optional<RunFlow>,
) -> Answer<(StatusCode, Json<FlowRun>)> {
    let (wait, seen) = (timeout(query.wait)?, query.seen.unwrap_or(usize::MAX));
    twice(&api, &grant, wait, key, move |supervisor, caller, key, wait| {
        let run = run.clone();
        async move { supervisor.run_flow(id, &run, Some(&key), seen, wait, &caller).await }
    })
    .await
}
