//! The model of a session's terminal: bytes in, a screen out. Pure: no clock, no I/O, no task of its own.
//!
//! [`Terminal`] is fed what stream `pty` of the log holds and can say at any moment what a fresh client must be
//! fed to be where it is ([`Terminal::serialise`]); `avt` keeps the two screens, this module what `avt` does
//! not: lines that scrolled out, private modes, title, cursor style, combined characters. It answers no query:
//! what a program asks of its terminal, a viewer's terminal answers. [`Wash`] is what stands between the log
//! and viewers, [`Seats`] decides the size, [`Feed`] what a viewer is sent next.

mod checkpoint;
mod cluster;
mod feed;
mod history;
mod modes;
mod paint;
mod seats;
mod skim;
mod suspend;
#[cfg(test)]
mod tests;
mod utf8;
mod wash;

use avt::parser::{EdScope, Function, State};
use avt::{Charset, Observation, Observer, Operation, ScreenKind};

pub use checkpoint::CheckpointError;
use cluster::Clusters;
pub use feed::{Feed, Piece};
use history::History;
pub use modes::{Modes, Mouse, MouseEncoding};
pub use seats::{DEFAULT_SIZE, Role, Seats};
use skim::Skim;
pub(crate) use suspend::without_suspend;
use utf8::Utf8;
pub use wash::Wash;

/// Bytes kept of one unfinished control sequence; what is longer loses its end, not its effect on the text
/// behind it.
const MAX_PENDING: usize = 4096;
/// Notices that nobody took.
const MAX_NOTICES: usize = 8;

/// A size in cells, within what a terminal can sensibly have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

impl Size {
    /// Two columns at least, so that every character fits; 500 rows and 1000 columns at most.
    pub fn new(rows: u16, cols: u16) -> Size {
        Size { rows: rows.clamp(1, 500), cols: cols.clamp(2, 1000) }
    }
}

/// What is kept of lines that scrolled out of the primary screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrollback {
    /// Lines as they were written, however often they were wrapped.
    pub lines: u32,
    /// Their bytes, colours included.
    pub bytes: u32,
}

impl Default for Scrollback {
    fn default() -> Scrollback {
        Scrollback { lines: 10_000, bytes: 1 << 20 }
    }
}

/// One terminal. Feeding what [`Terminal::serialise`] gives to a new one of the same size makes it equal.
pub struct Terminal {
    screens: avt::Terminal,
    parser: avt::Parser,
    utf8: Utf8,
    /// The control sequence that is not finished yet, as it came.
    pending: String,
    history: History,
    clusters: Clusters,
    modes: Modes,
    notices: Vec<String>,
    size: Size,
    /// The character that the next zero-width one belongs to, as it is in its cell.
    last: Option<char>,
    insert: bool,
    skim: Skim,
}

/// Takes what scrolls out.
struct Evict<'a> {
    history: &'a mut History,
    clusters: &'a Clusters,
    skim: &'a mut Skim,
}

impl Observer for Evict<'_> {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &avt::Line) {
        self.skim.evicted += 1;
        if self.skim.stand_ins > 0 {
            self.skim.stand_ins -= 1;
            return;
        }
        self.history.push(line, self.clusters);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

impl Terminal {
    pub fn new(size: Size, scrollback: Scrollback) -> Terminal {
        let size = Size::new(size.rows, size.cols);
        let (cols, rows) = (usize::from(size.cols), usize::from(size.rows));
        // The size is clamped: the smallest terminal there is stands for an error that cannot be.
        let screens = avt::Terminal::new(cols, rows).or_else(|_| avt::Terminal::new(2, 1));
        let Ok(screens) = screens else { unreachable!("two columns and a row are a terminal") };
        Terminal {
            screens,
            parser: avt::Parser::new(),
            utf8: Utf8::default(),
            pending: String::new(),
            history: History::new(scrollback),
            clusters: Clusters::default(),
            modes: Modes::default(),
            notices: Vec::new(),
            size,
            last: None,
            insert: false,
            skim: Skim::default(),
        }
    }

