//! Talks to a daemon: HTTP over its Unix socket, or over TCP with a token. Typed calls are in `api`, `tasks` and `teams`, event
//! streams in `follow`, a terminal in `tty`. Refuses to print and to decide what a failure means for a person.

pub mod api;
mod follow;
mod hooks;
mod plans;
mod sse;
mod tasks;
mod teams;
pub mod tty;

pub use follow::{Follow, Item, Partial};
pub use sse::{SseFrame, SseParser, TooLarge};

use bytes::Bytes;
use castra_proto::Problem;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon refused, in its own words.
    #[error("{0}")]
    Refused(Box<Problem>),
    #[error("no daemon answers at {target}")]
    NotRunning { target: String, source: std::io::Error },
    /// The connection ended before the answer did.
    #[error("the connection to {target} was lost")]
    Lost { target: String, source: hyper::Error },
    #[error("{target} answered {status} in words that castra does not know: {detail}")]
    Answer { target: String, status: StatusCode, detail: String },
    #[error("CASTRA_URL must be http://HOST:PORT, not `{0}`")]
    Url(String),
    #[error("`{0}` cannot be sent as a header")]
    Header(&'static str),
    #[error("cannot encode the request")]
    Encode(#[source] serde_json::Error),
    /// Bringing the daemon back failed; told by whoever tried.
    #[error("{0}")]
    Recover(String),
}

impl Error {
    /// The daemon was not there, or went away: trying again may help.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Lost { .. })
    }

    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `castra.sock` in this folder.
    Home(PathBuf),
    /// Plain HTTP: `HOST:PORT`.
    Url(String),
}

impl Target {
    /// `http://HOST:PORT`, from CASTRA_URL.
    pub fn url(url: &str) -> Result<Self, Error> {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match authority {
            Some(authority) if !authority.is_empty() && !authority.contains(['/', '@', ' ', '?', '#']) => {
                let port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Self::Url(if port { authority.to_owned() } else { format!("{authority}:80") }))
            }
            _ => Err(Error::Url(url.into())),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Home(home) => write!(f, "{}", home.join("castra.sock").display()),
            Self::Url(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// Called when the daemon is gone in the middle of something; returns when it may be back.
pub type Recover = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// A cheap handle. Each call is a connection of its own: nothing to repair after a daemon restart.
#[derive(Clone)]
pub struct Client {
    target: Target,
    token: Option<Arc<str>>,
    recover: Option<Recover>,
}

/// How long calls that may be repeated are repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request before it is sent; repeated as it is.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    body: Bytes,
    headers: HeaderMap,
    /// Repeating it changes nothing more: a GET, or a request with a key.
    repeatable: bool,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let repeatable = method == Method::GET;
        Self { method, path: path.into(), body: Bytes::new(), headers: HeaderMap::new(), repeatable }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn json(mut self, body: &impl serde::Serialize) -> Result<Self, Error> {
        self.body = serde_json::to_vec(body).map_err(Error::Encode)?.into();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }

    pub(crate) fn bytes(mut self, body: Bytes) -> Self {
        self.body = body;
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self
    }

    /// `Idempotency-Key`: the call may be repeated now.
    pub(crate) fn key(self, key: &str) -> Result<Self, Error> {
        let mut call = self.header(HeaderName::from_static("idempotency-key"), key)?;
        call.repeatable = true;
        Ok(call)
    }

    pub(crate) fn accept(mut self, what: &'static str) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static(what));
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(value).map_err(|_| Error::Header("Idempotency-Key"))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    fn constant(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// A value as one segment of a path, or in a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self { target, token: None, recover: None }
    }

    /// Needed over TCP; over the Unix socket only by an agent, whose token names its session.
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(Arc::from);
        self
    }

    /// What to do when the daemon is gone between two tries.
    pub fn with_recovery(mut self, recover: Recover) -> Self {
        self.recover = Some(recover);
        self
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) async fn recover(&self) -> Result<(), Error> {
        match &self.recover {
            Some(recover) => recover().await,
            None => Ok(()),
        }
    }

    /// One try: the answer's head has been read when this returns.
    pub(crate) async fn once(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let not_running = |source| Error::NotRunning { target: self.target.to_string(), source };
        match &self.target {
            Target::Home(home) => {
                let stream = connect_unix(home).await.map_err(not_running)?;
                self.exchange(stream, call, "castra").await
            }
            Target::Url(authority) => {
                let stream = TcpStream::connect(authority.as_str()).await.map_err(not_running)?;
                // Keys are small and must not wait for each other's acknowledgement.
                stream.set_nodelay(true).map_err(not_running)?;
                self.exchange(stream, call, authority).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S, call: &Call, host: &str) -> Result<Response<Incoming>, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let lost = |source| Error::Lost { target: self.target.to_string(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Ends when the answer has been read or dropped; its errors come out of the body.
        tokio::spawn(connection.with_upgrades());
        let mut request = hyper::Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().map_err(|_| Error::Url(call.path.clone()))?;
        *request.headers_mut() = call.headers.clone();
        let host = HeaderValue::from_str(host).map_err(|_| Error::Header("Host"))?;
        request.headers_mut().insert(HOST, host);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::Header("CASTRA_TOKEN"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        sender.send_request(request).await.map_err(lost)
    }

    /// A successful answer; a call that may be repeated survives the daemon's restart.
    pub(crate) async fn answer(&self, call: Call) -> Result<Response<Incoming>, Error> {
        let began = Instant::now();
        loop {
            let failure = match self.once(&call).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => self.refusal(response).await,
                Err(error) => error,
            };
            // A daemon that was not there has not seen the call, whatever its method.
            let again = matches!(failure, Error::NotRunning { .. }) || call.repeatable;
            if !(failure.is_connection() && again) || began.elapsed() > PATIENCE || self.recover.is_none() {
                return Err(failure);
            }
            self.recover().await?;
        }
    }

    fn lost(&self, source: hyper::Error) -> Error {
        Error::Lost { target: self.target.to_string(), source }
    }

    async fn refusal(&self, response: Response<Incoming>) -> Error {
        let status = response.status();
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(source) => return Error::Lost { target: self.target.to_string(), source },
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Error::Refused(Box::new(problem)),
            Err(_) => {
                let detail = String::from_utf8_lossy(&body).chars().take(200).collect();
                Error::Answer { target: self.target.to_string(), status, detail }
            }
        }
    }

    /// The whole answer. One that breaks off is asked for again where that changes nothing.
    pub(crate) async fn body(&self, call: Call) -> Result<(StatusCode, Bytes), Error> {
        let began = Instant::now();
        loop {
            let response = self.answer(call.clone()).await?;
            let status = response.status();
            match response.into_body().collect().await {
                Ok(body) => return Ok((status, body.to_bytes())),
                Err(source) => {
                    let lost = Error::Lost { target: self.target.to_string(), source };
                    if !call.repeatable || self.recover.is_none() || began.elapsed() > PATIENCE {
                        return Err(lost);
                    }
                    self.recover().await?;
                }
            }
        }
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let (status, body) = self.body(call).await?;
        // 204 reads as `null`.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| Error::Answer {
            target: self.target.to_string(),
            status,
            detail: error.to_string(),
        })
    }
}

/// The socket through its folder's descriptor: a path in `sun_path` may have 108 bytes, folders have more.
pub(crate) async fn connect_unix(home: &Path) -> std::io::Result<UnixStream> {
    use rustix::fs::{Mode, OFlags};
    let folder = rustix::fs::open(home, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/castra.sock", folder.as_raw_fd())).await
}

#[cfg(test)]
mod tests;
