//! `/tasks/{id}/uploads` and `/files`: files into a task, and out of the workspace of its newest attempt.

use crate::http::api::{Api, TaskTarget};
use crate::http::auth::Grant;
use crate::http::body::Octets;
use crate::http::query::{Key, Query, flag};
use crate::http::refusal::Answer;
use crate::http::routes::files::{self, ReadQuery};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::Page;
use castra_proto::task::Uploaded;
use castra_supervisor::Supervisor;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(upload)).routes(routes!(read))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// Of the file. Of a path its last part counts.
    name: String,
    /// Replace another file of that name.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    replace: bool,
}

/// Hand a file in.
///
/// It lies in `uploads/`, and the agent of a task that runs is told once. Before it runs the file is kept, and is there
/// when an attempt begins. The same file under the same name changes nothing; another one is 409 without `replace`.
#[utoipa::path(post, path = "/tasks/{id}/uploads", tag = "tasks", security(("token" = ["drive"])),
    params(UploadQuery,
        Key),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Kept, and where it lies", body = Uploaded)))]
async fn upload(
    State(api): State<Api>,
    grant: Grant,
    TaskTarget(id): TaskTarget,
    Query(query): Query<UploadQuery>,
    Key(key): Key,
    body: Octets,
) -> Answer<(StatusCode, Json<Uploaded>)> {
    // The place in the budget goes with the bytes, until they are on disk.
    let work = async move |supervisor: Supervisor| {
        let UploadQuery { name, replace } = query;
        let (content, caller) = (body.bytes.clone(), &grant.caller);
        let uploaded = supervisor.upload(id, &name, content, replace, key.as_deref(), caller).await;
        drop(body);
        uploaded
    };
    Ok((StatusCode::CREATED, Json(api.command(work).await?)))
}

/// Read a file of the workspace, or list a folder.
///
/// Of the newest attempt, while its workspace exists. A file comes as an attachment; a folder as a page of `{name, kind:
/// file|dir|link|other, size, modified}`.
#[utoipa::path(get, path = "/tasks/{id}/files", tag = "tasks", security(("token" = ["read"])),
    params(ReadQuery), responses((status = 200, description = "The bytes, or the entries",
        content((Vec<u8> = "application/octet-stream"), (Page<Value> = "application/json")))))]
async fn read(
    State(api): State<Api>,
    grant: Grant,
    TaskTarget(id): TaskTarget,
    Query(query): Query<ReadQuery>,
) -> Answer {
    let session = api.supervisor.task_session(id).await?;
    files::answer(&api, &grant, session, query.path).await
}
