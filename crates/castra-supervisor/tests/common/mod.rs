//! This machine, told that its programs or its user's HOME are others.

use bytes::Bytes;
use castra_proto::shim::relay::{Exec, ExecEnd, Probe, Swept, TreeState};
use castra_proto::shim::{Meta, StartSpec};
use castra_supervisor::host::{Files, Host, HostError, Join, LocalHost, Progress, RunDir, ShimConn};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

pub(crate) struct Machine {
    pub(crate) local: LocalHost,
    /// Changes what the probe says.
    pub(crate) told: Box<dyn Fn(&mut Probe) + Send + Sync>,
}

impl Host for Machine {
    fn start<'a>(&'a self, run: &'a RunDir, spec: &'a StartSpec) -> BoxFuture<'a, Result<Meta, HostError>> {
        self.local.start(run, spec)
    }

    fn connect<'a>(&'a self, run: &'a RunDir, join: Join) -> BoxFuture<'a, Result<ShimConn, HostError>> {
        self.local.connect(run, join)
    }

    fn tree_state<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<TreeState, HostError>> {
        self.local.tree_state(run)
    }

    fn sweep(&self, run_id: Uuid) -> BoxFuture<'_, Result<Swept, HostError>> {
        self.local.sweep(run_id)
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probe, HostError>> {
        async move {
            let mut probe = self.local.probe().await?;
            (self.told)(&mut probe);
            Ok(probe)
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        exec: Exec,
        stdin: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<ExecEnd, HostError>> {
        self.local.exec(exec, stdin, progress)
    }

    fn files(&self) -> &dyn Files {
        self.local.files()
    }
}
