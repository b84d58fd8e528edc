//! `/sessions/{id}/export` and `/sessions/{id}/log`: the whole of a session as one download.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::query::{Query, flag};
use crate::http::refusal::Answer;
use crate::http::streams;
use axum::extract::{FromRef, State};
use castra_supervisor::{Direction, ExportFormat};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(export)).routes(routes!(log))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    #[default]
    StreamJson,
    Transcript,
    Json,
    Markdown,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `stream-json`: every line of claude's stdout. `transcript`: the JSONL file that claude itself writes. `json`:
    /// an array of events. `markdown`: for people.
    #[serde(default)]
    #[param(default = "stream-json", inline)]
    format: Format,
    /// Until the run's exit.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    follow: bool,
}

/// Export a session.
#[utoipa::path(get, path = "/sessions/{id}/export", tag = "sessions", security(("token" = ["read"])),
    params(ExportQuery), responses((status = 200, description = "The session, in the format",
        content((String = "application/x-ndjson"), (String = "application/json"), (String = "text/markdown")))))]
async fn export(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<ExportQuery>,
) -> Answer {
    let (format, media, suffix) = match query.format {
        Format::StreamJson => (ExportFormat::StreamJson, "application/x-ndjson", "jsonl"),
        Format::Transcript => (ExportFormat::Transcript, "application/x-ndjson", "jsonl"),
        Format::Json => (ExportFormat::Json, "application/json", "json"),
        Format::Markdown => (ExportFormat::Markdown, "text/markdown; charset=utf-8", "md"),
    };
    let bytes = api.supervisor.export(id, format, query.follow).await?;
    Ok(streams::respond(bytes, media, &format!("{id}.{suffix}"), api.lease(&grant)))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Side {
    In,
    Out,
    #[default]
    Both,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// What was written to claude, what claude wrote, or both in order.
    #[serde(default)]
    #[param(default = "both", inline)]
    direction: Side,
    /// Until the run's exit.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    follow: bool,
}

/// The exact bytes of a session's runs; secrets are masked.
#[utoipa::path(get, path = "/sessions/{id}/log", tag = "sessions", security(("token" = ["read"])),
    params(LogQuery), responses((status = 200, description = "Bytes", body = Vec<u8>, content_type = "application/octet-stream")))]
async fn log(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<LogQuery>,
) -> Answer {
    let direction = match query.direction {
        Side::In => Direction::In,
        Side::Out => Direction::Out,
        Side::Both => Direction::Both,
    };
    let bytes = api.supervisor.raw_log(id, direction, query.follow).await?;
    Ok(streams::respond(bytes, "application/octet-stream", &format!("{id}.log"), api.lease(&grant)))
}
