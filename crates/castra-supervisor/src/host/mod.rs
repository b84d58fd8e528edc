//! The one trait through which the daemon reaches a machine: start and join runs, files, programs.
//!
//! [`LocalHost`] links the relay in; [`PipeHost`] speaks to the same code over a child's stdin and
//! stdout. One contract suite (`tests/host_contract.rs`) runs on both.

use std::sync::Arc;

use bytes::Bytes;
use castra_proto::shim::relay::{At, Entry, Exec, ExecEnd, Probe, RelayError, Swept, TreeState};
use castra_proto::shim::{Meta, StartSpec};
use futures::future::BoxFuture;
use thiserror::Error;
use uuid::Uuid;

mod conn;
mod files;
mod image;
mod local;
mod log;
mod pack;
mod peer;
mod pipe;
mod relayed;

pub use conn::{ConnError, Join, Record, ShimConn, ShimMsg, ShimReader, ShimWriter};
pub use files::{get, put};
pub use image::{install_image, shim_image, shim_image_id};
pub use local::LocalHost;
pub use log::{LogReadError, LogReader};
pub use pack::{NotPacked, Packed, pack};
pub use peer::session_of_pid;
pub use pipe::PipeHost;
pub use relayed::RelayHost;

/// A run's directory below `$CASTRA_HOME` on its host: `sessions/<id>/runs/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunDir(pub String);

impl RunDir {
    /// The place of run `run` of a session (design §7).
    pub fn new(session_id: &str, run: u64) -> RunDir {
        RunDir(format!("sessions/{session_id}/runs/{run}"))
    }
}

/// One line of a running program, without its newline; `stderr` says which pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub stderr: bool,
    pub text: Bytes,
}

/// Called for each line. Blocking it blocks the program's output, never the daemon.
pub type Progress = Arc<dyn Fn(Line) + Send + Sync>;

/// Why a host did not do it.
#[derive(Debug, Error)]
pub enum HostError {
    /// The relay answered, with a reason.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The relay did not answer: the link is down. Says nothing about the run.
    #[error("host is not reachable: {0}")]
    Unreachable(String),
    /// The shim's side of a connection misbehaved.
    #[error(transparent)]
    Conn(#[from] ConnError),
}

/// What castra needs of a machine. Every method may be called at any time and from any task.
pub trait Host: Send + Sync {
    /// Makes the run directory and starts a shim there. Returns when claude has been executed.
    fn start<'a>(&'a self, run: &'a RunDir, spec: &'a StartSpec) -> BoxFuture<'a, Result<Meta, HostError>>;

    /// Joins a run's shim and says hello.
    ///
    /// Errors: [`RelayError::NoShim`] when nobody listens; [`ConnError::Refused`] when fenced.
    fn connect<'a>(&'a self, run: &'a RunDir, join: Join) -> BoxFuture<'a, Result<ShimConn, HostError>>;

    /// Who is left of a run, and what proves it.
    fn tree_state<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<TreeState, HostError>>;

    /// Kills what carries the run's id in its environment.
    fn sweep(&self, run_id: Uuid) -> BoxFuture<'_, Result<Swept, HostError>>;

    /// The machine's identity and means.
    fn probe(&self) -> BoxFuture<'_, Result<Probe, HostError>>;

    /// Runs a program to its end. Dropping the future kills it.
    fn exec<'a>(
        &'a self,
        exec: Exec,
        stdin: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<ExecEnd, HostError>>;

    /// File work on that machine, beneath a root.
    fn files(&self) -> &dyn Files;
}

/// Files beneath a root, following no links (design §11). Sizes are bytes.
pub trait Files: Send + Sync {
    /// Makes a directory and its parents.
    fn mkdir(&self, at: At, mode: u32) -> BoxFuture<'_, Result<(), HostError>>;
    /// Replaces a file of at most 1 MiB: temp file, rename. [`put`] takes any length.
    fn put(&self, at: At, mode: u32, sync: bool, bytes: Bytes) -> BoxFuture<'_, Result<(), HostError>>;
    /// Writes at `offset`; offset 0 makes the file anew.
    fn append(&self, at: At, offset: u64, mode: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), HostError>>;
    /// Up to 1 MiB from `offset`, and the whole file's size. [`get`] takes any length.
    fn get(&self, at: At, offset: u64, len: u64) -> BoxFuture<'_, Result<(Bytes, u64), HostError>>;
    fn list(&self, at: At) -> BoxFuture<'_, Result<Vec<Entry>, HostError>>;
    /// `None` when there is nothing.
    fn stat(&self, at: At) -> BoxFuture<'_, Result<Option<Entry>, HostError>>;
    /// Removes a file or a tree; nothing there is fine.
    fn remove(&self, at: At) -> BoxFuture<'_, Result<(), HostError>>;
    /// Copies a tree to a place where nothing is.
    fn copy_tree(&self, from: At, to: At) -> BoxFuture<'_, Result<(), HostError>>;
    /// Replaces `to`.
    fn rename(&self, from: At, to: At, sync: bool) -> BoxFuture<'_, Result<(), HostError>>;
    /// Makes or replaces a link; castra's own only.
    fn symlink(&self, at: At, target: String) -> BoxFuture<'_, Result<(), HostError>>;
}
