//! What a person's terminal is to be written so that it shows a session's: its bytes as they are while both have one
//! size, else a picture of what fits. Keeps the model for that; does no I/O.
//!
//! A whole screen of the daemon's begins with a reset (RIS), which would take the person's own scrollback away. It is
//! never passed on: what was on the terminal is scrolled up, and painted below it.

use super::super::escape::visible;
use crate::client::tty::{Seat, Window};
use castra_supervisor::terminal::{Scrollback, Size, Terminal};
use memchr::memmem;

/// Saves what `LEAVE` puts back: title, and how the wheel scrolls on the alternate screen.
pub(super) const ENTER: &str = "\x1b[22;0t\x1b[?1007s";

/// Ends whatever a program may have set: a sequence, synchronised output, the alternate screen, margins, origin, colours,
/// charsets, insertion, mouse, focus and paste reports, kitty's and xterm's keyboards, keypad, cursor.
const RESET: &str = "\x18\x1b[?2026l\x1b[?1049l\x1b[!p\x1b[r\x1b[?6l\x1b[?7h\x1b[?5l\x1b[4l\x1b(B\x0f\x1b[m\
    \x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?2004l\
    \x1b[?2027l\x1b[?2031l\x1b[?2048l\x1b[<99u\x1b[=0u\x1b[>4m\x1b[?1l\x1b>\x1b[0 q\x1b[?25h";

const SYNC: &str = "\x1b[?2026h";
const SYNC_END: &str = "\x1b[?2026l";
/// A reset by the program itself, or the beginning of a whole screen.
const RIS: &[u8] = b"\x1bc";
/// Progress in a tab or a task bar, which outlives the program that shows it.
const PROGRESS: &[u8] = b"\x1b]9;4;";

/// What puts a terminal back as it was, with what it shows left above the cursor.
pub(super) fn leave(progress: bool) -> String {
    let progress = if progress { "\x1b]9;4;0;\x07" } else { "" };
    format!("{RESET}\x1b[999;1H\r\n{progress}\x1b[?1007r\x1b[23;0t")
}

pub(super) struct Stage {
    model: Terminal,
    window: Window,
    /// The terminal shows what the model does and is fed the same bytes.
    through: bool,
    /// The terminal is to be painted.
    due: bool,
    /// Nothing was painted yet.
    fresh: bool,
    /// The modes that the picture has set.
    modes: Option<String>,
    notice: Option<String>,
    /// The last byte was an ESC.
    escape: bool,
    progress: bool,
}

impl Stage {
    pub(super) fn new(window: Window) -> Self {
        Self {
            model: Terminal::new(size(window), Scrollback::default()),
            window,
            through: false,
            due: false,
            fresh: true,
            modes: None,
            notice: None,
            escape: false,
            progress: false,
        }
    }

    /// Takes the session's bytes. True: the terminal takes them as they are.
    pub(super) fn output(&mut self, bytes: &[u8]) -> bool {
        self.model.feed(bytes);
        let split = self.escape && bytes.first() == Some(&b'c');
        if split || memmem::find(bytes, RIS).is_some() {
            self.through = false;
        }
        if let Some(last) = bytes.last() {
            self.escape = *last == 0x1b;
        }
        self.progress |= memmem::find(bytes, PROGRESS).is_some();
        self.due |= !self.through;
        self.through
    }

    /// The session's terminal has this size; its bytes are drawn for it.
    pub(super) fn seat(&mut self, seat: Seat) {
        let size = Size::new(seat.rows, seat.columns);
        if size != self.model.size() {
            self.model.resize(size);
            self.stale();
        }
    }

    /// The person's window has this size.
    pub(super) fn window(&mut self, window: Window) {
        if window != self.window {
            self.window = window;
            self.stale();
        }
    }

    /// A line over the last row; none takes it away.
    pub(super) fn notice(&mut self, text: Option<&str>) {
        let text = text.map(|text| visible(text).into_owned());
        if text != self.notice {
            self.notice = text;
            self.stale();
        }
    }

    fn stale(&mut self) {
        self.through = false;
        self.due = true;
    }

    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    pub(super) fn has_progress(&self) -> bool {
        self.progress
    }

