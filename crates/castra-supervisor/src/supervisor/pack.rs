//! Logs of runs that are over are compressed, one at a time and after everything else. Refuses runs whose shim is
//! there: it serves followers from the files as it wrote them.

use crate::Result;
use crate::engine::Engine;
use crate::host::{self, RunDir};
use crate::session::finish::run_dir;
use castra_proto::SessionId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

/// Runs that wait to be compressed; what does not fit is found when the next daemon starts.
const WAITING: usize = 1024;
/// A shim leaves within moments of its last acknowledgement.
const LEAVING: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;

/// What waits, and the lock that keeps compression and removal out of each other's way.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    waiting: Mutex<BTreeSet<(SessionId, u32)>>,
    more: Notify,
    /// Held while files of a log are changed: a removal must not find a folder that fills again.
    pub files: tokio::sync::Mutex<()>,
}

impl Packing {
    /// This run is over.
    pub(crate) fn due(&self, id: SessionId, run: u32) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.insert((id, run));
            self.more.notify_one();
        }
    }

    fn next(&self) -> Option<(SessionId, u32)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

/// Compresses what is due, for as long as the supervisor lives.
pub(super) async fn keep(engine: Arc<Engine>) {
    let mut closing = engine.closing.subscribe();
    let work = async {
        loop {
            engine.packing.more.notified().await;
            while let Some((id, run)) = engine.packing.next() {
                if let Err(error) = wait_and_pack(&engine, id, run).await {
                    warn!(session = %id, run, %error, "the log of a run that is over stays as it is");
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        // Wherever it stands: the next daemon does it again.
        _ = wait_closed(&mut closing) => {}
    }
}

async fn wait_closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn wait_and_pack(engine: &Arc<Engine>, id: SessionId, run: u32) -> Result<()> {
    let dir = run_dir(id, run);
    for _ in 0..LOOKS {
        let state = engine.host.tree_state(&dir).await?;
        if !(state.locked || state.shim_alive || state.guard_alive) {
            return pack_run(engine, id, &dir).await;
        }
        tokio::time::sleep(LEAVING).await;
    }
    debug!(session = %id, run, "a shim stays longer than its run; its log is compressed later");
    Ok(())
}

/// Compresses the log of a run that is over and whose shim has left.
pub(super) async fn pack_run(engine: &Arc<Engine>, id: SessionId, dir: &RunDir) -> Result<()> {
    loop {
        let _files = engine.packing.files.lock().await;
        // Removed meanwhile: there is nothing to keep.
        if engine.store.session(id).await?.is_none() {
            return Ok(());
        }
        match host::pack(engine.host.files(), dir).await? {
            Some(packed) => debug!(session = %id, dir = dir.0, ?packed, "compressed a segment"),
            None => return Ok(()),
        }
    }
}
