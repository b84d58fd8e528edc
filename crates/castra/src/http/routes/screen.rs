//! `/sessions/{id}/screen` and `/keys`: a terminal as text, and keys by name, for scripts and agents.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::body::Input;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::api::{Cursor, Keys, Screen, ScreenSize};
use castra_supervisor::Picture;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(screen)).routes(routes!(keys))
}

/// Show a terminal session's screen as text.
#[utoipa::path(get, path = "/sessions/{id}/screen", tag = "terminal", security(("token" = ["read"])),
    responses((status = 200, description = "The screen now", body = Screen)))]
async fn screen(State(api): State<Api>, Target(id): Target) -> Answer<Json<Screen>> {
    Ok(Json(shown(api.supervisor.screen(id).await?)))
}

fn shown(picture: Picture) -> Screen {
    let Picture { rows, ansi, title, size, cursor: (col, row, visible) } = picture;
    let size = ScreenSize { rows: size.rows, cols: size.cols };
    Screen { rows, ansi, title, size, cursor: Cursor { row, col, visible } }
}

/// Type keys into a terminal session.
///
/// All of them or, where one is no key, none. Keys answer dialogs and change the permission mode, and so need the
/// scope that permission requests need; `POST …/messages` types text with less.
#[utoipa::path(post, path = "/sessions/{id}/keys", tag = "terminal", security(("token" = ["approve"])),
    request_body = Keys, responses((status = 204, description = "Handed to the terminal")))]
async fn keys(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Input(Keys { keys }): Input<Keys>,
) -> Answer<StatusCode> {
    api.command(async move |supervisor| supervisor.type_keys(id, &keys, &grant.caller).await).await?;
    Ok(StatusCode::NO_CONTENT)
}
