//! A session's terminal as its viewers share it: the model, who sits at it, what each is sent next, what they typed.
//!
//! The actor feeds it and never waits for a viewer; a viewer who falls behind is skipped forward to a fresh screen.
//! What is typed goes to claude as it is, journalled by the shim: a keystroke is no command and has no row.

use crate::terminal::{DEFAULT_SIZE, Feed, Piece, Role, Scrollback, Seats, Size, Terminal, Wash};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What waits for one viewer, in bytes; then it gets a screen instead.
const BEHIND: usize = 1 << 20;
/// What was typed and not yet taken by the actor, in bytes.
const TYPED: usize = 4 << 20;

/// What the actor is to do for those who sit at the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    Type(Bytes),
    Resize(Size),
}

/// One terminal and all who look at it.
#[derive(Default)]
pub(crate) struct Screen {
    // Held for the time that it takes to feed or to paint; never across an await.
    shared: Mutex<Shared>,
    /// Wakes the actor: somebody typed, or the size is another one.
    pub hands: Notify,
}

#[derive(Default)]
struct Shared {
    /// None: the session has had no terminal yet.
    terminal: Option<Terminal>,
    live: bool,
    seats: Seats<u64>,
    viewers: BTreeMap<u64, Viewer>,
    last_viewer: u64,
    hands: VecDeque<Hand>,
    typed: usize,
}

struct Viewer {
    feed: Feed,
    wake: Arc<Notify>,
}

/// Why what was typed was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("this viewer only looks")]
    ReadOnly,
    #[error("the session has no terminal now")]
    NoTerminal,
    #[error("claude does not read what is typed")]
    Full,
}

/// The screen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows without blanks at their ends.
    pub rows: Vec<String>,
    /// The same with colours.
    pub ansi: String,
    pub title: String,
    pub size: Size,
    /// Column and row from 0, and whether it is shown.
    pub cursor: (u16, u16, bool),
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.id)
    }
}

impl Screen {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run on a terminal is followed from its first record.
    pub(crate) fn begin(&self) {
        let mut shared = self.shared();
        let size = shared.seats.size();
        shared.terminal = Some(Terminal::new(DEFAULT_SIZE, Scrollback::default()));
        shared.live = true;
        for viewer in shared.viewers.values_mut() {
            viewer.feed.resized();
            viewer.wake.notify_one();
        }
        if size != DEFAULT_SIZE {
            shared.hands.push_back(Hand::Resize(size));
            self.hands.notify_one();
        }
    }

    /// The run is over: the screen stays to be looked at, nobody is sent more.
    pub(crate) fn end(&self) {
        let mut shared = self.shared();
        shared.live = false;
        shared.hands.clear();
        shared.typed = 0;
        for viewer in shared.viewers.values() {
            viewer.wake.notify_one();
        }
    }

    /// Bytes of the terminal, as the log has them.
    pub(crate) fn feed(&self, bytes: &Bytes) {
        let mut shared = self.shared();
        for viewer in shared.viewers.values_mut() {
            viewer.feed.push(bytes);
            viewer.wake.notify_one();
        }
        if let Some(terminal) = &mut shared.terminal {
            terminal.feed(bytes);
        }
    }

    /// The terminal has this size from here on.
    pub(crate) fn resized(&self, size: Size) {
        let mut shared = self.shared();
        if let Some(terminal) = &mut shared.terminal {
            terminal.resize(size);
        }
        for viewer in shared.viewers.values_mut() {
            viewer.feed.resized();
            viewer.wake.notify_one();
        }
    }

    /// What is to be done, oldest first.
    pub(crate) fn take_hands(&self) -> VecDeque<Hand> {
        let mut shared = self.shared();
        shared.typed = 0;
        std::mem::take(&mut shared.hands)
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&mut Terminal) -> T) -> Option<T> {
        self.shared().terminal.as_mut().map(read)
    }

    pub(crate) fn picture(&self) -> Option<Picture> {
        self.with(|terminal| Picture {
            rows: terminal.screen_text(),
            ansi: terminal.screen_ansi(),
            title: terminal.title().to_owned(),
            size: terminal.size(),
            cursor: terminal.cursor(),
        })
    }

    fn hand(&self, hand: Hand) -> Result<(), TypeError> {
        let mut shared = self.shared();
        if !shared.live {
            return Err(TypeError::NoTerminal);
        }
        if let Hand::Type(bytes) = &hand {
            if shared.typed + bytes.len() > TYPED {
                return Err(TypeError::Full);
            }
            shared.typed += bytes.len();
        }
        shared.hands.push_back(hand);
        drop(shared);
        self.hands.notify_one();
        Ok(())
    }

    /// Types without sitting down: for programs.
    pub(crate) fn type_bytes(&self, bytes: Bytes) -> Result<(), TypeError> {
        self.hand(Hand::Type(bytes))
    }

    /// Sits down. A driver types and has a say in the size, once it has said its own.
    pub(crate) fn join(self: &Arc<Self>, role: Role) -> View {
        let mut shared = self.shared();
        shared.last_viewer += 1;
        let id = shared.last_viewer;
        let wake = Arc::new(Notify::new());
        shared.viewers.insert(id, Viewer { feed: Feed::new(BEHIND), wake: Arc::clone(&wake) });
        shared.seats.join(id, role);
        drop(shared);
        View { screen: Arc::clone(self), id, wake, wash: Wash::new(false) }
    }
}