    fn fits(&self) -> bool {
        self.model.size() == size(self.window)
    }

    /// What makes the terminal show it.
    pub(super) fn paint(&mut self) -> Vec<u8> {
        self.due = false;
        let fresh = std::mem::take(&mut self.fresh);
        let mut out = Vec::new();
        if fresh {
            // What stood on the screen goes where one can scroll back to.
            out.extend_from_slice(
                format!("\x1b[m\x1b[999;1H{}", "\n".repeat(self.window.rows.into())).as_bytes(),
            );
        }
        if self.fits() && (fresh || self.notice.is_none()) {
            out.extend_from_slice(format!("{RESET}{SYNC}{}", clear(self.window)).as_bytes());
            let screen = if fresh { self.model.serialise() } else { self.model.serialise_screen() };
            out.extend_from_slice(screen.strip_prefix(RIS).unwrap_or(&screen));
            // A program's own synchronised output ends by itself.
            out.extend_from_slice(SYNC_END.as_bytes());
            self.modes = None;
            self.through = self.notice.is_none();
        }
        if !self.through {
            out.extend_from_slice(self.picture().as_bytes());
        }
        out
    }

    fn picture(&mut self) -> String {
        let mut out = String::from(SYNC);
        let modes = self.model.serialise_modes();
        if self.modes.as_ref() != Some(&modes) {
            out = format!("{RESET}{SYNC}{}{modes}", clear(self.window));
            self.modes = Some(modes);
        }
        out.push_str(&self.model.crop(size(self.window)));
        if let Some(notice) = &self.notice {
            let columns = usize::from(self.window.columns.saturating_sub(1));
            let text: String = notice.chars().take(columns).collect();
            out.push_str(&format!("\x1b7\x1b[{};1H\x1b[0;7m{text}\x1b[m\x1b[K\x1b8", self.window.rows));
        }
        out.push_str(SYNC_END);
        out
    }
}

/// Row by row: tmux and others put a screen that is erased at once into their history.
fn clear(window: Window) -> String {
    let rows: String = (1..=window.rows).map(|row| format!("\x1b[{row};1H\x1b[2K")).collect();
    format!("{rows}\x1b[H")
}

