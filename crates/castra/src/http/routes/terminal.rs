//! `/sessions/{id}/terminal/`: the page, its token and its WebSocket, where ttyd's client looks for them.

use crate::http::api::{Api, Target};
use crate::http::assets;
use crate::http::auth::{Admission, Grant};
use crate::http::query::{Query, flag};
use crate::http::refusal::{Answer, Refusal};
use crate::http::seats;
use crate::http::tty::{self, Opening, PLAIN, SIZED};
use axum::Extension;
use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use castra_proto::api::TerminalToken;
use castra_proto::{ErrorCode, SessionId};
use castra_supervisor::terminal::{Role, Size};
use castra_supervisor::{Supervisor, TypeError, View};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of one message: what is typed, or pasted, at once.
const MESSAGE: usize = 1 << 20;
/// Read at once.
const READ: usize = 16 << 10;
/// What proxies add to a request (RFC 9110 §7.6.3, RFC 7239, and what was before it).
const PROXIES: [&str; 3] = ["via", "forwarded", "x-forwarded-for"];
/// How often a session without a terminal is looked at, when nothing else says that it has changed.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(page)).routes(routes!(token)).routes(routes!(ws))
}

/// A session's terminal in a browser.
///
/// The same page for every session and everybody: what it shows it asks for itself, once it is signed in.
#[utoipa::path(get, path = "/sessions/{id}/terminal/", tag = "terminal", security(()),
    extensions(("x-castra-any-query" = json!(true))),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
async fn page(headers: HeaderMap) -> Response {
    assets::terminal_page(&headers)
}

/// A token for one WebSocket, good for 30 s.
#[utoipa::path(get, path = "/sessions/{id}/terminal/token", tag = "terminal", security(("token" = ["read"])),
    responses((status = 200, description = "`AuthToken` of the first message", body = TerminalToken)))]
async fn token(State(api): State<Api>, grant: Grant, Target(id): Target) -> Json<TerminalToken> {
    Json(TerminalToken { token: api.doors.terminal.issue(Admission { session: id, grant }) })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SeatQuery {
    /// Only look, whatever the token allows.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    readonly: bool,
}

/// A session's terminal as a WebSocket: ttyd's protocol, subprotocol `tty`, or `castra.tty`.
///
/// Who has the scope `approve` types, everybody else looks. Other query parameters are passed over: ttyd's client
/// puts its own settings there, and there is no command to give arguments to.
#[utoipa::path(get, path = "/sessions/{id}/terminal/ws", tag = "terminal", security(("token" = ["read"])),
    extensions(("x-castra-any-query" = json!(true)), ("x-castra-ticket" = json!(true))),
    params(SeatQuery), responses((status = 101, description = "Messages as docs/api.md has them"),
        (status = 200, description = "Never: the answer is 101")))]
async fn ws(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<SeatQuery>,
    seat: Option<Extension<seats::Seat>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|rejection| {
        Refusal::new(ErrorCode::InvalidRequest, format!("this is a WebSocket: {rejection}"))
            .status(StatusCode::UPGRADE_REQUIRED)
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
    })?;
    let role = if query.readonly { Role::Reader } else { grant.caller.seat() };
    let view = api.supervisor.terminal(id, role, &grant.caller).await?;
    let session = api.supervisor.show(id).await?;
    let upgrade = upgrade
        .protocols([SIZED, PLAIN])
        .max_message_size(MESSAGE + 1)
        .max_frame_size(MESSAGE + 1)
        .read_buffer_size(READ)
        .write_buffer_size(0);
    let sized = upgrade.selected_protocol().is_some_and(|protocol| protocol == SIZED);
    let (doors, lease) = (api.doors.clone(), api.lease(&grant));
    let admit = move |token: &str| {
        if token.is_empty() {
            // A header said who it is; a cookie alone says too little.
            return grant.cookie.is_none();
        }
        doors.terminal.redeem(token).is_some_and(|admission| {
            let own = (admission.grant.token, admission.grant.cookie) == (grant.token, grant.cookie);
            admission.session == id && own
        })
    };
    let proxied = PROXIES.iter().any(|name| headers.contains_key(*name));
    let opening = Opening { admit, title: session.name.unwrap_or_else(|| id.to_string()), sized, proxied };
    let viewer = Viewer { view, supervisor: api.supervisor, id, writable: role == Role::Driver };
    Ok(upgrade.on_upgrade(async move |socket| {
        tty::serve(socket, viewer, opening, lease).await;
        // The connection's place among all, for as long as it is open.
        drop(seat);
    }))
}

/// A place at a session's terminal.
struct Viewer {
    view: View,
    supervisor: Supervisor,
    id: SessionId,
    writable: bool,
}

impl tty::Seat for Viewer {
    async fn next(&mut self) -> Option<Bytes> {
        self.view.next().await
    }

    async fn is_over(&mut self) -> bool {
        match self.supervisor.show(self.id).await {
            Ok(session) if !session.state.is_final() => {
                // Its run is about to begin, or this daemon is about to follow it again.
                let _ = tokio::time::timeout(LOOK, self.view.changed()).await;
                false
            }
            _ => true,
        }
    }

    fn type_bytes(&self, keys: Bytes) -> Result<(), TypeError> {
        self.view.type_bytes(keys)
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.view.resize(rows, columns);
    }

    fn pause(&self, paused: bool) {
        self.view.pause(paused);
    }

    fn size(&self) -> Size {
        self.view.title_and_size().1
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_shared(&self) -> bool {
        self.view.is_shared()
    }
}
