//! Host and Files over anything that carries requests to a relay: the same for local and remote.

use bytes::Bytes;
use castra_proto::shim::relay::{
    At, Entry, Exec, ExecEnd, Probe, RelayError, Reply, Request, Swept, TreeState,
};
use castra_proto::shim::{Meta, StartSpec};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::image::{install_image, shim_image_id};
use super::{Files, Host, HostError, Join, Progress, RunDir, ShimConn};

/// What carries requests to a relay and streams to its shims.
pub trait Channel: Send + Sync {
    /// One request to its reply. Dropping the future gives it up.
    fn call(
        &self,
        request: Request,
        data: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'_, Result<(Reply, Bytes), HostError>>;

    /// The byte stream of a run's shim.
    fn dial<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<UnixStream, HostError>>;
}

/// A host whose relay is at the other end of `C`.
pub struct RelayHost<C> {
    pub(super) channel: C,
    installed: OnceCell<()>,
}

impl<C: Channel> RelayHost<C> {
    pub(super) fn over(channel: C) -> RelayHost<C> {
        RelayHost { channel, installed: OnceCell::new() }
    }

    async fn call(&self, request: Request, data: Bytes) -> Result<(Reply, Bytes), HostError> {
        self.channel.call(request, data, None).await
    }

    async fn done(&self, request: Request, data: Bytes) -> Result<(), HostError> {
        match self.call(request, data).await? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

/// A relay of another version than ours, or a broken one.
fn unexpected(reply: &Reply) -> HostError {
    let reason = format!("unexpected reply: {reply:?}");
    HostError::Relay(RelayError::Malformed { reason })
}

impl<C: Channel> Host for RelayHost<C> {
    fn start<'a>(&'a self, run: &'a RunDir, spec: &'a StartSpec) -> BoxFuture<'a, Result<Meta, HostError>> {
        async move {
            self.installed.get_or_try_init(|| install_image(self)).await?;
            let request = Request::Start {
                run: run.0.clone(),
                image: shim_image_id().to_owned(),
                spec: Box::new(spec.clone()),
            };
            match self.call(request, Bytes::new()).await? {
                (Reply::Started(meta), _) => Ok(meta),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn connect<'a>(&'a self, run: &'a RunDir, join: Join) -> BoxFuture<'a, Result<ShimConn, HostError>> {
        async move {
            let stream = self.channel.dial(run).await?;
            Ok(ShimConn::open(stream, &join).await?)
        }
        .boxed()
    }

    fn tree_state<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<TreeState, HostError>> {
        async move {
            match self.call(Request::TreeState { run: run.0.clone() }, Bytes::new()).await? {
                (Reply::Tree(state), _) => Ok(*state),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn sweep(&self, run_id: Uuid) -> BoxFuture<'_, Result<Swept, HostError>> {
        async move {
            match self.call(Request::Sweep { run_id }, Bytes::new()).await? {
                (Reply::Swept(swept), _) => Ok(swept),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probe, HostError>> {
        async move {
            match self.call(Request::Probe, Bytes::new()).await? {
                (Reply::Probe(probe), _) => Ok(*probe),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        exec: Exec,
        stdin: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<ExecEnd, HostError>> {
        async move {
            match self.channel.call(Request::Exec(exec), stdin, progress).await? {
                (Reply::Exec(end), _) => Ok(end),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn files(&self) -> &dyn Files {
        self
    }
}

impl<C: Channel> Files for RelayHost<C> {
    fn mkdir(&self, at: At, mode: u32) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Mkdir { at, mode }, Bytes::new()).boxed()
    }

    fn put(&self, at: At, mode: u32, sync: bool, bytes: Bytes) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Put { at, mode, sync }, bytes).boxed()
    }

    fn append(&self, at: At, offset: u64, mode: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Append { at, offset, mode }, bytes).boxed()
    }

    fn get(&self, at: At, offset: u64, len: u64) -> BoxFuture<'_, Result<(Bytes, u64), HostError>> {
        async move {
            match self.call(Request::Get { at, offset, len }, Bytes::new()).await? {
                (Reply::Got { size, .. }, data) => Ok((data, size)),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn list(&self, at: At) -> BoxFuture<'_, Result<Vec<Entry>, HostError>> {
        async move {
            match self.call(Request::List { at }, Bytes::new()).await? {
                (Reply::List { entries }, _) => Ok(entries),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn stat(&self, at: At) -> BoxFuture<'_, Result<Option<Entry>, HostError>> {
        async move {
            match self.call(Request::Stat { at }, Bytes::new()).await? {
                (Reply::Stat { entry }, _) => Ok(entry),
                (other, _) => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn remove(&self, at: At) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Remove { at }, Bytes::new()).boxed()
    }

    fn copy_tree(&self, from: At, to: At) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::CopyTree { from, to }, Bytes::new()).boxed()
    }

    fn rename(&self, from: At, to: At, sync: bool) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Rename { from, to, sync }, Bytes::new()).boxed()
    }

    fn symlink(&self, at: At, target: String) -> BoxFuture<'_, Result<(), HostError>> {
        self.done(Request::Symlink { at, target }, Bytes::new()).boxed()
    }
}
