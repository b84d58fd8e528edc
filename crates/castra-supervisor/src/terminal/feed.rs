//! What one viewer is sent next: live bytes while it keeps up, else one fresh screen.
//!
//! A terminal is state, like a partial: who falls behind needs no history of how the screen came about.

use std::collections::VecDeque;

use bytes::Bytes;

/// The next thing for a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Live(Bytes),
    /// Send [`super::Terminal::serialise`] of the terminal as it is now, then what is pushed from now on.
    /// Through a new [`super::Wash`], and with [`Feed::ABORT`] in front of it.
    Screen,
}

/// Bytes that wait for one viewer; never more than the budget.
#[derive(Debug)]
pub struct Feed {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    budget: usize,
    /// A screen is due, and nothing before it counts.
    screen: bool,
    paused: bool,
    skips: u64,
}

impl Feed {
    /// Ends whatever control sequence a viewer was left in.
    pub const ABORT: &[u8] = b"\x18";

    /// A viewer that has just come: it gets a screen first.
    pub fn new(budget: usize) -> Feed {
        Feed { waiting: VecDeque::new(), bytes: 0, budget, screen: true, paused: false, skips: 0 }
    }

    /// Live bytes, in the order of the log. Cheap: the bytes are shared by all viewers.
    pub fn push(&mut self, bytes: &Bytes) {
        if self.screen || bytes.is_empty() {
            return;
        }
        if self.bytes + bytes.len() > self.budget {
            self.waiting = VecDeque::new();
            self.bytes = 0;
            self.screen = true;
            self.skips += 1;
            return;
        }
        self.bytes += bytes.len();
        self.waiting.push_back(bytes.clone());
    }

    /// The terminal has another size: what was drawn for the old one would be wrapped wrongly.
    pub fn resized(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
        self.screen = true;
    }

    /// What to send when the viewer can take something; `None` while there is nothing or it asked to wait.
    pub fn next(&mut self) -> Option<Piece> {
        if self.paused {
            return None;
        }
        if std::mem::take(&mut self.screen) {
            return Some(Piece::Screen);
        }
        let bytes = self.waiting.pop_front()?;
        self.bytes -= bytes.len();
        Some(Piece::Live(bytes))
    }

    /// ttyd's flow control: the viewer wants nothing, or something again.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Bytes waiting.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// How often this viewer was skipped forward.
    pub fn skips(&self) -> u64 {
        self.skips
    }
}
