//! The running server. Owns its socket, its connections and its counters; refuses any address but
//! loopback, and leaves nothing running behind `shutdown`.

use crate::log::{LogFile, RequestLog, Ring};
use crate::matching::Engine;
use crate::routes;
use crate::script::Script;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// Connections served at once; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 512;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0} is not a loopback address; the scripted model asks for no password and listens on no other")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("cannot open the request log {}: {source}", path.display())]
    Log { path: PathBuf, source: std::io::Error },
}

/// A running scripted model. Dropping it ends it; [`Model::shutdown`] waits until it has ended.
#[derive(Debug)]
pub struct Model {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped to stop: whoever drops a `Model` ends it, in whatever way.
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Both locks are held for a lookup or a push, never across an await.
    engine: Mutex<Engine>,
    ring: Mutex<Ring>,
    pub(crate) file: Option<LogFile>,
    pub(crate) requests: AtomicU64,
}

impl Shared {
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    /// Listens on `bind`; port 0 takes any free one. Ready when this returns.
    ///
    /// # Errors
    /// [`StartError`]: not a loopback address, or one that is taken.
    pub async fn start(script: Script, bind: SocketAddr) -> Result<Self, StartError> {
        Self::launch(script, bind, None).await
    }

    /// As [`Model::start`]; each request is also appended to `log` as a line of JSON (mode 0600).
    ///
    /// # Errors
    /// [`StartError`], also when the file cannot be opened.
    pub async fn start_logged(script: Script, bind: SocketAddr, log: &Path) -> Result<Self, StartError> {
        Self::launch(script, bind, Some(log)).await
    }

    async fn launch(script: Script, bind: SocketAddr, log: Option<&Path>) -> Result<Self, StartError> {
        if !bind.ip().to_canonical().is_loopback() {
            return Err(StartError::NotLoopback(bind));
        }
        let file = match log {
            Some(path) => {
                let opened = LogFile::open(path).await;
                Some(opened.map_err(|source| StartError::Log { path: path.to_owned(), source })?)
            }
            None => None,
        };
        let failed = |source| StartError::Bind { addr: bind, source };
        let listener = TcpListener::bind(bind).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared {
            engine: Mutex::new(Engine::new(script)),
            ring: Mutex::default(),
            file,
            requests: AtomicU64::new(0),
        });
        let server = tokio::spawn(accept(listener, routes::router(Arc::clone(&shared)), stopped));
        Ok(Self { addr, shared, stop: Some(stop), server: Some(server) })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The value for `ANTHROPIC_BASE_URL`: `http://127.0.0.1:<port>`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The newest requests, oldest first; at most [`crate::KEPT`], and [`crate::KEPT_BYTES`] of bodies.
    pub fn requests(&self) -> Vec<Arc<RequestLog>> {
        self.shared.ring().list()
    }

    /// Forgets the requests; their numbers go on.
    pub fn clear_requests(&self) {
        self.shared.ring().clear();
    }

    /// Answers by another script from the next request on. Conversations keep their call numbers.
    pub fn set_script(&self, script: Script) {
        self.shared.engine().replace(script);
    }

    /// Cuts what is being sent, closes all connections, and returns when they are closed.
    pub async fn shutdown(mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            // A panic of the accept loop was logged by tokio; the sockets are closed all the same.
            let _ended = server.await;
        }
    }
}

/// The connections live in this future's set, so that they end with it.
async fn accept(listener: TcpListener, router: axum::Router, mut stop: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // The semaphore is never closed; without a place there is no connection to take.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        tokio::select! {
            next = next => match next {
                Some((Ok((socket, _)), place)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        serve(socket, router).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or the client is gone already: neither is the end of the server.
                Some((Err(error), _)) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    connections.shutdown().await;
}

async fn serve(socket: TcpStream, router: axum::Router) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = connection.await {
        // A cut connection, ours or the client's, ends here.
        tracing::debug!(%error, "connection");
    }
}
