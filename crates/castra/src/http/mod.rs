//! Stand-in until the HTTP surface is merged: the signatures that the wiring calls.

use castra_supervisor::Supervisor;
use std::future::Future;
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

pub async fn serve(_supervisor: Supervisor, _listeners: Listeners, shutdown: impl Future<Output = ()>) {
    shutdown.await;
}

pub fn bind_tcp(address: &str, _insecure: bool) -> Result<TcpListener, ListenError> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

pub fn bind_unix(home: &Path) -> Result<UnixListener, ListenError> {
    Ok(UnixListener::bind(home.join("castra.sock"))?)
}