/// One viewer of a terminal. Leaving is dropping it, and touches nothing else.
pub struct View {
    screen: Arc<Screen>,
    id: u64,
    wake: Arc<Notify>,
    wash: Wash,
}

impl View {
    /// The next bytes for this viewer's terminal: a whole screen first, then what comes, and a whole screen again
    /// whenever it was too slow or the size changed. None: the run is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let woken = Arc::clone(&self.wake);
            let woken = woken.notified();
            {
                let mut guard = self.screen.shared();
                let shared = &mut *guard;
                let viewer = shared.viewers.get_mut(&self.id)?;
                match viewer.feed.take() {
                    Some(Piece::Live(bytes)) => {
                        let mut out = Vec::with_capacity(bytes.len());
                        self.wash.feed(&bytes, &mut out);
                        if !out.is_empty() {
                            return Some(out.into());
                        }
                        continue;
                    }
                    Some(Piece::Screen) => {
                        self.wash = Wash::new(false);
                        let painted = shared.terminal.as_ref().map(Terminal::serialise).unwrap_or_default();
                        let mut out = Feed::ABORT.to_vec();
                        self.wash.feed(&painted, &mut out);
                        return Some(out.into());
                    }
                    None if !shared.live => return None,
                    None => {}
                }
            }
            woken.await;
        }
    }

    /// Keys, as a terminal sends them.
    pub fn type_bytes(&self, bytes: Bytes) -> Result<(), TypeError> {
        if !self.screen.shared().seats.may_type(&self.id) {
            return Err(TypeError::ReadOnly);
        }
        self.screen.hand(Hand::Type(bytes))
    }

    /// This viewer's window has this size; 0 says nothing.
    pub fn resize(&self, rows: u16, cols: u16) {
        let changed = self.screen.shared().seats.resize(&self.id, rows, cols);
        self.change(changed);
    }

    /// Wants nothing for now, or something again.
    pub fn pause(&self, paused: bool) {
        let mut shared = self.screen.shared();
        if let Some(viewer) = shared.viewers.get_mut(&self.id) {
            viewer.feed.pause(paused);
            viewer.wake.notify_one();
        }
    }

    /// The title that claude gave, and the size that all share: what is drawn is drawn for it.
    pub fn title_and_size(&self) -> (String, Size) {
        let shared = self.screen.shared();
        let of = shared.terminal.as_ref().map(|terminal| (terminal.title().to_owned(), terminal.size()));
        of.unwrap_or_else(|| (String::new(), shared.seats.size()))
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
        let mut shared = self.screen.shared();
        shared.viewers.remove(&self.id);
        let changed = shared.seats.leave(&self.id);
        drop(shared);
        self.change(changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen() -> Arc<Screen> {
        let screen = Arc::new(Screen::default());
        screen.begin();
        screen
    }

    #[tokio::test]
    async fn a_viewer_gets_the_screen_and_then_what_comes() {
        let screen = screen();
        screen.feed(&Bytes::from_static(b"hello"));
        let mut view = screen.join(Role::Reader);
        let painted = view.next().await.unwrap();
        let mut copy = Terminal::new(DEFAULT_SIZE, Scrollback::default());
        copy.feed(&painted);
        assert_eq!(copy.screen_text()[0], "hello");
        screen.feed(&Bytes::from_static(b" world"));
        assert_eq!(view.next().await.unwrap(), " world");
        assert_eq!(view.type_bytes("x".into()), Err(TypeError::ReadOnly));
        screen.end();
        assert_eq!(view.next().await, None);
    }

    #[tokio::test]
    async fn what_drivers_do_reaches_the_actor_in_order() {
        let screen = screen();
        let (one, two) = (screen.join(Role::Driver), screen.join(Role::Driver));
        one.resize(40, 120);
        one.type_bytes("a".into()).unwrap();
        two.resize(30, 200);
        drop(two);
        let size = |rows, cols| Hand::Resize(Size { rows, cols });
        assert_eq!(
            Vec::from(screen.take_hands()),
            [size(40, 120), Hand::Type("a".into()), size(30, 120), size(40, 120)]
        );
        screen.end();
        assert_eq!(one.type_bytes("b".into()), Err(TypeError::NoTerminal));
    }

    #[tokio::test]
    async fn a_viewer_that_stalls_costs_a_bound_and_skips_forward() {
        let screen = screen();
        let mut slow = screen.join(Role::Reader);
        slow.next().await.unwrap();
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        for _ in 0..100 {
            screen.feed(&chunk);
        }
        let next = slow.next().await.unwrap();
        assert!(next.starts_with(Feed::ABORT) && next.len() < BEHIND + (2 << 20), "a screen, not 6 MB of x");
    }
}
