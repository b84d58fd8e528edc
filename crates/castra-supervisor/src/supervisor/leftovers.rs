//! What a daemon left undone that died right after it had committed the end of a run: a shim that waits for its
//! last acknowledgement, a log that is not compressed, a session that wants to be resumed, or removed by itself or with
//! its task. Looked for once, beside everything else.

use crate::engine::Engine;
use crate::host::{Join, RunDir};
use crate::session::finish::{afterwards, is_missing};
use crate::supervisor::lifecycle::remove_ended;
use crate::supervisor::pack::pack_run;
use crate::{Result, shown};
use castra_proto::shim::relay::At;
use castra_proto::{SessionId, Timestamp};
use castra_store::RunRow;
use std::sync::Arc;
use tracing::{debug, warn};

/// Folders of sessions that no row knows: left by a removal that was cut off, or made after the backup from which
/// the database was restored. Absolute paths.
pub(super) async fn orphans(engine: &Arc<Engine>) -> Result<Vec<String>> {
    let entries = match engine.host.files().list(At::home("sessions")).await {
        Err(error) if is_missing(&error) => Vec::new(),
        entries => entries?,
    };
    let mut orphans = Vec::new();
    for entry in entries {
        if let Ok(id) = entry.name.parse::<SessionId>()
            && engine.store.session(id).await?.is_none()
        {
            orphans.push(format!("{}/sessions/{}", engine.probe.home, entry.name));
        }
    }
    Ok(orphans)
}

/// Every ended session, the newest first.
pub(super) async fn settle(engine: Arc<Engine>) {
    match orphans(&engine).await {
        Ok(orphans) => {
            for path in orphans {
                warn!(
                    path,
                    "a session that the database does not know: removed by halves, or newer than a backup"
                );
            }
        }
        Err(error) => {
            warn!(%error, "whether there are sessions that the database does not know is not known")
        }
    }
    let ended = match engine.store.ended_before(Timestamp(i64::MAX), u32::MAX).await {
        Ok(ended) => ended,
        Err(error) => {
            warn!(%error, "what an earlier daemon left undone is not known");
            return;
        }
    };
    for session in ended.into_iter().rev() {
        if *engine.closing.borrow() {
            return;
        }
        if let Err(error) = one(&engine, session.id).await {
            warn!(session = %session.id, %error, "what an earlier daemon left undone stays so");
        }
    }
}

async fn one(engine: &Arc<Engine>, id: SessionId) -> Result<()> {
    for run in engine.store.runs(id).await? {
        if run.state.is_final() {
            dismiss(engine, id, run).await?;
        }
    }
    // Read last: whoever was faster has made it a session that lives.
    let Some(row) = engine.store.session(id).await?.filter(|row| row.state.is_final()) else { return Ok(()) };
    let (spec, view) = (engine.spec(id, &row.spec).await?, shown::view(&row)?);
    if let Some(task) = view.coordination.as_ref().map(|coordination| coordination.task)
        && engine.store.task(task).await?.is_none()
    {
        // Its task was removed.
        return remove_ended(engine, id).await;
    }
    afterwards(engine, id, &spec, &view).await
}

/// A shim ends when everything that it has logged is acknowledged.
async fn dismiss(engine: &Arc<Engine>, id: SessionId, run: RunRow) -> Result<()> {
    let dir = RunDir(run.dir);
    let state = engine.host.tree_state(&dir).await?;
    if !state.shim_alive {
        if !(state.locked || state.guard_alive) {
            pack_run(engine, id, &dir).await?;
        }
        return Ok(());
    }
    debug!(run = %run.id, "a shim waits for its last acknowledgement");
    let join = Join { run: run.id.0, epoch: engine.epoch, last: run.cursor };
    let (_, mut writer) = engine.host.connect(&dir, join).await?.split();
    writer.ack(run.cursor).await?;
    engine.packing.due(id, run.n);
    Ok(())
}
