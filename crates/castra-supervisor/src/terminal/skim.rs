//! Text that only scrolls by: of a flood, lines that come and leave within one piece go to the history without ever
//! being cells, which costs a tenth. Refuses whatever could move, keep or cover anything: that goes the long way.
//!
//! Where it may be done: the last thing was a line feed that scrolled the whole primary screen, and what follows is lines
//! no longer than a row, of text, colours and tabs. The last of them, a screen full, are left for the long way, so that
//! every row of the screen is one that `avt` has drawn.

use avt::{Operation, Pen, parser::Function};

use super::cluster::{is_reserved, width};
use super::history::Open;
use super::{Terminal, paint};

/// Transitions between pens that are remembered; a flood has few.
const MAX_PENS: usize = 64;
/// Bytes of a sequence that sets colours; what is longer goes the long way.
const MAX_SGR: usize = 64;

/// What is known only to pass text over.
#[derive(Default)]
pub(super) struct Skim {
    /// The last thing was a line feed that scrolled a blank row into the whole primary screen.
    pub(super) fresh: bool,
    /// Rows that left the screen.
    pub(super) evicted: u64,
    /// Rows that are to leave and stand for lines that were skimmed.
    pub(super) stand_ins: usize,
    /// G0 and G1 hold line drawings, and whether G1 is the one that holds.
    pub(super) drawings: [bool; 2],
    pub(super) second: bool,
    /// None: to be asked for.
    pub(super) tabs: Option<Vec<usize>>,
    pens: Pens,
}

