//! `/tasks/{id}/events` and `/log`: what a task has been through, for programs and for people.

use crate::http::api::{Api, TaskTarget};
use crate::http::auth::Grant;
use crate::http::query::{Query, items, position, wants_stream};
use crate::http::refusal::{Answer, Refusal};
use crate::http::sse::{self, Feed, put_event};
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use bytes::BytesMut;
use castra_proto::api::Page;
use castra_proto::task::{Level, LogLine, TaskEvent};
use castra_proto::{ErrorCode, TaskId};
use castra_supervisor::Supervisor;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events that are read at once for a stream or a log.
const PAGE: usize = 256;
/// The stream's keep-alive asks again long before.
const WAIT: Duration = Duration::from_secs(3600);

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(task_events)).routes(routes!(task_log))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Only events with a greater `seq`.
    after: Option<u64>,
    /// `next` of the page before: the same as `after`.
    cursor: Option<u64>,
    /// Events of a page, up to 1000. Not for streams.
    #[serde(default = "items::<100>")]
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

/// Events of a task: a page, or with `Accept: text/event-stream` history and then live.
///
/// In the stream `id:` is the event's `seq`, followed by `.` and a mark where the database was restored from a
/// backup, and `Last-Event-ID` continues after it. It stays open when the task is over, since that may be resumed.
#[utoipa::path(get, path = "/tasks/{id}/events", tag = "tasks", security(("token" = ["read"])),
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "Wins over `after`. Streams only.")),
    responses((status = 200, description = "A page, or a stream of TaskEvent objects",
        content((Page<TaskEvent> = "application/json"), (String = "text/event-stream")))))]
async fn task_events(
    State(api): State<Api>,
    grant: Grant,
    TaskTarget(id): TaskTarget,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer {
    let after = query.cursor.or(query.after);
    if wants_stream(&headers) {
        let after = admitted(&api.supervisor, id, &headers, after).await?;
        let feed = TaskFeed { supervisor: api.supervisor.clone(), id, after, behind: true };
        return sse::respond(feed, api.lease(&grant));
    }
    let items = api.supervisor.task_events(id, after.unwrap_or(0), query.limit.clamp(1, 1000)).await?;
    let next = items.last().map(|event| event.seq.to_string());
    Ok(Json(Page { items, next }).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only lines with a greater `seq`.
    after: Option<u64>,
    /// `next` of the page before: the same as `after`.
    cursor: Option<u64>,
    /// Lines of a page, up to 1000.
    #[serde(default = "items::<100>")]
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
    /// The least level: `debug`, `info`, `event`, `warning`, `error`.
    #[param(default = "debug")]
    level: Option<Level>,
}

/// A task's log: its events as lines for people.
#[utoipa::path(get, path = "/tasks/{id}/log", tag = "tasks", security(("token" = ["read"])),
    params(LogQuery), responses((status = 200, description = "A page of lines", body = Page<LogLine>)))]
async fn task_log(
    State(api): State<Api>,
    TaskTarget(id): TaskTarget,
    Query(query): Query<LogQuery>,
) -> Answer<Json<Page<LogLine>>> {
    let (level, limit) = (query.level.unwrap_or(Level::Debug), query.limit.clamp(1, 1000));
    let mut after = query.cursor.or(query.after).unwrap_or(0);
    let (mut items, mut next) = (Vec::new(), None);
    while items.len() < limit {
        let events = api.supervisor.task_events(id, after, PAGE.max(limit)).await?;
        let Some(last) = events.last() else { break };
        after = last.seq;
        let room = limit - items.len();
        items.extend(events.into_iter().filter(|event| event.level >= level).take(room).map(line));
        // Of what was read: else a reader would go through the quieter lines again. A full page ends at its last line.
        next = if items.len() == limit { items.last().map(|line| line.seq) } else { Some(after) };
    }
    Ok(Json(Page { items, next: next.map(|seq| seq.to_string()) }))
}

fn line(event: TaskEvent) -> LogLine {
    LogLine { seq: event.seq, at: event.at, level: event.level, message: event.message }
}

/// Where a stream begins. The place must be one of this task's, in this database.
async fn admitted(
    supervisor: &Supervisor,
    id: TaskId,
    headers: &HeaderMap,
    after: Option<u64>,
) -> Result<u64, Refusal> {
    let Some(position) = position(headers, after)? else { return Ok(0) };
    // Sessions know how much of a stream the backup shares; a task is told anew from its sessions, so nothing does.
    let foreign = position.mark.as_ref().is_some_and(|mark| *mark != supervisor.mark());
    let seq = position.seq;
    if foreign || (seq > 0 && supervisor.task_events(id, seq - 1, 1).await?.is_empty()) {
        let detail = format!("{seq} is a place in a stream that is no more");
        return Err(Refusal::new(ErrorCode::Gone, detail).hint("begin again at 0"));
    }
    Ok(seq)
}

struct TaskFeed {
    supervisor: Supervisor,
    id: TaskId,
    after: u64,
    /// The last page was full: there may be more.
    behind: bool,
}

impl Feed for TaskFeed {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        let events = match self.supervisor.next_task_events(self.id, self.after, PAGE, WAIT).await {
            Ok(events) => events,
            Err(error) => return Some(Err(error)),
        };
        let mark = self.supervisor.mark();
        self.behind = events.len() == PAGE;
        for event in events {
            put_event(out, event.seq, mark.as_deref(), &serde_json::to_vec(&event).unwrap_or_default());
            self.after = event.seq;
        }
        Some(Ok(()))
    }

    fn is_caught_up(&self) -> bool {
        !self.behind
    }
}
