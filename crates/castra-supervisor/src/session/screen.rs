//! A session's terminal as its viewers share it: the model, who sits at it, what each is sent next, what they typed.
//!
//! The actor feeds it and never waits for a viewer, and viewers' bytes never wait for the model; a viewer who falls
//! behind is skipped forward to a fresh screen. What is typed goes to claude as it is, journalled by the shim: a
//! keystroke is no command and has no row.

mod viewer;

use crate::terminal::{DEFAULT_SIZE, Feed, Role, Seats, Size, Terminal, without_suspend};
use bytes::Bytes;
use castra_claude::terminal::screen::{Screen as Shown, screen as recognise};
use castra_proto::RunId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
pub use viewer::View;

/// What waits for one viewer, in bytes; then it gets a screen instead.
const BEHIND: usize = 1 << 20;
/// What was typed and not yet taken by the actor, in bytes.
const TYPED: usize = 4 << 20;
/// What the model has in front of it before it is drawn, in bytes. Of a flood most lines leave the screen within one
/// such piece, and cost a tenth.
const UNDRAWN: usize = 256 << 10;

/// Of one record: no key's echo and no frame of claude's.
const LARGE: usize = 16 << 10;

/// What the actor is to do for those who sit at the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    Type(Bytes),
    Resize(Size),
    /// The last viewer has left.
    Left,
}

/// One terminal and all who look at it.
#[derive(Default)]
pub(crate) struct Screen {
    // Std mutexes: held for the time that it takes to feed or to paint, never across an await. Whoever takes both
    // takes the model first.
    model: Mutex<Model>,
    table: Mutex<Table>,
    /// Wakes the actor: somebody typed, or the size is another one.
    pub hands: Notify,
}

#[derive(Default)]
struct Model {
    /// None: nothing was shown to this daemon yet.
    terminal: Option<Terminal>,
    run: Option<RunId>,
    /// The first record of the run that it was not fed.
    next: u64,
    /// Pieces that it was fed.
    fed: u64,
    /// The end of what it was fed, which whoever looks at it draws first.
    undrawn: Vec<u8>,
}

impl Model {
    fn new(terminal: Terminal, run: RunId, next: u64, fed: u64) -> Self {
        Self { terminal: Some(terminal), run: Some(run), next, fed, undrawn: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if bytes.len() > LARGE {
            // A flood: more will come, and is not to be moved again and again.
            self.undrawn.reserve(UNDRAWN + bytes.len() - self.undrawn.len());
        }
        self.undrawn.extend_from_slice(bytes);
        if self.undrawn.len() >= UNDRAWN {
            self.draw();
        }
    }

    fn draw(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.feed(&self.undrawn);
        }
        self.undrawn.clear();
    }
}

#[derive(Default)]
struct Table {
    phase: Phase,
    /// Pieces that viewers were given; the model has them a moment later.
    pushed: u64,
    seats: Seats<u64>,
    viewers: BTreeMap<u64, Viewer>,
    last_viewer: u64,
    hands: VecDeque<Hand>,
    typed: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No run has begun since this daemon did; one may.
    #[default]
    Before,
    Live,
    /// The newest run is over.
    Over,
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

impl Screen {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With all that it was fed drawn.
    fn drawn(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model();
        model.draw();
        model
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first record of this run that is to be fed, if the model is this run's.
    pub(crate) fn next_of(&self, run: RunId) -> Option<u64> {
        let model = self.model();
        (model.run == Some(run)).then_some(model.next)
    }

    /// A run is followed: from `terminal`, which lacks the records from `next` on, or from where the model stands.
    pub(crate) fn begin(&self, run: RunId, from: Option<(Terminal, u64)>) {
        let mut model = self.model();
        let mut table = self.table();
        if let Some((terminal, next)) = from {
            *model = Model::new(terminal, run, next, model.fed);
            table.repaint();
        }
        table.phase = Phase::Live;
        let now = model.terminal.as_ref().map_or(DEFAULT_SIZE, Terminal::size);
        if let Some(wanted) = table.seats.found(now) {
            table.hands.push_back(Hand::Resize(wanted));
            self.hands.notify_one();
        }
    }

    /// The newest run is over: its screen stays to be looked at, and nobody is sent more.
    pub(crate) fn end(&self) {
        let mut table = self.table();
        table.phase = Phase::Over;
        table.hands.clear();
        table.typed = 0;
        for viewer in table.viewers.values() {
            viewer.wake.notify_one();
        }
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.model().terminal.is_none()
    }

    /// The last screen of a run that was over before this daemon began.
    pub(crate) fn recall(&self, run: RunId, terminal: Terminal) {
        let mut model = self.model();
        if model.terminal.is_none() {
            *model = Model::new(terminal, run, u64::MAX, model.fed);
            self.table().repaint();
        }
        drop(model);
        self.end();
    }

    /// Bytes of the terminal, of record `seq`. What it was fed before is passed over.
    pub(crate) fn feed(&self, seq: u64, bytes: &Bytes) {
        if self.model().next > seq {
            return;
        }
        // Viewers first: they are to have it before the model is done with it.
        {
            let mut table = self.table();
            table.pushed += 1;
            for viewer in table.viewers.values_mut() {
                viewer.feed.push(bytes);
                viewer.wake.notify_one();
            }
        }
        {
            let mut model = self.model();
            model.fed += 1;
            model.next = seq + 1;
            model.feed(bytes);
        }
        // Who waits for a screen could not be painted one in between.
        for viewer in self.table().viewers.values().filter(|viewer| viewer.feed.is_screen_due()) {
            viewer.wake.notify_one();
        }
    }

    /// There is nothing more for now: what waits is drawn, and nothing is kept for it.
    pub(crate) fn rest(&self) {
        let mut model = self.model();
        if !model.undrawn.is_empty() {
            model.draw();
            model.undrawn = Vec::new();
        }
    }

    /// The terminal has this size from record `seq` on.
    pub(crate) fn resized(&self, seq: u64, size: Size) {
        let mut model = self.drawn();
        if model.next > seq {
            return;
        }
        model.next = seq + 1;
        // The same size again only says how late it is.
        let other = model.terminal.as_ref().is_none_or(|terminal| terminal.size() != size);
        if let Some(terminal) = model.terminal.as_mut().filter(|_| other) {
            terminal.resize(size);
        }
        let mut table = self.table();
        // Drivers who want another one have said so behind this record.
        let _ = table.seats.found(size);
        if other {
            table.repaint();
        }
    }

    /// What is to be done, oldest first.
    pub(crate) fn take_hands(&self) -> VecDeque<Hand> {
        let mut table = self.table();
        table.typed = 0;
        std::mem::take(&mut table.hands)
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&mut Terminal) -> T) -> Option<T> {
        self.drawn().terminal.as_mut().map(read)
    }