/// One step of text that only scrolls by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Printable ASCII.
    Text(&'a str),
    /// Any other character that has a cell or two of its own.
    Char(char),
    Tab,
    Colour(&'a str),
    /// To the end of the row.
    Erase,
    Line,
}

/// The first token and its length; none at the end, at what is not whole, and at anything else.
fn token(text: &str) -> Option<(Token<'_>, usize)> {
    let bytes = text.as_bytes();
    match *bytes.first()? {
        0x20..0x7f => {
            let len = printable(bytes);
            Some((Token::Text(&text[..len]), len))
        }
        b'\t' => Some((Token::Tab, 1)),
        b'\r' => {
            let returns = bytes.iter().take_while(|b| **b == b'\r').count();
            (bytes.get(returns) == Some(&b'\n')).then_some((Token::Line, returns + 1))
        }
        0x1b => {
            let rest = bytes.strip_prefix(b"\x1b[")?;
            let most = &rest[..rest.len().min(MAX_SGR)];
            let end = most.iter().position(|b| !matches!(b, b'0'..=b';'))?;
            let whole = &text[..2 + end + 1];
            match (rest[end], &rest[..end]) {
                (b'm', _) => Some((Token::Colour(whole), whole.len())),
                (b'K', b"" | b"0") => Some((Token::Erase, whole.len())),
                _ => None,
            }
        }
        0xc2.. => {
            let c = text.chars().next()?;
            (c >= '\u{a0}' && width(c) > 0 && !is_reserved(c)).then_some((Token::Char(c), c.len_utf8()))
        }
        _ => None,
    }
}

/// Length of the printable ASCII at the front.
pub(super) fn printable(bytes: &[u8]) -> usize {
    const WIDE: usize = 32;
    let is = |b: &u8| (0x20..0x7f).contains(b);
    // Whole pieces without a branch for each byte.
    let whole = |piece: &[u8; WIDE]| piece.iter().fold(true, |all, b| all & is(b));
    let len = WIDE * bytes.as_chunks::<WIDE>().0.iter().take_while(|piece| whole(piece)).count();
    len + bytes[len..].iter().take_while(|b| is(b)).count()
}

/// The column that a tab leads to.
fn tab(tabs: &[usize], col: usize, cols: usize) -> usize {
    tabs.iter().copied().find(|stop| *stop > col).unwrap_or(cols - 1)
}

impl Terminal {
    /// Passes over what only scrolls by at the front of `text`: how much that was, and how much was looked at.
    pub(super) fn skim(&mut self, text: &str) -> (usize, usize) {
        let (rows, cols) = (usize::from(self.size.rows), usize::from(self.size.cols));
        let keep = rows - 1;
        if keep == 0 || self.insert || self.skim.drawings[usize::from(self.skim.second)] {
            return (0, 0);
        }
        let Some(pen) = self.screens.screen().line(keep).and_then(|row| Some(*row.cells().first()?.pen()))
        else {
            return (0, 0);
        };
        let tabs = self.tabs(cols);
        let (mut ends, looked) = lines(text, cols, &tabs);
        // Scrolling the screen out costs as much as the lines that it has.
        if ends.len() > 3 * keep && !paint::is_visible(&pen) {
            ends.truncate(ends.len() - keep);
            let (done, pen, lines) =
                self.written(&text[..ends.last().copied().unwrap_or(0)], pen, cols, &tabs);
            self.skim.tabs = Some(tabs);
            if lines.len() > 2 * keep {
                self.pass(pen, lines, keep);
                return (done, looked);
            }
            return (0, looked);
        }
        self.skim.tabs = Some(tabs);
        (0, looked)
    }

    /// The lines as the history has them, up to one that leaves something to be seen behind its end; how long they
    /// are, and the pen that holds then.
    fn written(
        &mut self,
        text: &str,
        mut pen: Pen,
        cols: usize,
        tabs: &[usize],
    ) -> (usize, Pen, Vec<String>) {
        let (mut lines, mut open, mut col, mut at) = (Vec::new(), Open::default(), 0, 0);
        let mut done = (0, pen);
        while let Some((token, len)) = token(&text[at..]) {
            at += len;
            match token {
                Token::Text(text) => {
                    col += text.len();
                    open.write_text(text, &pen, &self.clusters);
                }
                Token::Char(c) => {
                    col += width(c);
                    open.write(c, &pen, &self.clusters);
                }
                Token::Tab => {
                    let to = tab(tabs, col, cols);
                    open.skip(to - col);
                    col = to;
                }
                Token::Colour(sequence) => pen = self.skim.pens.behind(pen, sequence),
                Token::Erase | Token::Line if paint::is_visible(&pen) => break,
                Token::Erase => {}
                Token::Line => {
                    lines.push(open.take_line());
                    (col, done) = (0, (at, pen));
                }
            }
        }
        (done.0, done.1, lines)
    }

    /// The screen scrolls out, the lines follow it, and the screen is as if they had been on it.
    fn pass(&mut self, pen: Pen, lines: Vec<String>, keep: usize) {
        let mut colours = String::new();
        paint::pen(&pen, &mut colours);
        colours.chars().for_each(|c| self.control(c));
        // The last row is blank: the first of the lines would have been there.
        for _ in 0..keep {
            self.execute(Operation::Function(Function::Lf));
        }
        lines.into_iter().for_each(|line| self.history.add(line));
        self.skim.stand_ins = keep;
        self.skim.fresh = true;
    }

    /// Where tabs lead. The cursor is in the first column, and stays there.
    fn tabs(&mut self, cols: usize) -> Vec<usize> {
        self.skim.tabs.take().unwrap_or_else(|| {
            let mut stops = Vec::new();
            while stops.last().is_none_or(|last| last + 1 < cols) {
                self.execute(Operation::Function(Function::Ht));
                stops.push(self.screens.cursor().col);
            }
            self.execute(Operation::Function(Function::Cr));
            stops
        })
    }
}

/// The ends of the lines at the front that only scroll by, and where the first thing is that does not.
fn lines(text: &str, cols: usize, tabs: &[usize]) -> (Vec<usize>, usize) {
    let (mut ends, mut at, mut col) = (Vec::new(), 0, 0);
    while let Some((token, len)) = token(&text[at..]) {
        match token {
            Token::Text(text) => col += text.len(),
            Token::Char(c) => col += width(c),
            // The cursor is behind the last column, and would go back into it; or, without autowrap, is in it.
            Token::Tab | Token::Erase if col >= cols => break,
            Token::Tab => col = tab(tabs, col, cols),
            Token::Colour(_) | Token::Erase => {}
            Token::Line => col = 0,
        }
        at += len;
        if col > cols {
            break;
        }
        if token == Token::Line {
            ends.push(at);
        }
    }
    (ends, at)
}

/// What a pen becomes by a sequence, as `avt` has it.
#[derive(Default)]
struct Pens(Vec<(Pen, String, Pen)>);

impl Pens {
    fn behind(&mut self, pen: Pen, sequence: &str) -> Pen {
        let known = self.0.iter().find(|(before, by, _)| *before == pen && by == sequence);
        if let Some((_, _, behind)) = known {
            return *behind;
        }
        let behind = Self::ask(pen, sequence);
        if self.0.len() == MAX_PENS {
            self.0.clear();
        }
        self.0.push((pen, sequence.to_owned(), behind));
        behind
    }

    fn ask(pen: Pen, sequence: &str) -> Pen {
        let mut text = String::new();
        paint::pen(&pen, &mut text);
        let Ok(mut scratch) = avt::Terminal::new(2, 1) else { return pen };
        scratch.feed(format!("{text}{sequence} ").as_str());
        let cell = scratch.screen().line(0).and_then(|row| row.cells().first());
        cell.map_or(pen, |cell| *cell.pen())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::terminal::{Scrollback, Size, Terminal};

    /// All that the two ways could make different, to the byte.
    fn facts(t: &Terminal) -> impl PartialEq + std::fmt::Debug + use<> {
        let history = (t.history.lines().map(str::to_owned).collect::<Vec<_>>(), t.history.open(&t.clusters));
        (
            history,
            t.screens.dump(),
            t.screen_ansi(),
            t.cursor(),
            t.last,
            t.skim.stand_ins,
            t.title().to_owned(),
        )
    }

    /// In one piece, and so that nothing can be passed over; how many rows the second drew that the first did not.
    fn both(size: Size, parts: &[String]) -> u64 {
        let new = || Terminal::new(size, Scrollback { lines: 300, bytes: 5000 });
        let (mut fast, mut slow) = (new(), new());
        for part in parts {
            fast.feed(part.as_bytes());
            part.as_bytes().chunks(1).for_each(|byte| slow.feed(byte));
            assert_eq!(facts(&fast), facts(&slow), "{size:?} {parts:?}");
            assert_eq!(fast.serialise(), slow.serialise(), "{size:?} {parts:?}");
        }
        slow.skim.evicted - fast.skim.evicted
    }

    #[test]
    fn a_flood_is_passed_over_and_looks_the_same() {
        let size = Size { rows: 5, cols: 40 };
        let line = |n: usize| match n % 7 {
            0 => format!("\x1b[32mok\x1b[0m {n}   \r\n"),
            1 => format!("\x1b[1;38;5;200m  bold\tand {n}\x1b[K\r\n"),
            2 => "\r\n".to_owned(),
            3 => format!("{}\r\r\n", "x".repeat(40)),
            4 => format!("é界│ {n}\x1b[m\r\n"),
            5 => "\x1b[4munder line \x1b[24m\x1b[38;2;1;2;3m rgb\r\n".to_owned(),
            _ => " \t \x1b[38:2::9:8:7mx\x1b[0;2;3;9m y\x1b[m\r\n".to_owned(),
        };
        let flood: String = (0..500).map(line).collect();
        let passed = both(size, &[flood.clone(), "\x1b[Hnow here".into(), flood]);
        assert!(passed > 800, "{passed} of 1000 lines");
    }

    #[test]
    fn what_does_more_than_scroll_goes_the_long_way() {
        let size = Size { rows: 3, cols: 10 };
        let flood = "line\t\x1b[31mred\x1b[m\r\n".repeat(40);
        // Before a flood, in the middle of it, and behind it.
        for odd in [
            "\x1b[?1049h",
            "\x1b[?1049l",
            "\x1b[1;2r",
            "\x1b[2;3r",
            "\x1b[r",
            "\x1b[4h",
            "\x1b[4l",
            "\x1b[20h",
            "\x1b(0",
            "\x1b(B",
            "\x1b)0\x0e",
            "\x0f",
            "\x1b[44m",
            "\x1b[7m",
            "\x1b[?7l",
            "\x1b[?6h",
            "\x1b[3g",
            "\x1b[3G\x1bH\r",
            "\x1b[2J",
            "\x1b[3J",
            "\x1b[2A",
            "\x1b[1;1H",
            "\x1bc",
            "\x1b[!p",
            "\x1b7",
            "\x1b8",
            "\x1b[5b",
            "too long for a row",
            "e\u{301}",
            "\u{1f468}\u{200d}\u{1f469}",
            "\x1b]0;title\x07",
            "\x1b[",
            "\x1b[3",
            "\x1b",
            "\r",
            "\n",
            "\x08",
            "\x0b",
            "\x1bM",
            "\x1bD",
            "\x1bE",
            "\u{7f}",
            "\u{9b}31m",
            "\u{100000}",
            "\x1b[41m\x1b[K\x1b[m",
            "1234567890",
            "123456789\t",
            "1234567890\t",
            "界界界界界",
            "x界界界界界",
            "\x1b[?2026h",
            "\x1b[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;21;22;23;24;25m",
        ] {
            let parts = [
                format!("{odd}{flood}{odd}\r\n{flood}"),
                flood.clone(),
                format!("\r\n{flood}{odd}"),
                format!("{flood}text{odd}text\r\n{flood}\x1b[2Aup"),
            ];
            both(size, &parts);
        }
    }

    proptest! {
        #[test]
        fn any_stream_looks_the_same_both_ways(
            parts in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![
                        20 => Just("\r\n".to_owned()),
                        10 => "[a-z ]{0,12}",
                        3 => Just("\t".to_owned()),
                        3 => Just("\x1b[K".to_owned()),
                        6 => "\x1b\\[(|0|1|4|7|31|44|38;5;9|0;32)m",
                        2 => "[é界│\u{301}]{1,3}",
                        1 => "\x1b\\[[0-9]{0,2}[A-HJ-MPSTX@dr]",
                        1 => "\x1b(7|8|M|c|\\(0|\\(B|H|\\[4h|\\[4l|\\[3g|\\[\\?7l|\\[\\?7h|\\[\\?6h|\\[\\?1049h|\\[\\?1049l)",
                        1 => any::<char>().prop_map(String::from),
                    ],
                    0..120,
                ).prop_map(|parts| parts.concat()),
                1..4,
            ),
            rows in 1u16..5, cols in 2u16..20,
        ) {
            both(Size::new(rows, cols), &parts);
        }
    }
}
