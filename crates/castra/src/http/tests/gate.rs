//! The gate over every route of the document, so that routes which are added later are covered.
//!
//! Behind it is no supervisor: a handler that is reached panics, and that is how the tests know it was.

use super::*;
use crate::http::assets;
use crate::http::auth::Peer;
use crate::http::table::{Entry, Operation, Takes};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use castra_proto::api::{Scope, Token};
use castra_proto::{Problem, SessionId, Timestamp, TokenId};
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use std::sync::LazyLock;

/// A state without a supervisor.
#[derive(Clone)]
pub(super) struct Nowhere;

impl FromRef<Nowhere> for Api {
    fn from_ref(_: &Nowhere) -> Self {
        panic!("a handler was reached")
    }
}

pub(super) const MINE: SessionId = SessionId(uuid::Uuid::from_u128(1));
const OTHER: SessionId = SessionId(uuid::Uuid::from_u128(2));

/// Secrets are `SCOPE`, or `SCOPE@mine` and `SCOPE@other` when bound. Every process is `agent`'s.
pub(super) struct Secrets {
    pub(super) agent: Option<SessionId>,
}

impl Auth for Secrets {
    fn authenticate<'a>(
        &'a self,
        secret: &'a str,
    ) -> BoxFuture<'a, castra_supervisor::Result<Option<Token>>> {
        let (scope, bound) =
            secret.split_once('@').map_or((secret, None), |(scope, bound)| (scope, Some(bound)));
        let session_id = bound.map(|bound| if bound == "mine" { MINE } else { OTHER });
        let token = Scope::parse(scope).map(|scope| Token {
            id: TokenId::now(),
            name: None,
            scope,
            session_id,
            created_at: Timestamp(0),
            expires_at: None,
        });
        Box::pin(async { Ok(token) })
    }

    fn session_of_pid(&self, _: i32) -> std::io::Result<Option<SessionId>> {
        Ok(self.agent)
    }
}

pub(super) const TCP: Peer =
    Peer::Tcp { local: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000) };

pub(super) static DOORS: LazyLock<Doors> = LazyLock::new(Doors::new);

/// The router as it is served, but for the supervisor.
fn whole() -> Router {
    static ROUTER: LazyLock<Router> =
        LazyLock::new(|| router(Nowhere, Arc::new(Secrets { agent: None }), DOORS.clone()));
    ROUTER.clone()
}

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Reached,
    Answered(u16, Option<String>),
}

impl Outcome {
    pub(super) fn refused(status: u16, code: &str) -> Self {
        Self::Answered(status, Some(code.into()))
    }

    /// Past the gate: in a handler, or answered by one that needs no supervisor.
    pub(super) fn passed(&self) -> bool {
        matches!(self, Self::Reached | Self::Answered(200, None))
    }
}

pub(super) struct Call(pub(super) Request<Body>);

impl Call {
    pub(super) fn new(peer: Peer, method: &str, path: &str) -> Self {
        let host = if matches!(peer, Peer::Tcp { .. }) { "127.0.0.1:7000" } else { UNIX_HOST };
        let request = Request::builder().method(method).uri(path).header("host", host).extension(peer);
        Self(request.body(Body::empty()).unwrap())
    }

    fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// In place of what was there.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.0.headers_mut().insert(name, value.parse().unwrap());
        self
    }

    pub(super) async fn outcome(self) -> Outcome {
        let name = format!("{} {}", self.0.method(), self.0.uri());
        let head = self.0.method() == Method::HEAD;
        let response = tokio::spawn(TowerToHyperService::new(whole()).call(self.0)).await;
        let Ok(Ok(response)) = response else { return Outcome::Reached };
        let headers = response.headers();
        let expected = [
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ];
        let open = response.status() == 200 && (name.contains("/terminal/") || name.contains("/assets/"));
        for (header, value) in expected.into_iter().skip(if open { 2 } else { 0 }) {
            assert_eq!(headers.get(header).unwrap(), value, "{name}");
        }
        assert!(headers.keys().all(|header| !header.as_str().starts_with("access-control")), "{name}");
        let status = response.status();
        if status.is_success() || head {
            return Outcome::Answered(status.as_u16(), None);
        }
        assert_eq!(headers["content-type"], "application/problem+json", "{name}");
        assert_eq!(headers.contains_key("www-authenticate"), status == StatusCode::UNAUTHORIZED, "{name}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.status, status.as_u16(), "{name}");
        Outcome::Answered(problem.status, Some(problem.code.to_string()))
    }
}

