//! The routes of the Messages API and of the request log. Owns statuses and headers; decisions are made by
//! `matching`, `side` and `reply`.

use crate::body;
use crate::frames::Frames;
use crate::log::{RequestLog, kept_body, masked};
use crate::matching::Choice;
use crate::message::{Block, Ids, Message, Text};
use crate::reply::{ApiError, Incident, Pace, kind_of};
use crate::request::{Body as RequestBody, Facts};
use crate::script::Script;
use crate::server::Shared;
use crate::side::{self, Side, SideAnswer};
use crate::template::Scene;
use crate::wire::{Form, error_object};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// The limit of the real API, answered 413 beyond.
/// Source: Anthropic's API reference, "Request size limits".
const MAX_BODY: usize = 32 * 1024 * 1024;

/// One handler sees every request, so that none is answered without being logged.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(any).with_state(shared)
}

/// What is sent back, before it is bytes.
struct Answer {
    status: u16,
    delay: Duration,
    what: What,
}

enum What {
    Empty,
    Json(Value),
    Refuse(ApiError),
    Message { message: Message, form: Form, pace: Option<Pace>, incidents: Vec<Incident> },
}

impl Answer {
    fn json(value: Value) -> Self {
        Self { status: 200, delay: Duration::ZERO, what: What::Json(value) }
    }

    fn refuse(status: u16, message: impl Into<String>) -> Self {
        let kind = kind_of(status).to_owned();
        Self::error(ApiError { status, kind, message: message.into(), retry_after: None })
    }

    fn error(error: ApiError) -> Self {
        Self { status: error.status, delay: Duration::ZERO, what: What::Refuse(error) }
    }
}

async fn any(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !is_local(&parts.headers) {
        // A web page may send a browser here under a name of its own (DNS rebinding).
        return respond(Answer::refuse(403, "only for loopback names"), request_id(0)).await;
    }
    let path = parts.uri.path().to_owned();
    if path == "/_castra/requests" {
        let answer = own_route(&shared, parts.method.as_str());
        return respond(answer, request_id(0)).await;
    }
    let n = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut entry = RequestLog {
        n,
        at_ms: now_ms(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(|| path.clone(), ToString::to_string),
        headers: masked(&parts.headers),
        status: 0,
        rule: None,
        side: None,
        conversation: String::new(),
        call: 0,
        model: None,
        stream: false,
        messages: 0,
        last_user: None,
        tool_results: Vec::new(),
        body_bytes: 0,
        body: None,
    };
    let mut ids = request_id(n);
    let answer = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(bytes) => {
            entry.body_bytes = bytes.len();
            entry.body = kept_body(&bytes);
            route(&shared, &parts.method, &path, &parts.headers, &bytes, &mut entry, &mut ids)
        }
        Err(_) => Answer::refuse(413, "Request exceeds the maximum size"),
    };
    entry.status = answer.status;
    let entry = Arc::new(entry);
    shared.ring().push(Arc::clone(&entry));
    if let Some(file) = &shared.file
        && let Err(error) = file.append(&entry).await
    {
        tracing::warn!(%error, "the request log cannot be written");
    }
    respond(answer, ids).await
}

fn own_route(shared: &Shared, method: &str) -> Answer {
    match method {
        "GET" => {
            let items = shared.ring().list();
            // Entries are plain data; a failure to serialize one would be a defect, and is shown as such.
            match serde_json::to_value(items.iter().map(|entry| &**entry).collect::<Vec<_>>()) {
                Ok(items) => Answer::json(json!({"items": items, "next": null})),
                Err(error) => Answer::refuse(500, error.to_string()),
            }
        }
        "DELETE" => {
            shared.ring().clear();
            Answer { status: 204, delay: Duration::ZERO, what: What::Empty }
        }
        _ => Answer::refuse(405, "GET or DELETE"),
    }
}

fn route(
    shared: &Shared,
    method: &axum::http::Method,
    path: &str,
    headers: &HeaderMap,
    bytes: &Bytes,
    entry: &mut RequestLog,
    ids: &mut Ids,
) -> Answer {
    let script = shared.engine().script().clone();
    match (method.as_str(), path) {
        // The CLI opens its connection by this before it has anything to say.
        ("HEAD" | "GET", "/") => return Answer { status: 200, delay: Duration::ZERO, what: What::Empty },
        _ if !path.starts_with("/v1/") => return Answer::refuse(404, "Not found"),
        _ if !accepted(&script, headers) => return Answer::refuse(401, "invalid x-api-key"),
        _ => {}
    }
    match (method.as_str(), path) {
        ("POST", "/v1/messages") => messages(shared, headers, bytes, entry, ids),
        ("POST", "/v1/messages/count_tokens") => count_tokens(bytes, entry),
        ("GET", "/v1/models") => models(&script),
        (_, "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models") => {
            Answer::refuse(405, "Method Not Allowed")
        }
        ("GET", path) => match path.strip_prefix("/v1/models/") {
            Some(id) if script.models().iter().any(|known| known == id) => Answer::json(model(id)),
            Some(id) => Answer::refuse(404, format!("model: {id}")),
            None => Answer::refuse(404, "Not found"),
        },
        _ => Answer::refuse(404, "Not found"),
    }
}

