//! Stand-in until the HTTP surface is merged: the signatures that the wiring calls.

use castra_supervisor::Supervisor;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

pub struct Listeners {
    pub unix: UnixListener,
    pub tcp: Option<TcpListener>,
}

pub async fn serve(
    _supervisor: Supervisor,
    _listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    shutdown.await;
    Ok(())
}

pub async fn bind_tcp(address: SocketAddr, _insecure: bool) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

pub fn bind_unix(home: &Path) -> std::io::Result<UnixListener> {
    UnixListener::bind(home.join("castra.sock"))
}
