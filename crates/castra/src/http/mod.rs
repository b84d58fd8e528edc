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

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen: {0}")]
    Io(#[from] std::io::Error),
}

impl ListenError {
    pub fn hint(&self) -> Option<String> {
        None
    }
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
