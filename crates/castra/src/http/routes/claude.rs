//! `/claude`: the claude executables that castra knows of.

use crate::http::api::Api;
use crate::http::auth::Grant;
use crate::http::body::Optional;
use crate::http::query::{Names, wants_stream};
use crate::http::refusal::Answer;
use crate::http::sse::{self, Feed, put_named};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use bytes::BytesMut;
use castra_proto::api::{InstallClaude, Page};
use castra_supervisor::Supervisor;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Lines of progress that may wait; the installation waits for a reader that is slower.
const LINES: usize = 64;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(list, install)).routes(routes!(remove))
}

/// List claude executables, in the order in which they are looked for.
#[utoipa::path(get, path = "/claude", tag = "claude", security(("token" = ["read"])),
    responses((status = 200, description = "`{path, version, source: configured|path|home|cache, used}`", body = Page<Value>)))]
async fn list(State(api): State<Api>) -> Answer<Json<Page<Value>>> {
    Ok(Json(Page { items: api.supervisor.claude_versions().await?, next: None }))
}

/// Install a claude into castra's cache.
///
/// With `Accept: text/event-stream` lines of progress come as `event: progress`, and the end as a message or as
/// `event: problem`. The installation goes on when the reader leaves.
#[utoipa::path(post, path = "/claude", tag = "claude", security(("token" = ["admin"])),
    request_body = Option<InstallClaude>, responses((status = 200, description = "What was installed",
        content((Value = "application/json"), (String = "text/event-stream")))))]
async fn install(
    State(api): State<Api>,
    grant: Grant,
    headers: HeaderMap,
    Optional(request): Optional<InstallClaude>,
) -> Answer {
    let (progress, lines) = mpsc::channel(LINES);
    let work = async move |supervisor: Supervisor| {
        supervisor.claude_install(request.version.as_deref(), progress).await
    };
    if wants_stream(&headers) {
        let installing = tokio::spawn(work(api.supervisor.clone()));
        return sse::respond(Installing { lines, installing: Some(installing) }, api.lease(&grant));
    }
    drain(lines);
    Ok(Json(api.command(work).await?).into_response())
}

/// Remove a version from castra's cache.
#[utoipa::path(delete, path = "/claude/{version}", tag = "claude", security(("token" = ["admin"])),
    responses((status = 204, description = "Removed")))]
async fn remove(State(api): State<Api>, names: Names) -> Answer<StatusCode> {
    let version = names.get("version").to_owned();
    api.command(async move |supervisor: Supervisor| supervisor.claude_remove(&version).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nobody reads the progress, but who writes it waits for room.
fn drain(mut lines: mpsc::Receiver<String>) {
    tokio::spawn(async move { while lines.recv().await.is_some() {} });
}

struct Installing {
    lines: mpsc::Receiver<String>,
    installing: Option<JoinHandle<castra_supervisor::Result<Value>>>,
}

impl Feed for Installing {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        if let Some(line) = self.lines.recv().await {
            let line = serde_json::to_vec(&line).unwrap_or_default();
            put_named(out, "progress", &line);
            return Some(Ok(()));
        }
        let done = match self.installing.as_mut()?.await {
            Ok(done) => done,
            Err(_) => Err(castra_supervisor::Error::new(
                castra_proto::ErrorCode::Internal,
                "the installation broke off",
            )),
        };
        self.installing = None;
        Some(done.map(|value| put_named(out, "message", &serde_json::to_vec(&value).unwrap_or_default())))
    }

    fn is_caught_up(&self) -> bool {
        true
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        if self.installing.is_some() {
            let (_, closed) = mpsc::channel(1);
            drain(std::mem::replace(&mut self.lines, closed));
        }
    }
}
