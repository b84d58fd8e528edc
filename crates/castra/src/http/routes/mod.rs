//! The routes, one module for each noun. Each says its scope; the gate enforces it.

mod blocks;
mod claude;
mod daemon;
mod definitions;
mod events;
mod files;
mod logs;
mod messages;
mod permissions;
mod schedules;
mod screen;
mod sessions;
mod sign_in;
mod tasks;
mod teams;
mod terminal;
mod tokens;
mod transcripts;

use super::api::Api;
use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;

/// All routes. Generic over the state, so that tests can do without a supervisor.
pub(super) fn all<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    let api = OpenApiRouter::default()
        .merge(sessions::routes())
        .merge(messages::routes())
        .merge(events::routes())
        .merge(permissions::routes())
        .merge(screen::routes())
        .merge(tasks::routes())
        .merge(teams::routes())
        .merge(blocks::routes())
        .merge(schedules::routes())
        .merge(definitions::routes())
        .merge(files::routes())
        .merge(logs::routes())
        .merge(transcripts::routes())
        .merge(tokens::routes())
        .merge(terminal::routes())
        .merge(sign_in::routes())
        .merge(claude::routes())
        .merge(daemon::routes());
    OpenApiRouter::default().merge(daemon::root_routes()).nest("/api/v1", api)
}
