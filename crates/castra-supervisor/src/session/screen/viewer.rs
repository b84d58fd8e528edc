//! One viewer of a terminal: what it is sent, what it types. Leaving touches nothing else.

use super::{Hand, Phase, Screen, TypeError};
use crate::terminal::{DEFAULT_SIZE, Feed, Piece, Size, Wash};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes that a viewer is given at once.
const PIECE: usize = 64 << 10;

/// One viewer of a terminal. Leaving is dropping it, and touches nothing else.
pub struct View {
    screen: Arc<Screen>,
    id: u64,
    wake: Arc<Notify>,
    wash: Wash,
}

/// What a viewer is to do next.
enum Next {
    Send(Bytes),
    Wait,
    Over,
}

impl View {
    pub(super) fn new(screen: Arc<Screen>, id: u64, wake: Arc<Notify>) -> Self {
        Self { screen, id, wake, wash: Wash::new(false) }
    }

    /// The next bytes for this viewer's terminal: a whole screen first, then what comes, and a whole screen again
    /// whenever it was too slow or the size changed. None: the run is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let wake = Arc::clone(&self.wake);
            let woken = wake.notified();
            match self.take() {
                Next::Send(bytes) => return Some(bytes),
                Next::Over => return None,
                Next::Wait => woken.await,
            }
        }
    }

    fn take(&mut self) -> Next {
        let mut table = self.screen.table();
        let Some(viewer) = table.viewers.get_mut(&self.id) else { return Next::Over };
        if viewer.feed.is_screen_due() {
            drop(table);
            return self.paint();
        }
        let (mut live, mut len) = (Vec::new(), 0);
        while len < PIECE
            && let Some(Piece::Live(bytes)) = viewer.feed.take()
        {
            len += bytes.len();
            live.push(bytes);
        }
        let phase = table.phase;
        drop(table);
        let mut out = Vec::with_capacity(len);
        live.iter().for_each(|bytes| self.wash.feed(bytes, &mut out));
        match (out.is_empty(), live.is_empty(), phase) {
            (false, ..) => Next::Send(out.into()),
            // All of it was washed away.
            (true, false, _) => Next::Send(Bytes::new()),
            (true, true, Phase::Over) => Next::Over,
            (true, true, _) => Next::Wait,
        }
    }

    fn paint(&mut self) -> Next {
        let model = self.screen.drawn();
        let mut table = self.screen.table();
        let (pushed, over) = (table.pushed, table.phase == Phase::Over);
        let Some(viewer) = table.viewers.get_mut(&self.id) else { return Next::Over };
        let Some(terminal) = &model.terminal else { return if over { Next::Over } else { Next::Wait } };
        if pushed != model.fed {
            // What was pushed while no screen was due would be in neither.
            return Next::Wait;
        }
        viewer.feed.take();
        drop(table);
        let painted = terminal.serialise();
        drop(model);
        let mut out = Feed::ABORT.to_vec();
        self.wash = Wash::new(false);
        self.wash.feed(&painted, &mut out);
        Next::Send(out.into())
    }

    /// Keys, as a terminal sends them.
    pub fn type_bytes(&self, bytes: Bytes) -> Result<(), TypeError> {
        if !self.screen.table().seats.may_type(&self.id) {
            return Err(TypeError::ReadOnly);
        }
        self.screen.hand(Hand::Type(bytes))
    }

    /// This viewer's window has this size; 0 says nothing.
    pub fn resize(&self, rows: u16, cols: u16) {
        let changed = self.screen.table().seats.resize(&self.id, rows, cols);
        self.change(changed);
    }

    /// Wants nothing for now, or something again.
    pub fn pause(&self, paused: bool) {
        let mut table = self.screen.table();
        if let Some(viewer) = table.viewers.get_mut(&self.id) {
            viewer.feed.pause(paused);
            viewer.wake.notify_one();
        }
    }

    /// The title that claude gave, and the size that all share.
    pub fn title_and_size(&self) -> (String, Size) {
        self.screen
            .with(|terminal| (terminal.title().to_owned(), terminal.size()))
            .unwrap_or((String::new(), DEFAULT_SIZE))
    }

    /// Whether others look at this terminal too.
    pub fn is_shared(&self) -> bool {
        self.screen.table().viewers.len() > 1
    }

    /// Returns when there may be something new after [`View::next`] had nothing more. Cancel safe.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    fn change(&self, size: Option<Size>) {
        if let Some(size) = size {
            // Nobody to tell: the next run begins with it.
            let _ = self.screen.hand(Hand::Resize(size));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut table = self.screen.table();
        table.viewers.remove(&self.id);
        let changed = table.seats.leave(&self.id);
        let last = table.viewers.is_empty();
        drop(table);
        self.change(changed);
        if last {
            // Nobody to tell: there is no run.
            let _ = self.screen.hand(Hand::Left);
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.id)
    }
}
