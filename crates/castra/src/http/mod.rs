//! The HTTP surface of the daemon: routes, auth, streams, and the document of all of it. Refuses rules.
//!
//! `gate` decides whether a request gets in, `routes` call the supervisor, `server` owns connections. What an
//! operation allows is read from the OpenAPI document that the routes make, so the two cannot differ.

mod api;
mod auth;
mod body;
mod document;
mod errors_page;
mod fuzz;
mod gate;
mod listen;
mod origin;
mod query;
mod refusal;
mod routes;
mod seats;
mod server;
mod sse;
mod standing;
mod streams;
mod table;

pub use auth::Auth;
pub use document::document;
pub use errors_page::errors_markdown;
pub use fuzz::fuzz_http;
pub use listen::{ListenError, Listeners, SOCKET, bind_tcp, bind_unix};
pub use origin::UNIX_HOST;

use api::Api;
use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use body::Intake;
use castra_supervisor::Supervisor;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

/// Serves the API until `shutdown` or `POST /shutdown`. Short answers that are under way are finished, streams
/// end; sessions live on, and closing the supervisor is the caller's.
///
/// # Errors
/// When a listener is broken for good. Being out of descriptors or memory is waited out.
pub async fn serve(
    supervisor: Supervisor,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let standing = Standing::new();
    let auth: Arc<dyn Auth> = Arc::new(supervisor.clone());
    let api = Api { supervisor, standing: standing.clone() };
    let mut serving = pin!(server::run(router(api, auth.clone()), auth, listeners, standing.clone()));
    tokio::select! {
        served = &mut serving => return served,
        () = shutdown => standing.stop(),
    }
    serving.await
}

pub async fn serve(
    _supervisor: Supervisor,
    _listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    shutdown.await;
    Ok(())
}

pub async fn bind_tcp(address: SocketAddr, _insecure: bool) -> Result<TcpListener, ListenError> {
    Ok(TcpListener::bind(address).await?)
}

pub fn bind_unix(home: &Path) -> Result<UnixListener, ListenError> {
    Ok(UnixListener::bind(home.join("castra.sock"))?)
}
