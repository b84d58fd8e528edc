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

    /// Whether [`Feed::take`] would say [`Piece::Screen`].
    pub fn is_screen_due(&self) -> bool {
        self.screen && !self.paused
    }

    /// What to send when the viewer can take something; `None` while there is nothing or it asked to wait.
    pub fn take(&mut self) -> Option<Piece> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::{Scrollback, Size, Terminal, Wash};

    fn live(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_screen_first_then_live_bytes_in_order() {
        let mut feed = Feed::new(100);
        feed.push(&live("before"));
        assert_eq!((feed.take(), feed.take()), (Some(Piece::Screen), None));
        feed.push(&live("one"));
        feed.push(&live("two"));
        assert_eq!(feed.waiting(), 6);
        feed.pause(true);
        assert_eq!(feed.take(), None);
        feed.pause(false);
        let got = [feed.take(), feed.take(), feed.take()];
        assert_eq!(got, [Some(Piece::Live(live("one"))), Some(Piece::Live(live("two"))), None]);
        feed.push(&live("wrapped for the old size"));
        feed.resized();
        assert_eq!((feed.take(), feed.take()), (Some(Piece::Screen), None));
    }

    #[test]
    fn who_stalls_costs_a_budget_and_gets_one_screen() {
        let mut feed = Feed::new(10);
        assert_eq!(feed.take(), Some(Piece::Screen));
        for _ in 0..1000 {
            feed.push(&live("four"));
            assert!(feed.waiting() <= 10);
        }
        assert_eq!((feed.take(), feed.take(), feed.skips()), (Some(Piece::Screen), None, 1));
        feed.push(&live("more than the budget"));
        assert_eq!((feed.take(), feed.skips()), (Some(Piece::Screen), 2));
    }

    /// The whole of it: viewers of any pace end with the same screen.
    #[test]
    fn slow_and_fast_viewers_see_the_same_in_the_end() {
        let size = Size { rows: 6, cols: 20 };
        let shown =
            |terminal: &Terminal| (terminal.screen_text(), terminal.cursor(), terminal.title().to_owned());
        for pace in [1usize, 3, 50, 1000] {
            let mut model = Terminal::new(size, Scrollback::default());
            let mut viewer = Terminal::new(size, Scrollback::default());
            let (mut feed, mut wash) = (Feed::new(200), Wash::new(false));
            let mut take = |feed: &mut Feed, model: &Terminal, viewer: &mut Terminal| {
                let mut out = Vec::new();
                match feed.take() {
                    None => return false,
                    Some(Piece::Live(bytes)) => wash.feed(&bytes, &mut out),
                    Some(Piece::Screen) => {
                        out.extend_from_slice(Feed::ABORT);
                        wash = Wash::new(false);
                        wash.feed(&model.serialise(), &mut out);
                    }
                }
                viewer.feed(&out);
                true
            };
            for n in 0..1000u32 {
                // Cut in the middle of sequences and characters.
                let text = format!(
                    "\x1b[{};{}H\x1b[3{}mé界 {n}\x1b]0;t{n}\x07\x1b]52;c;QUJD\x07\r\n",
                    n % 7,
                    n % 23,
                    n % 8
                );
                for part in text.as_bytes().chunks(5) {
                    let part = Bytes::copy_from_slice(part);
                    model.feed(&part);
                    feed.push(&part);
                }
                if (n as usize).is_multiple_of(pace) {
                    take(&mut feed, &model, &mut viewer);
                }
            }
            while take(&mut feed, &model, &mut viewer) {}
            assert_eq!(shown(&viewer), shown(&model), "pace {pace}, {} skips", feed.skips());
        }
    }
}
