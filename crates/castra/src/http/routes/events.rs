//! `/sessions/{id}/events` and `/events`: pages of JSON, or a stream of history and then live.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::query::{Position, Query, items, position, wants_stream};
use crate::http::refusal::Answer;
use crate::http::sse::{self, ServerFeed};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use castra_proto::api::{Page, ServerEvent};
use castra_proto::{Event, SessionId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(session_events)).routes(routes!(server_events))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Only events with a greater `seq`.
    after: Option<u64>,
    /// `next` of the page before: the same as `after`.
    cursor: Option<u64>,
    /// Events of a page, up to 1000; a page also ends at 4 MB. Not for streams.
    #[serde(default = "items::<100>")]
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl EventsQuery {
    fn after(&self) -> Option<u64> {
        self.cursor.or(self.after)
    }

    fn limit(&self) -> usize {
        self.limit.clamp(1, 1000)
    }
}

/// Events of a session: a page, or with `Accept: text/event-stream` history and then live.
///
/// In the stream `id:` is the event's `seq`, followed by `.` and a mark where the database was restored from a
/// backup, and `Last-Event-ID` continues after it. Partials come as `event: partial` without an id;
/// `event: problem` ends a stream that cannot go on.
#[utoipa::path(get, path = "/sessions/{id}/events", tag = "events", security(("token" = ["read"])),
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "Wins over `after`. Streams only.")),
    responses((status = 200, description = "A page, or a stream of Event objects",
        content((Page<Event> = "application/json"), (String = "text/event-stream")))))]
async fn session_events(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer {
    if wants_stream(&headers) {
        let after = admitted(&api, Some(id), position(&headers, query.after())?)?.unwrap_or(0);
        return sse::respond(api.supervisor.subscribe(id, after).await?, api.lease(&grant));
    }
    let items = api.supervisor.events(id, query.after().unwrap_or(0), query.limit()).await?;
    let next = next(items.last().map(|event| event.seq));
    Ok(Json(Page { items, next }).into_response())
}

/// Changes of all sessions and tasks that the token may see: a page, or a stream.
///
/// A stream without a position begins now; a page without one begins at the first.
#[utoipa::path(get, path = "/events", tag = "events", security(("token" = ["read"])),
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "Wins over `after`. Streams only.")),
    responses((status = 200, description = "A page, or a stream of ServerEvent objects",
        content((Page<ServerEvent> = "application/json"), (String = "text/event-stream")))))]
async fn server_events(
    State(api): State<Api>,
    grant: Grant,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer {
    if wants_stream(&headers) {
        let after = admitted(&api, None, position(&headers, query.after())?)?;
        let events = api.supervisor.subscribe_server(after).await?;
        return sse::respond(ServerFeed { events, only: grant.only }, api.lease(&grant));
    }
    let mut items = api.supervisor.server_events(query.after().unwrap_or(0), query.limit()).await?;
    // Of what was read, not of what may be seen: else a reader would never get past the others' events.
    let next = next(items.last().map(|event| event.seq));
    items.retain(|event| event.session_id.map_or(grant.only.is_none(), |id| grant.may_see(id)));
    Ok(Json(Page { items, next }).into_response())
}

/// The number of a position that belongs to this database's stream.
fn admitted(
    api: &Api,
    session: Option<SessionId>,
    position: Option<Position>,
) -> Result<Option<u64>, castra_supervisor::Error> {
    if let Some(Position { seq, mark: Some(mark) }) = &position {
        api.supervisor.admit(session, *seq, mark.as_deref())?;
    }
    Ok(position.map(|position| position.seq))
}

/// A page of events is the last one only when it is empty: the next one may have been committed meanwhile.
fn next(last: Option<u64>) -> Option<String> {
    last.map(|seq| seq.to_string())
}
