//! A small HTTP client for tests: one connection a call, every answer as it came.

use bytes::Bytes;
use castra_proto::api::Page;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::runtime::Handle;

/// Who asks, and whom. Clones are cheap; calls block.
#[derive(Clone, Debug)]
pub struct Http {
    addr: SocketAddr,
    token: String,
    pub(crate) runtime: Handle,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of an answer that must have this status.
    #[track_caller]
    pub fn expect<T: DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Status, code and detail of a refusal, which must be `application/problem+json` with a title.
    #[track_caller]
    pub fn problem(&self) -> castra_proto::Problem {
        let kind = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{} {}", self.status, self.text());
        let problem: castra_proto::Problem = self.json();
        assert_eq!((problem.status, problem.code.status()), (self.status, self.status));
        problem
    }
}

impl Http {
    pub(crate) fn new(addr: SocketAddr, token: &str, runtime: Handle) -> Self {
        Self { addr, token: token.to_owned(), runtime }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], Bytes::new())
    }

    /// All pages of a list; how many a page has is in the query, or castra's to say.
    #[track_caller]
    pub fn pages<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page: Page<T> = self.get(&format!("{path}{cursor}")).expect(200);
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("{joint}cursor={next}"),
                None => return items,
            }
        }
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, &[], Bytes::new())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, &[], body)
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.call(Method::POST, path, headers, body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::PATCH, path, &[], body.to_string().into())
    }

    /// # Panics
    /// When the daemon cannot be reached, or hangs up before the end of its answer.
    #[track_caller]
    pub fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let named = format!("{method} {path}");
        self.try_call(method, path, headers, body).unwrap_or_else(|error| panic!("{named}: {error}"))
    }

    /// The same, for daemons that may be dead.
    pub fn try_call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, String> {
        self.runtime.block_on(async {
            let response = self.open(method, path, headers, body).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        })
    }

    /// The status of an answer whose body may have no end.
    #[track_caller]
    pub fn status_of(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let response = self.runtime.block_on(self.open(method, path, headers, Bytes::new()));
        response.unwrap_or_else(|error| panic!("{path}: {error}")).status().as_u16()
    }

    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let socket = tokio::net::TcpStream::connect(self.addr).await.map_err(|error| text(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| text(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", self.addr.to_string());
        // Without one it is a browser, or a stranger.
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let mut request = request.body(Full::new(body)).map_err(|error| text(&error))?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|error| text(&error))?;
            let value: HeaderValue = value.parse().map_err(|error| text(&error))?;
            request.headers_mut().insert(name, value);
        }
        sender.send_request(request).await.map_err(|error| text(&error))
    }
}
