//! `/sessions/{id}/files`: what is beneath `work/`. The supervisor keeps paths inside; this only carries bytes.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::body::Octets;
use crate::http::query::Query;
use crate::http::refusal::{Answer, Refusal};
use crate::http::streams::{self, attachment};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use castra_proto::api::{FileWritten, Page};
use castra_proto::{ErrorCode, SessionId};
use castra_supervisor::{Supervisor, upload_scope};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// One read of a file.
const PIECE: usize = 256 * 1024;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(write, read))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WriteQuery {
    /// Relative to `work/`.
    path: String,
}

/// Write a file.
#[utoipa::path(post, path = "/sessions/{id}/files", tag = "files", security(("token" = ["drive"])),
    params(WriteQuery), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Written", body = FileWritten)))]
async fn write(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<WriteQuery>,
    body: Octets,
) -> Answer<(StatusCode, Json<FileWritten>)> {
    let needed = upload_scope(&query.path);
    if grant.caller.scope < needed {
        let detail = format!("writing `{}` needs the scope `{}`", query.path.escape_debug(), needed.as_str());
        return Err(Refusal::new(ErrorCode::Forbidden, detail)
            .hint("settings, hooks and servers decide what runs unasked"));
    }
    let written = FileWritten { path: query.path.clone(), size: body.bytes.len() as u64 };
    // The place in the budget goes with the bytes, until they are on disk.
    let work = async move |supervisor: Supervisor| {
        let written = supervisor.put_file(id, &query.path, body.bytes.clone()).await;
        drop(body);
        written
    };
    api.command(work).await?;
    Ok((StatusCode::CREATED, Json(written)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadQuery {
    /// Relative to the folder that the agent works in; empty is the folder itself, a final slash means a folder.
    #[serde(default)]
    #[param(default = "")]
    pub(super) path: String,
}

/// Read a file, or list a folder.
///
/// A file comes as an attachment; a folder as a page of `{name, kind: file|dir|link|other, size, modified}`.
#[utoipa::path(get, path = "/sessions/{id}/files", tag = "files", security(("token" = ["read"])),
    params(ReadQuery), responses((status = 200, description = "The bytes, or the entries",
        content((Vec<u8> = "application/octet-stream"), (Page<Value> = "application/json")))))]
async fn read(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<ReadQuery>,
) -> Answer {
    answer(&api, &grant, id, query.path).await
}

/// A file as an attachment, or a folder's entries.
pub(super) async fn answer(api: &Api, grant: &Grant, id: SessionId, path: String) -> Answer {
    let supervisor = api.supervisor.clone();
    let folder = path.trim_end_matches('/');
    if folder != path || folder.is_empty() {
        return list(&supervisor, id, folder).await.map_err(Refusal::from);
    }
    // The first piece is read before the answer begins, so that a missing file is a 404.
    match supervisor.read_file(id, &path, 0, PIECE).await {
        Ok(first) => Ok(download(supervisor, id, path, first, api.lease(grant))),
        // A folder without the slash; what is neither answers as the file that it is not.
        Err(error) => list(&supervisor, id, folder).await.map_err(|_| Refusal::from(error)),
    }
}

async fn list(supervisor: &Supervisor, id: SessionId, folder: &str) -> castra_supervisor::Result<Response> {
    let items = supervisor.list_files(id, folder).await?;
    Ok(Json(Page { items, next: None }).into_response())
}

fn download(
    supervisor: Supervisor,
    id: SessionId,
    path: String,
    first: Bytes,
    lease: crate::http::standing::Lease,
) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let pieces = futures::stream::try_unfold((0_u64, Some(first)), move |(offset, ready)| {
        let (supervisor, path) = (supervisor.clone(), path.clone());
        async move {
            let piece = match ready {
                Some(piece) => piece,
                None => supervisor.read_file(id, &path, offset, PIECE).await?,
            };
            let offset = offset + piece.len() as u64;
            Ok::<_, castra_supervisor::Error>((!piece.is_empty()).then_some((piece, (offset, None))))
        }
    });
    let mut response = Response::new(Body::from_stream(streams::under(lease, pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, attachment(&name));
    response
}