fn messages(
    shared: &Shared,
    headers: &HeaderMap,
    bytes: &Bytes,
    entry: &mut RequestLog,
    ids: &mut Ids,
) -> Answer {
    let session = headers.get("x-claude-code-session-id").and_then(|value| value.to_str().ok());
    let read = RequestBody::parse(bytes).and_then(|body| {
        let facts = Facts::read(&body, bytes.len(), session)?;
        Ok((body, facts))
    });
    let (body, facts) = match read {
        Ok(read) => read,
        Err(error) => return Answer::refuse(400, error.to_string()),
    };
    let (choice, script) = {
        let mut engine = shared.engine();
        (engine.choose(&facts), engine.script().clone())
    };
    let Choice { rule, call, tool_result, captures } = choice;
    // The number of messages keeps ids apart when a conversation goes on with a new server.
    let seed = if facts.side.is_some() { entry.n } else { call };
    let seed = format!("{} {} {seed} {:?}", facts.conversation, facts.messages, facts.side);
    *ids = Ids(Uuid::new_v5(&script.digest(), seed.as_bytes()));
    let rule = rule.and_then(|n| script.rules().get(n));
    entry.rule = rule.map(|rule| rule.name.clone());
    entry.side = facts.side.map(|side| side.name().to_owned());
    entry.conversation.clone_from(&facts.conversation);
    entry.call = call;
    entry.model = Some(facts.model.clone());
    entry.stream = facts.stream;
    entry.messages = facts.messages;
    entry.last_user.clone_from(&facts.last_user);
    entry.tool_results.clone_from(&facts.tool_results);
    let form = if facts.stream { Form::Events } else { Form::Object };
    match (rule, facts.side) {
        (Some(rule), _) => {
            let reply = &rule.reply;
            if let Some(error) = &reply.error {
                return Answer { delay: reply.start_delay, ..Answer::error(error.clone()) };
            }
            let scene = Scene { facts: &facts, tool_result, captures: &captures, call };
            let message = reply.render(&scene, ids);
            let incidents = reply.incidents.clone();
            Answer {
                status: 200,
                delay: reply.start_delay,
                what: What::Message { message, form, pace: reply.pace, incidents },
            }
        }
        (None, Some(side)) => side_answer(side, &body, &facts, ids, form),
        (None, None) => Answer::refuse(400, unmatched(&facts)),
    }
}

/// The API's 400 is not retried by the CLI, so that a hole in a script shows at once.
fn unmatched(facts: &Facts) -> String {
    let last = match (facts.fresh_user, facts.tool_results.last()) {
        (true, _) => format!("the user text {:?}", facts.last_user.as_deref().unwrap_or_default()),
        (false, Some(result)) => {
            format!("a result of {}: {:?}", result.tool.as_deref().unwrap_or("?"), result.text)
        }
        (false, None) => "a request without a new user text".to_owned(),
    };
    let shown: String = last.chars().take(300).collect();
    format!("castra-model: no rule of the script matches {shown}")
}

fn side_answer(side: Side, body: &RequestBody, facts: &Facts, ids: &Ids, form: Form) -> Answer {
    let block = match side::answer(side, body, facts) {
        SideAnswer::Text(text) => Block::Text(Text::once(text)),
        SideAnswer::ToolUse { name, input } => {
            Block::ToolUse { id: ids.message().replacen("msg", "toolu", 1), name, input }
        }
    };
    let message = Message::new(ids, facts.model.clone(), vec![block], facts.input_tokens);
    let what = What::Message { message, form, pace: None, incidents: Vec::new() };
    Answer { status: 200, delay: Duration::ZERO, what }
}

fn count_tokens(bytes: &Bytes, entry: &mut RequestLog) -> Answer {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(body) => {
            entry.model = body.get("model").and_then(Value::as_str).map(str::to_owned);
            entry.messages = body.get("messages").and_then(Value::as_array).map_or(0, Vec::len);
            Answer::json(json!({"input_tokens": (bytes.len() / 4).max(1)}))
        }
        Err(error) => Answer::refuse(400, format!("The request body is not valid JSON: {error}")),
    }
}

fn model(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
}

fn models(script: &Script) -> Answer {
    let ids = script.models();
    Answer::json(json!({
        "data": ids.iter().map(|id| model(id)).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": ids.first(),
        "last_id": ids.last(),
    }))
}

fn accepted(script: &Script, headers: &HeaderMap) -> bool {
    let Some(keys) = script.keys() else { return true };
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = value("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    [value("x-api-key"), bearer].into_iter().flatten().any(|given| keys.iter().any(|key| key == given))
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

async fn respond(answer: Answer, ids: Ids) -> Response {
    let Answer { status, delay, what } = answer;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("request-id", &ids.request());
    let body = match what {
        What::Empty => Body::empty(),
        What::Json(value) => {
            set("content-type", "application/json");
            Body::from(value.to_string())
        }
        What::Refuse(error) => {
            set("content-type", "application/json");
            if let Some(seconds) = error.retry_after {
                set("retry-after", &seconds.to_string());
            }
            Body::from(error_object(&error, &ids.request()))
        }
        What::Message { message, form, pace, incidents } => {
            match form {
                Form::Events => {
                    set("content-type", "text/event-stream; charset=utf-8");
                    set("cache-control", "no-cache");
                }
                Form::Object => set("content-type", "application/json"),
            }
            let frames = Frames::new(message, form, pace, incidents);
            Body::from_stream(body::stream(frames))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

fn request_id(n: u64) -> Ids {
    Ids(Uuid::new_v5(&Uuid::NAMESPACE_OID, n.to_string().as_bytes()))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