    /// Takes bytes of the terminal, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut utf8 = std::mem::take(&mut self.utf8);
        utf8.feed(bytes, |text| self.text(text));
        self.utf8 = utf8;
    }

    /// Another size. The same one does nothing.
    pub fn resize(&mut self, size: Size) {
        let size = Size::new(size.rows, size.cols);
        if size == self.size {
            return;
        }
        self.size = size;
        self.last = None;
        (self.skim.fresh, self.skim.tabs) = (false, None);
        // A line that is half on the screen is laid out anew there; its other half stays as it is.
        self.history.close();
        let resize = Operation::Resize { cols: size.cols.into(), rows: size.rows.into() };
        self.execute(resize);
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn title(&self) -> &str {
        self.modes.title()
    }

    /// Modes that a program has set and that viewers' terminals must be in too.
    pub fn modes(&self) -> &Modes {
        &self.modes
    }

    pub fn is_alternate(&self) -> bool {
        self.screens.active_screen_kind() == ScreenKind::Alternate
    }

    /// Column and row from 0, and whether it is shown.
    pub fn cursor(&self) -> (u16, u16, bool) {
        let cursor = self.screens.cursor();
        (cursor.col as u16, cursor.row as u16, cursor.visible)
    }

    /// DECCKM: what arrow keys send.
    pub fn is_application_cursor(&self) -> bool {
        self.screens.cursor_key_app_mode()
    }

    /// Desktop notices (OSC 9, OSC 777) since the last call, at most eight. No part of the state.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn text(&mut self, mut text: &str) {
        // What is left when all is past that was looked at for text that only scrolls by.
        let mut looked = text.len();
        while !text.is_empty() {
            if self.skim.fresh && self.pending.is_empty() && text.len() <= looked {
                let (done, seen) = self.skim(text);
                looked = text.len() - seen;
                text = &text[done..];
            }
            if self.pending.is_empty() {
                let plain = skim::printable(text.as_bytes());
                if plain > 0 {
                    let (run, rest) = text.split_at(plain);
                    self.print_ascii(run);
                    text = rest;
                    continue;
                }
            }
            let mut chars = text.chars();
            let Some(c) = chars.next() else { return };
            text = chars.as_str();
            match c {
                '\u{a0}'.. if self.pending.is_empty() => self.print(c),
                '\u{7f}' => (),
                c => self.control(c),
            }
        }
    }

    fn print_ascii(&mut self, run: &str) {
        let (most, last) = run.split_at(run.len() - 1);
        let evict = Evict { history: &mut self.history, clusters: &self.clusters, skim: &mut self.skim };
        self.screens.execute_with(most.chars().map(Function::Print), evict);
        last.chars().for_each(|c| self.print_one(c));
    }

    fn print(&mut self, c: char) {
        let c = if cluster::is_reserved(c) { char::REPLACEMENT_CHARACTER } else { c };
        match cluster::width(c) {
            0 => self.combine(c),
            _ => self.print_one(c),
        }
    }

    fn print_one(&mut self, c: char) {
        self.skim.fresh = false;
        let (width, before) = (cluster::width(c), self.screens.cursor().col);
        self.execute(Operation::Function(Function::Print(c)));
        // Without autowrap the cursor stays, and the last column need not hold this character.
        let after = self.screens.cursor().col;
        let wrapped = before + width > usize::from(self.size.cols) && after == width;
        self.last = (after == before + width || wrapped).then_some(c);
    }

    /// The character that a mark would belong to, and its column.
    fn joint(&self) -> Option<(usize, char)> {
        let base = self.last.filter(|_| !self.insert)?;
        let cursor = self.screens.cursor();
        let col = cursor.col.checked_sub(cluster::width(base))?;
        let cell = self.screens.screen().line(cursor.row)?.cells().get(col)?;
        (cell.char() == base).then_some((col, base))
    }

    /// A mark belongs to the character before it: that one is printed again, with the mark.
    fn combine(&mut self, mark: char) {
        let Some((col, base)) = self.joint() else { return };
        let Some(combined) = self.clusters.combine(base, mark) else { return };
        self.execute(Operation::Function(Function::Cha(col as u16 + 1)));
        self.execute(Operation::Function(Function::Print(combined)));
        self.last = Some(combined);
    }

    /// Anything that is part of a control sequence, begins or ends one.
    fn control(&mut self, c: char) {
        self.skim.fresh = false;
        let begins = c == '\u{1b}' || ('\u{80}'..='\u{9f}').contains(&c);
        if matches!(c, '\u{1b}' | '\u{9c}') {
            // The end of a string; of anything else it is the abortion.
            self.finish_string();
        }
        let function = self.parser.feed(c);
        let ground = self.parser.state == State::Ground;
        if begins {
            self.pending.clear();
            if !ground {
                self.pending.push(c);
            }
        } else if matches!(c, '\u{18}' | '\u{1a}') {
            self.pending.clear();
        } else if ground {
            if !self.pending.is_empty() {
                let mut sequence = std::mem::take(&mut self.pending);
                if c != '\u{7}' {
                    sequence.push(c);
                }
                self.finished(&sequence);
                sequence.clear();
                self.pending = sequence;
            }
        } else if c >= ' ' && self.pending.len() < MAX_PENDING {
            self.pending.push(c);
            // A clipboard is nothing to keep, and nothing to repeat to whoever comes later.
            if modes::is_clipboard(&self.pending) {
                self.pending.truncate(modes::CLIPBOARD_LEN);
            }
        }
        if let Some(function) = function {
            self.run(function);
        }
    }

    fn finish_string(&mut self) {
        if matches!(self.parser.state, State::OscString) {
            let sequence = std::mem::take(&mut self.pending);
            self.finished(&sequence);
        }
    }

    /// A whole sequence without its terminator.
    fn finished(&mut self, sequence: &str) {
        let alternate = self.is_alternate();
        if let Some(notice) = self.modes.apply(sequence, alternate)
            && self.notices.len() < MAX_NOTICES
        {
            self.notices.push(notice);
        }
    }

    fn run(&mut self, function: Function) {
        self.last = None;
        let (evicted, feeds) = (self.skim.evicted, function == Function::Lf);
        match &function {
            // Viewers' terminals erase; only `avt` would scroll the screen out first.
            Function::Ed(EdScope::All) => {
                self.execute(Operation::Function(Function::Ed(EdScope::Above)));
                self.execute(Operation::Function(Function::Ed(EdScope::Below)));
                return;
            }
            Function::Ed(EdScope::SavedLines) => self.history.clear(),
            Function::Ris => {
                self.history.clear();
                self.modes = Modes::default();
                self.insert = false;
                (self.skim.drawings, self.skim.second, self.skim.tabs) = ([false; 2], false, None);
            }
            Function::Decstr => {
                self.modes.soft_reset();
                self.insert = false;
                (self.skim.drawings, self.skim.second) = ([false; 2], false);
            }
            Function::Gzd4(charset) => self.skim.drawings[0] = *charset != Charset::Ascii,
            Function::G1d4(charset) => self.skim.drawings[1] = *charset != Charset::Ascii,
            Function::So => self.skim.second = true,
            Function::Si => self.skim.second = false,
            Function::Hts | Function::Tbc(_) | Function::Ctc(_) => self.skim.tabs = None,
            Function::Sm(modes) => self.insert |= modes.as_slice().contains(&avt::parser::AnsiMode::Insert),
            Function::Rm(modes) => self.insert &= !modes.as_slice().contains(&avt::parser::AnsiMode::Insert),
            _ => (),
        }
        let leaves = matches!(&function, Function::Decrst(_) | Function::Ris);
        self.execute(Operation::Function(function));
        let cursor = self.screens.cursor();
        // The alternate screen's rows, and those of a part of the screen, are not evicted, or not from the last row.
        self.skim.fresh = feeds
            && self.skim.evicted == evicted + 1
            && (cursor.col, cursor.row + 1) == (0, usize::from(self.size.rows));
        if leaves && !self.is_alternate() {
            self.modes.left_alternate();
        }
    }

    fn execute(&mut self, operation: Operation) {
        let evict = Evict { history: &mut self.history, clusters: &self.clusters, skim: &mut self.skim };
        self.screens.execute_with(operation, evict);
    }
}