    /// What claude shows.
    pub(crate) fn look(&self) -> Shown {
        self.with(|terminal| recognise(&terminal.screen_text(), terminal.title())).unwrap_or(Shown::Unknown)
    }

    /// The model as bytes, with the number of the first record that it lacks.
    pub(crate) fn checkpoint(&self) -> Option<Vec<u8>> {
        let model = self.drawn();
        model.terminal.as_ref().map(|terminal| terminal.checkpoint(model.next))
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

    fn hand(&self, mut hand: Hand) -> Result<(), TypeError> {
        if let Hand::Type(bytes) = &mut hand {
            *bytes = without_suspend(std::mem::take(bytes));
        }
        let mut table = self.table();
        if table.phase != Phase::Live {
            return Err(TypeError::NoTerminal);
        }
        if let Hand::Type(bytes) = &hand {
            if table.typed + bytes.len() > TYPED {
                return Err(TypeError::Full);
            }
            table.typed += bytes.len();
        }
        table.hands.push_back(hand);
        drop(table);
        self.hands.notify_one();
        Ok(())
    }

    /// Types without sitting down: for programs.
    pub(crate) fn type_bytes(&self, bytes: Bytes) -> Result<(), TypeError> {
        self.hand(Hand::Type(bytes))
    }

    /// Sits down. A driver types and has a say in the size, once it has said its own.
    pub(crate) fn join(self: &Arc<Self>, role: Role) -> View {
        let mut table = self.table();
        table.last_viewer += 1;
        let id = table.last_viewer;
        let wake = Arc::new(Notify::new());
        table.viewers.insert(id, Viewer { feed: Feed::new(BEHIND), wake: Arc::clone(&wake) });
        table.seats.join(id, role);
        drop(table);
        View::new(Arc::clone(self), id, wake)
    }
}

impl Table {
    /// Everybody gets a whole screen next.
    fn repaint(&mut self) {
        for viewer in self.viewers.values_mut() {
            viewer.feed.resized();
            viewer.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Scrollback;

    fn screen() -> Arc<Screen> {
        let screen = Arc::new(Screen::default());
        screen.begin(RunId::now(), Some((Terminal::new(DEFAULT_SIZE, Scrollback::default()), 1)));
        screen
    }

    #[tokio::test]
    async fn a_viewer_gets_the_screen_and_then_what_comes() {
        let screen = screen();
        screen.feed(1, &Bytes::from_static(b"hello"));
        let mut view = screen.join(Role::Reader);
        let painted = view.next().await.unwrap();
        let mut copy = Terminal::new(DEFAULT_SIZE, Scrollback::default());
        copy.feed(&painted);
        assert_eq!(copy.screen_text()[0], "hello");
        screen.feed(1, &Bytes::from_static(b" what it has had"));
        screen.feed(2, &Bytes::from_static(b" world"));
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
        for seq in 1..=100 {
            screen.feed(seq, &chunk);
        }
        let next = slow.next().await.unwrap();
        assert!(next.starts_with(Feed::ABORT) && next.len() < BEHIND + (2 << 20), "a screen, not 6 MB of x");
    }

    #[tokio::test]
    async fn whoever_looks_sees_all_that_was_fed() {
        let screen = screen();
        let text = |screen: &Screen| screen.picture().unwrap().rows[0].clone();
        screen.feed(1, &Bytes::from_static(b"one"));
        assert_eq!(text(&screen), "one");
        screen.feed(2, &Bytes::from_static(b" two"));
        let (kept, next) = Terminal::restore(&screen.checkpoint().unwrap(), Scrollback::default()).unwrap();
        assert_eq!((kept.screen_text()[0].as_str(), next), ("one two", 3));
        screen.feed(3, &Bytes::from_static(b" three"));
        screen.resized(4, Size { rows: 10, cols: 6 });
        screen.feed(5, &Bytes::from_static(b"!"));
        let mut straight = Terminal::new(DEFAULT_SIZE, Scrollback::default());
        straight.feed(b"one two three");
        straight.resize(Size { rows: 10, cols: 6 });
        straight.feed(b"!");
        let mut view = screen.join(Role::Reader);
        let mut copy = Terminal::new(straight.size(), Scrollback::default());
        copy.feed(&view.next().await.unwrap());
        assert_eq!(copy.serialise(), straight.serialise());
        screen.feed(6, &Bytes::from(vec![b'.'; UNDRAWN]));
        screen.feed(7, &Bytes::from_static(b"\x1b[2J\x1b[Hclear"));
        screen.rest();
        assert_eq!(screen.model().undrawn.capacity(), 0);
        assert_eq!(text(&screen), "clear");
    }
}
