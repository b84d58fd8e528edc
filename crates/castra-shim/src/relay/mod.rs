//! One per host: starts and joins shims, does castra's file work there. Blocking; no policy.
//!
//! The daemon links it in for its own machine; `castra-shim relay` serves the same requests over a pipe.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use castra_proto::shim::relay::{RelayError, Reply, Request};

pub(crate) mod beneath;
mod exec;
mod files;
mod probe;
mod serve;
mod start;
mod tree;

pub(crate) use files::put_file;
pub use serve::serve_main;

/// Receives the lines of a running program: whether it is stderr, and the line without its newline.
pub type OnLine<'a> = &'a (dyn Fn(bool, &[u8]) + Sync);

/// A host's relay, on `$CASTRA_HOME`.
#[derive(Debug, Clone)]
pub struct Relay {
    home: PathBuf,
}

impl Relay {
    /// A relay on this home, which is made (0700) when it is not there.
    pub fn new(home: impl Into<PathBuf>) -> Result<Relay, RelayError> {
        let home = home.into();
        files::make_home(&home)?;
        Ok(Relay { home })
    }

    /// `$CASTRA_HOME` on this host.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Carries out one request; blocks as long as it takes. `cancel` ends an `exec` early.
    ///
    /// [`Request::Connect`] is not for here: see [`Relay::connect`].
    pub fn handle(
        &self,
        request: Request,
        data: &[u8],
        on_line: OnLine<'_>,
        cancel: &AtomicBool,
    ) -> Result<(Reply, Vec<u8>), RelayError> {
        let reply = match request {
            Request::Start { run, image, spec } => {
                Reply::Started(start::start(&self.home, &run, &image, &spec)?)
            }
            Request::Connect { run } => return Err(RelayError::NoShim { run }),
            Request::TreeState { run } => Reply::Tree(Box::new(tree::state(&self.home, &run)?)),
            Request::Sweep { run_id } => Reply::Swept(tree::sweep(run_id)),
            Request::Probe => Reply::Probe(Box::new(probe::probe(&self.home)?)),
            Request::Exec(exec) => Reply::Exec(exec::exec(&exec, data, on_line, cancel)?),
            other => return files::handle(&self.home, other, data),
        };
        Ok((reply, Vec::new()))
    }

    /// Dials a run's shim, through its directory's descriptor. Errors: `no_shim` when nobody listens.
    pub fn connect(&self, run: &str) -> Result<UnixStream, RelayError> {
        start::connect(&self.home, run)
    }
}
