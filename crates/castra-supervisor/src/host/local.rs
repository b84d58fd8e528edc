//! This machine: the relay linked in, its blocking work on tokio's blocking threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use castra_proto::shim::relay::{Reply, Request};
use castra_shim::relay::Relay;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UnixStream;

use super::relayed::{Channel, RelayHost};
use super::{HostError, Line, Progress, RunDir};

/// The machine that the daemon runs on.
pub type LocalHost = RelayHost<Linked>;

/// The relay as a library.
pub struct Linked {
    relay: Arc<Relay>,
}

impl LocalHost {
    /// This machine, with `$CASTRA_HOME` at `home` (made 0700 when it is not there).
    pub fn new(home: impl Into<PathBuf>) -> Result<LocalHost, HostError> {
        Ok(RelayHost::over(Linked { relay: Arc::new(Relay::new(home)?) }))
    }
}

/// Tells a blocking call that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A blocking thread that panicked or never ran, because the runtime is ending.
fn lost(error: tokio::task::JoinError) -> HostError {
    HostError::Unreachable(error.to_string())
}

impl Channel for Linked {
    fn call(
        &self,
        request: Request,
        data: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'_, Result<(Reply, Bytes), HostError>> {
        let relay = Arc::clone(&self.relay);
        async move {
            let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
            let theirs = Arc::clone(&cancel.0);
            let work = move || {
                let on_line = |stderr: bool, text: &[u8]| {
                    if let Some(progress) = &progress {
                        progress(Line { stderr, text: Bytes::copy_from_slice(text) });
                    }
                };
                relay.handle(request, &data, &on_line, &theirs)
            };
            let (reply, data) = tokio::task::spawn_blocking(work).await.map_err(lost)??;
            Ok((reply, Bytes::from(data)))
        }
        .boxed()
    }

    fn dial<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<UnixStream, HostError>> {
        let (relay, run) = (Arc::clone(&self.relay), run.0.clone());
        async move {
            let stream = tokio::task::spawn_blocking(move || relay.connect(&run)).await.map_err(lost)??;
            let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
            Ok(stream.map_err(super::ConnError::from)?)
        }
        .boxed()
    }
}