fn size(window: Window) -> Size {
    Size::new(window.rows, window.columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { rows: 4, columns: 20 };

    fn seat(rows: u16, columns: u16) -> Seat {
        Seat { rows, columns, writable: true }
    }

    /// A stage, and the terminal of the person before it, on which a shell has said something.
    struct Person {
        stage: Stage,
        terminal: Terminal,
    }

    impl Person {
        fn new() -> Self {
            let mut terminal = Terminal::new(size(WINDOW), Scrollback::default());
            terminal.feed(b"$ ls\r\na b\r\n$ castra attach");
            Self { stage: Stage::new(WINDOW), terminal }
        }

        fn output(&mut self, bytes: &str) {
            if self.stage.output(bytes.as_bytes()) {
                self.terminal.feed(bytes.as_bytes());
            }
        }

        fn paint(&mut self) {
            if self.stage.is_due() {
                self.terminal.feed(&self.stage.paint());
            }
        }

        fn rows(&self) -> Vec<String> {
            self.terminal.screen_text()
        }

        /// What the person can scroll back to: it is in front of the screen, which begins at home.
        fn history(&self) -> String {
            let all = String::from_utf8(self.terminal.serialise()).unwrap();
            all.split_once("\x1b[H").unwrap().0.replace('\r', "")
        }
    }

    #[test]
    fn bytes_go_through_behind_the_first_screen_and_nothing_of_ones_own_is_lost() {
        let mut person = Person::new();
        person.stage.seat(seat(4, 20));
        person.output("\x18\x1bcone\r\ntwo\r\nthree\r\nfour\r\nfive");
        assert!(person.stage.is_due());
        person.paint();
        assert_eq!(person.rows(), ["two", "three", "four", "five"]);
        assert!(person.stage.output(b"\r\nsix"), "through");
        person.terminal.feed(b"\r\nsix");
        assert_eq!(person.rows(), ["three", "four", "five", "six"]);
        let history = person.history();
        for line in ["$ castra attach", "one\ntwo"] {
            assert!(history.contains(line), "{line:?} in {history}");
        }
        // Skipped forward: the screen is painted anew, and what was above it stays once.
        person.output("\x18\x1bcone\r\ntwo\r\nthree\r\nfour\r\nfive\r\nsix\r\nseven");
        person.paint();
        assert_eq!(person.rows(), ["four", "five", "six", "seven"]);
        assert_eq!(person.history().matches("one").count(), 1);
    }

    #[test]
    fn a_reset_that_is_cut_in_two_is_no_reset() {
        let mut person = Person::new();
        person.output("\x18\x1bcone");
        person.paint();
        person.output("\x1b");
        person.output("ctwo");
        person.paint();
        assert_eq!(person.rows()[0], "two");
        assert!(person.history().contains("castra attach"));
    }

    #[test]
    fn another_size_is_a_picture_and_the_same_size_the_thing_itself() {
        let mut person = Person::new();
        person.stage.seat(seat(2, 30));
        person.output("\x18\x1bc\x1b[?2004h\x1b[?1049h\x1b[Hwide wide wide wide wide\r\n\x1b[1mtwo");
        person.paint();
        assert_eq!(person.rows(), ["wide wide wide wide", "two", "", ""]);
        assert!(person.terminal.modes().bracketed_paste() && !person.terminal.is_alternate());
        person.output("\x1b[Hx\x1b[?2004l");
        assert!(person.stage.is_due());
        person.paint();
        assert_eq!(person.rows()[0], "xide wide wide wide");
        assert!(!person.terminal.modes().bracketed_paste());
        person.stage.seat(seat(4, 20));
        person.output("\x18\x1bc\x1b[?1049h\x1b[Hall of it");
        person.paint();
        assert!(person.terminal.is_alternate());
        assert!(person.stage.output(b"!"), "through");
        person.stage.window(Window { rows: 6, columns: 20 });
        person.terminal.resize(Size::new(6, 20));
        person.paint();
        assert_eq!((person.rows()[0].as_str(), person.terminal.is_alternate()), ("all of it!", false));
    }

    #[test]
    fn a_notice_stands_over_the_last_row_until_it_goes() {
        let mut person = Person::new();
        person.stage.notice(Some("Ctrl-\\ leaves\x1b[2J, and says so at length"));
        person.output("\x18\x1bcone\r\ntwo\r\nthree\r\nfour\x1b[1;2H");
        person.paint();
        assert_eq!(person.rows(), ["one", "two", "three", "Ctrl-\\ leaves\\x1b[2"]);
        assert_eq!(person.terminal.cursor(), (1, 0, true));
        person.output("X");
        person.paint();
        assert_eq!(person.rows()[0], "oXe");
        person.stage.notice(None);
        person.paint();
        assert_eq!(person.rows(), ["oXe", "two", "three", "four"]);
        assert!(person.stage.output(b"Y"), "through");
    }

    #[test]
    fn what_was_set_is_taken_back() {
        let mut terminal = Terminal::new(size(WINDOW), Scrollback::default());
        let plain = |t: &Terminal| (t.serialise_modes(), t.is_alternate(), t.cursor().2);
        let before = plain(&terminal);
        terminal.feed(ENTER.as_bytes());
        terminal.feed(
            b"\x1b]0;claude\x07\x1b[?1049h\x1b[?1000h\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[?1h\x1b=\
              \x1b[>1u\x1b[>5u\x1b[>4;2m\x1b[5 q\x1b[?25l\x1b[?2026h\x1b[2;3r\x1b[?6h\x1b[4h\x1b[31m\x1b]0;half",
        );
        assert_ne!(plain(&terminal), before);
        terminal.feed(leave(true).as_bytes());
        assert_eq!(plain(&terminal), before);
        // Margins, origin, insertion and colour: what comes next is where and as it should be.
        terminal.feed(b"\x1b[H$ \x1b[Hx");
        assert_eq!(terminal.screen_ansi().lines().next(), Some("x"));
        assert!(leave(true).contains("\x1b]9;4;0") && !leave(false).contains("]9;"));
    }
}
