//! The screen for the next daemon: what the terminal's bytes came to, kept beside the run's log.

use crate::engine::Engine;
use crate::host::RunDir;
use crate::session::actor::Actor;
use crate::terminal::{DEFAULT_SIZE, Scrollback, Terminal};
use castra_proto::RunId;
use castra_proto::shim::relay::At;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Bytes of the terminal after which its screen is kept again.
const EVERY: usize = 4 << 20;
/// A flood is not kept more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a checkpoint: scrollback and two screens.
const LIMIT: u64 = 64 << 20;

/// What was fed since the screen was kept last.
#[derive(Debug, Default)]
pub(super) struct Saved {
    bytes: usize,
    at: Option<Instant>,
}

impl Saved {
    pub(super) fn fed(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn is_due(&self) -> bool {
        self.bytes >= EVERY && self.at.is_none_or(|at| at.elapsed() >= PAUSE)
    }
}

fn place(dir: &RunDir) -> At {
    At::home(format!("{}.screen", dir.0))
}

/// The screen that a run's newest checkpoint holds, and the first record that it lacks.
async fn load(engine: &Engine, dir: &RunDir) -> Option<(Terminal, u64)> {
    let bytes = match crate::host::get(engine.host.files(), place(dir), LIMIT).await {
        Ok(bytes) => bytes?,
        Err(error) => {
            debug!(dir = dir.0, %error, "no checkpoint of the screen");
            return None;
        }
    };
    match Terminal::restore(&bytes, Scrollback::default()) {
        Ok(restored) => Some(restored),
        Err(error) => {
            warn!(dir = dir.0, %error, "a checkpoint of the screen is passed over");
            None
        }
    }
}

/// The last screen of a run that is over.
pub(crate) async fn last_screen(engine: &Arc<Engine>, dir: &RunDir) -> Option<Terminal> {
    load(engine, dir).await.map(|(terminal, _)| terminal)
}

impl Actor<'_> {
    /// The screen goes on where it is, or from its checkpoint, or anew. The first record that it lacks.
    pub(super) async fn screen_begin(&mut self) -> u64 {
        let run = RunId(self.run.id.0);
        if let Some(next) = self.hub.screen.next_of(run) {
            self.hub.screen.begin(run, None);
            return next;
        }
        let (terminal, next) = load(self.engine, &self.run.dir)
            .await
            .unwrap_or_else(|| (Terminal::new(DEFAULT_SIZE, Scrollback::default()), 1));
        self.hub.screen.begin(run, Some((terminal, next)));
        next
    }

    /// Keeps the screen if enough has come since it was kept.
    pub(crate) async fn tty_rest(&mut self) {
        if self.tty.as_ref().is_some_and(|tty| tty.saved.is_due()) {
            self.save_screen().await;
        }
    }

    /// A screen that cannot be kept costs the next daemon time, and nobody anything else.
    pub(super) async fn save_screen(&mut self) {
        let Some(tty) = &mut self.tty else { return };
        let Some(bytes) = self.hub.screen.checkpoint() else { return };
        tty.saved = Saved { bytes: 0, at: Some(Instant::now()) };
        let files = self.engine.host.files();
        if let Err(error) = crate::host::put(files, place(&self.run.dir), 0o600, false, bytes.into()).await {
            warn!(session = %self.id, %error, "the screen could not be kept");
        }
    }
}