/// A path of this kind.
fn concrete(path: &str) -> String {
    let part = |part: &str| match part {
        "{version}" if path.contains("/assets/") => assets::VERSION.clone(),
        "{file}" => "terminal.css".into(),
        _ if part.starts_with('{') => "1234".into(),
        _ => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Every operation that asks for a token.
pub(super) fn closed() -> Vec<(String, String, Operation)> {
    operations().into_iter().filter(|(_, _, of)| of.entry != Entry::Open).collect()
}

/// Every operation: method, a path of its kind, and what it allows.
fn operations() -> Vec<(String, String, Operation)> {
    let table = Table::of_document(document());
    let all: Vec<_> = table
        .iter()
        .map(|(method, path, operation)| (method.into(), concrete(path), operation.clone()))
        .collect();
    assert!(all.len() > 35, "{}", all.len());
    all
}

#[tokio::test]
async fn no_route_answers_without_a_token() {
    for (method, path, _) in closed() {
        let call = || Call::new(TCP, &method, &path);
        assert_eq!(call().outcome().await, Outcome::refused(401, "unauthorized"), "{method} {path}");
        for header in ["Bearer nobody", "Basic admin", "Bearer", "admin"] {
            let outcome = call().header("authorization", header).outcome().await;
            assert_eq!(outcome, Outcome::refused(401, "unauthorized"), "{method} {path} {header}");
        }
        // Nor by a token in the URL, where logs and histories keep it.
        let outcome =
            Call::new(TCP, &method, &format!("{path}?token=admin&access_token=admin")).outcome().await;
        assert_eq!(outcome, Outcome::refused(401, "unauthorized"), "{method} {path}");
    }
    for path in ["/", "/api/v1", "/api/v1/nothing", "/metrics/"] {
        assert_eq!(
            Call::new(TCP, "GET", path).outcome().await,
            Outcome::refused(401, "unauthorized"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_no_more() {
    for (method, path, operation) in operations() {
        for scope in Scope::ALL {
            let outcome = Call::new(TCP, &method, &path).token(scope.as_str()).outcome().await;
            if scope < operation.scope {
                assert_eq!(outcome, Outcome::refused(403, "forbidden"), "{method} {path} {scope:?}");
            } else {
                assert!(outcome.passed(), "{method} {path} {scope:?}: {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_bound_token_is_refused_wherever_others_are_seen() {
    for (method, path, operation) in operations() {
        let outcome = Call::new(TCP, &method, &path).token("admin@mine").outcome().await;
        if operation.bound {
            assert!(outcome.passed(), "{method} {path}: {outcome:?}");
        } else {
            assert_eq!(outcome, Outcome::refused(403, "forbidden"), "{method} {path}");
        }
    }
    let of_all = |path: &str| !path.contains("1234") && !path.contains("/assets/");
    let bound: Vec<_> = operations().into_iter().filter(|(_, path, of)| of.bound && of_all(path)).collect();
    let names: Vec<_> = bound.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let expected = [
        "GET /api/v1/events",
        "GET /api/v1/openapi.json",
        "GET /api/v1/sessions",
        "POST /api/v1/sign-in",
        "POST /api/v1/sign-in/tickets",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn no_route_answers_for_another_host_or_a_foreign_page() {
    for (method, path, _) in operations() {
        let call = || Call::new(TCP, &method, &path).token("admin");
        for host in ["evil.tld:7000", "localhost:7001", "castra", "127.0.0.1:7000.evil.tld"] {
            let outcome = call().header("host", host).outcome().await;
            assert_eq!(outcome, Outcome::refused(421, "forbidden"), "{method} {path} {host}");
        }
        for origin in ["null", "http://evil.tld", "http://localhost:5173", "https://127.0.0.1:7000"] {
            let outcome = call().header("origin", origin).outcome().await;
            assert_eq!(outcome, Outcome::refused(403, "forbidden"), "{method} {path} {origin}");
        }
        let outcome = call().header("sec-fetch-site", "cross-site").outcome().await;
        assert_eq!(outcome, Outcome::refused(403, "forbidden"), "{method} {path}");
        let own = call().header("origin", "http://127.0.0.1:7000").header("sec-fetch-site", "same-origin");
        assert!(own.outcome().await.passed(), "{method} {path}");
    }
}

#[tokio::test]
async fn every_body_must_be_of_its_type_and_size() {
    for (method, path, operation) in operations() {
        let call = || Call::new(TCP, &method, &path).token("admin");
        let (right, wrong) = match operation.takes {
            Takes::Json => ("application/json", "application/octet-stream"),
            Takes::Octets => ("application/octet-stream", "application/json"),
        };
        let refused = Outcome::refused(415, "invalid_request");
        for media in [
            wrong,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "application/jsonp",
        ] {
            let outcome = call().header("content-length", "2").header("content-type", media).outcome().await;
            assert_eq!(outcome, refused, "{method} {path} {media}");
        }
        assert_eq!(call().header("content-length", "2").outcome().await, refused, "{method} {path}");
        assert_eq!(call().header("transfer-encoding", "chunked").outcome().await, refused, "{method} {path}");
        let typed = || call().header("content-type", &format!("{right}; charset=utf-8"));
        assert!(typed().header("content-length", "2").outcome().await.passed(), "{method} {path}");
        let fits = typed().header("content-length", &operation.limit.to_string()).outcome().await;
        assert!(fits.passed(), "{method} {path}: {fits:?}");
        let larger = typed().header("content-length", &(operation.limit + 1).to_string()).outcome().await;
        assert_eq!(larger, Outcome::refused(413, "too_large"), "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_by_name() {
    let (any, named): (Vec<_>, Vec<_>) = operations().into_iter().partition(|(_, _, of)| of.any_query);
    let any: Vec<_> = any.into_iter().map(|(_, path, _)| path).collect();
    // Where ttyd's client passes on the query of its page.
    assert_eq!(any, ["/api/v1/sessions/1234/terminal/", "/api/v1/sessions/1234/terminal/ws"]);
    for (method, path, operation) in named {
        for query in ["wiat=3", "limit=1&wiat", "%77ait=3", "cursor[]=1"] {
            let known =
                query.split('&').all(|pair| operation.query.contains(pair.split('=').next().unwrap()));
            assert!(!known);
            let outcome = Call::new(TCP, &method, &format!("{path}?{query}")).token("admin").outcome().await;
            assert_eq!(outcome, Outcome::refused(400, "unknown_field"), "{method} {path}?{query}");
        }
        let all: Vec<_> = operation.query.iter().map(|name| format!("{name}=1")).collect();
        let outcome =
            Call::new(TCP, &method, &format!("{path}?{}", all.join("&"))).token("admin").outcome().await;
        assert!(outcome.passed(), "{method} {path} {all:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_is_not_in_the_document_is_not_reachable() {
    for (path, methods) in document()["paths"].as_object().unwrap() {
        let path = concrete(path);
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let documented = if method == "HEAD" { "get".into() } else { method.to_lowercase() };
            let outcome = Call::new(TCP, method, &path).token("admin").outcome().await;
            if methods.get(&documented).is_some() {
                assert!(outcome.passed(), "{method} {path}: {outcome:?}");
            } else if method == "HEAD" {
                assert_eq!(outcome, Outcome::Answered(405, None), "{path}");
            } else {
                assert_eq!(outcome, Outcome::refused(405, "invalid_request"), "{method} {path}");
            }
        }
    }
    for path in [
        "/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/sessions",
        "/api/v1/sessions/",
        "/api/v1/sessions/a/b/c",
        "//healthz",
    ] {
        let outcome = Call::new(TCP, "GET", path).token("admin").outcome().await;
        assert_eq!(outcome, Outcome::refused(404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn a_request_of_nobody_is_refused() {
    let mut call = Call::new(TCP, "GET", "/healthz").token("admin");
    call.0.extensions_mut().remove::<Peer>();
    assert_eq!(call.outcome().await, Outcome::refused(403, "forbidden"));
}

#[tokio::test]
async fn over_the_socket_the_owner_needs_no_token_and_an_agent_its_own() {
    let owner = Peer::Unix { agent: None };
    let agent = Peer::Unix { agent: Some(MINE) };
    for (method, path, operation) in closed() {
        let call = |peer| Call::new(peer, &method, &path);
        assert!(call(owner).outcome().await.passed(), "{method} {path}");
        // A token is judged by itself: less than the owner may.
        let unknown = call(owner).token("nobody").outcome().await;
        assert_eq!(unknown, Outcome::refused(401, "unauthorized"), "{method} {path}");
        let read = call(owner).token("read").outcome().await;
        assert_eq!(read.passed(), operation.scope == Scope::Read, "{method} {path}");

        let forbidden = Outcome::refused(403, "forbidden");
        assert_eq!(call(agent).outcome().await, forbidden, "{method} {path}");
        for token in ["admin", "read", "admin@other"] {
            assert_eq!(call(agent).token(token).outcome().await, forbidden, "{method} {path} {token}");
        }
        // Its own token, and never more than to drive: an agent does not answer its own requests.
        let own = call(agent).token("admin@mine").outcome().await;
        assert_eq!(
            own.passed(),
            operation.bound && operation.scope <= Scope::Drive,
            "{method} {path}: {own:?}"
        );
    }
}

#[tokio::test]
async fn open_to_all_is_what_is_the_same_for_all() {
    let open: Vec<_> = operations().into_iter().filter(|(_, _, of)| of.entry == Entry::Open).collect();
    let names: Vec<_> = open.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let file = format!("GET /api/v1/assets/{}/terminal.css", *assets::VERSION);
    let page = "GET /api/v1/sessions/1234/terminal/";
    assert_eq!(names, [file.as_str(), page, "POST /api/v1/sign-in"]);
    for (method, path, _) in open {
        assert!(Call::new(TCP, &method, &path).outcome().await.passed(), "{method} {path}");
        let foreign = Call::new(TCP, &method, &path).header("origin", "http://localhost:5173");
        assert_eq!(foreign.outcome().await, Outcome::refused(403, "forbidden"), "{method} {path}");
    }
    let response = TowerToHyperService::new(whole()).call(Call::new(TCP, "GET", &page[4..]).0).await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for part in ["default-src 'none'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let request = Call::new(TCP, "GET", "/api/v1/openapi.json").token("read@mine").0;
    let response = TowerToHyperService::new(whole()).call(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), *document());
}

/// The daemon may run it on any thread.
#[allow(dead_code, reason = "checked by the compiler")]
fn serving_is_send(supervisor: Supervisor, listeners: Listeners) {
    fn is_send(_: impl Send) {}
    is_send(serve(supervisor, listeners, async {}));
}
