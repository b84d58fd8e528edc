//! Private modes, title, cursor style: what a program sets once and a later viewer must be told.
//!
//! `avt` knows the modes that change the screen; these change what viewers' terminals send, or how they look.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Modes that are on or off and not `avt`'s: reverse video, cursor blink, application keypad, focus reports,
/// alternate scroll, meta keys, bracketed paste, synchronised output, grapheme clusters, colour scheme reports,
/// size reports.
const FLAGS: [u16; 14] = [5, 12, 66, 1004, 1007, 1034, 1035, 1036, 1039, 2004, 2026, 2027, 2031, 2048];
/// Longest title, and titles that were put aside.
const MAX_TITLE: usize = 1024;
const MAX_TITLES: usize = 10;
/// Kitty's stack; deeper ones lose their oldest.
const MAX_KITTY: usize = 16;
const MAX_NOTICE: usize = 1024;

/// Which mouse events a program wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Mouse {
    X10 = 9,
    Clicks = 1000,
    Drags = 1002,
    Moves = 1003,
}

/// How it wants them written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum MouseEncoding {
    Utf8 = 1005,
    Sgr = 1006,
    Urxvt = 1015,
    SgrPixels = 1016,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modes {
    flags: BTreeSet<u16>,
    mouse: Option<Mouse>,
    encoding: Option<MouseEncoding>,
    keypad: bool,
    /// DECSCUSR; 0 is the viewer's own.
    cursor_style: u8,
    /// XTMODKEYS 4.
    modify_other_keys: Option<u8>,
    title: String,
    titles: Vec<String>,
    primary: Kitty,
    alternate: Kitty,
}

/// Kitty's keyboard flags of one screen: those that hold, and those that come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kitty {
    now: u16,
    stack: Vec<u16>,
}

impl Modes {
    pub fn title(&self) -> &str {
        &self.title
    }

    pub fn mouse(&self) -> Option<(Mouse, Option<MouseEncoding>)> {
        self.mouse.map(|mouse| (mouse, self.encoding))
    }

    /// Whether DEC private mode `number` is on; of those that this type keeps, see the module.
    pub fn is_set(&self, number: u16) -> bool {
        self.flags.contains(&number)
    }

    pub fn bracketed_paste(&self) -> bool {
        self.is_set(2004)
    }

    pub fn focus_reports(&self) -> bool {
        self.is_set(1004)
    }

    /// DECSCUSR: 0 or 1 to 6.
    pub fn cursor_style(&self) -> u8 {
        self.cursor_style
    }

    /// Kitty's keyboard flags that hold on the screen in question.
    pub fn kitty_keyboard(&self, alternate: bool) -> u16 {
        if alternate { self.alternate.now } else { self.primary.now }
    }

    /// A whole sequence without its terminator; the notice in it, if it is one.
    pub(crate) fn apply(&mut self, sequence: &str, alternate: bool) -> Option<String> {
        let mut chars = sequence.chars();
        let kind = match chars.next()? {
            '\u{1b}' => chars.next()?,
            c1 => char::from_u32(u32::from(c1).checked_sub(0x40)?)?,
        };
        let rest = chars.as_str();
        match kind {
            '[' => self.csi(rest, alternate),
            ']' => return self.osc(rest),
            '=' => self.keypad = true,
            '>' => self.keypad = false,
            _ => (),
        }
        None
    }

    pub(crate) fn soft_reset(&mut self) {
        self.keypad = false;
        self.cursor_style = 0;
    }

    /// What was set for the alternate screen goes with it.
    pub(crate) fn left_alternate(&mut self) {
        if self.alternate != Kitty::default() {
            self.alternate = Kitty::default();
        }
    }

    fn csi(&mut self, rest: &str, alternate: bool) {
        let Some(end) = rest.chars().next_back() else { return };
        let body = &rest[..rest.len() - end.len_utf8()];
        let mark = body.chars().next().filter(|c| matches!(c, '<'..='?'));
        let body = if mark.is_some() { &body[1..] } else { body };
        match (mark, end) {
            (Some('?'), 'h' | 'l') => {
                for number in numbers(body) {
                    self.private(number.unwrap_or(0), end == 'h');
                }
            }
            (Some(mark), 'u') => {
                let kitty = if alternate { &mut self.alternate } else { &mut self.primary };
                let mut args = numbers(body).map(|n| n.unwrap_or(0));
                kitty.change(mark, args.next().unwrap_or(0), args.next());
            }
            (Some('>'), 'm') => {
                let mut args = numbers(body);
                match args.next().flatten() {
                    Some(4) => self.modify_other_keys = args.next().flatten().and_then(|n| n.try_into().ok()),
                    Some(_) => (),
                    None => self.modify_other_keys = None,
                }
            }
            (Some('>'), 'n') if body == "4" => self.modify_other_keys = None,
            (None, 'q') => {
                if let Some(style) = body.strip_suffix(' ') {
                    let style = numbers(style).next().flatten().unwrap_or(0);
                    self.cursor_style = u8::try_from(style).ok().filter(|s| *s <= 6).unwrap_or(0);
                }
            }
            (None, 't') => {
                let mut args = numbers(body);
                match (args.next().flatten(), args.next().flatten().unwrap_or(0)) {
                    (Some(22), 0 | 2) => {
                        if self.titles.len() == MAX_TITLES {
                            self.titles.remove(0);
                        }
                        self.titles.push(self.title.clone());
                    }
                    (Some(23), 0 | 2) => self.title = self.titles.pop().unwrap_or_default(),
                    _ => (),
                }
            }
            _ => (),
        }
    }

    fn private(&mut self, number: u16, on: bool) {
        let mouse = [Mouse::X10, Mouse::Clicks, Mouse::Drags, Mouse::Moves];
        let encodings =
            [MouseEncoding::Utf8, MouseEncoding::Sgr, MouseEncoding::Urxvt, MouseEncoding::SgrPixels];
        if let Some(mouse) = mouse.into_iter().find(|m| *m as u16 == number) {
            // The last one holds; switching any of them off ends all, as in xterm.
            self.mouse = on.then_some(mouse);
        } else if let Some(encoding) = encodings.into_iter().find(|e| *e as u16 == number) {
            self.encoding = on.then_some(encoding);
        } else if FLAGS.contains(&number) {
            match on {
                true => self.flags.insert(number),
                false => self.flags.remove(&number),
            };
        }
    }

    fn osc(&mut self, rest: &str) -> Option<String> {
        let (number, text) = rest.split_once(';')?;
        match number {
            "0" | "2" => {
                self.title = cut(text, MAX_TITLE).to_owned();
                None
            }
            // Progress bars say 9;4.
            "9" if !text.starts_with("4;") => Some(cut(text, MAX_NOTICE).to_owned()),
            "777" => text.strip_prefix("notify;").map(|text| cut(text, MAX_NOTICE).replace(';', ": ")),
            _ => None,
        }
    }

    /// What must be said while the primary screen is shown.
    pub(crate) fn paint_primary(&self, out: &mut String) {
        self.primary.paint(out);
    }

    /// The rest, at the end.
    pub(crate) fn paint(&self, alternate: bool, out: &mut String) {
        for title in &self.titles {
            let _ = write!(out, "\x1b]2;{title}\x07\x1b[22;2t");
        }
        if !self.title.is_empty() || !self.titles.is_empty() {
            let _ = write!(out, "\x1b]2;{}\x07", self.title);
        }
        if alternate {
            self.alternate.paint(out);
        }
        let numbers = (self.flags.iter().copied())
            .chain(self.encoding.map(|e| e as u16))
            .chain(self.mouse.map(|m| m as u16));
        for number in numbers {
            let _ = write!(out, "\x1b[?{number}h");
        }
        if self.keypad {
            out.push_str("\x1b=");
        }
        if self.cursor_style != 0 {
            let _ = write!(out, "\x1b[{} q", self.cursor_style);
        }
        if let Some(level) = self.modify_other_keys {
            let _ = write!(out, "\x1b[>4;{level}m");
        }
    }
}

impl Kitty {
    fn change(&mut self, mark: char, first: u16, second: Option<u16>) {
        match mark {
            '>' => {
                if self.stack.len() == MAX_KITTY {
                    self.stack.remove(0);
                }
                self.stack.push(std::mem::replace(&mut self.now, first));
            }
            '<' => {
                for _ in 0..first.clamp(1, MAX_KITTY as u16 + 1) {
                    self.now = self.stack.pop().unwrap_or(0);
                }
            }
            '=' => match second.unwrap_or(1) {
                2 => self.now |= first,
                3 => self.now &= !first,
                _ => self.now = first,
            },
            // A question.
            _ => (),
        }
    }

    fn paint(&self, out: &mut String) {
        let mut all = self.stack.iter().chain([&self.now]);
        match all.next() {
            None | Some(0) => (),
            Some(first) => drop(write!(out, "\x1b[={first}u")),
        }
        for flags in all {
            let _ = write!(out, "\x1b[>{flags}u");
        }
    }
}

/// Parameters; `None` where one is missing or none.
fn numbers(body: &str) -> impl Iterator<Item = Option<u16>> {
    body.split(';').map(|part| part.parse().ok())
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// What is kept of a sequence that writes or reads the clipboard.
pub(crate) const CLIPBOARD_LEN: usize = "\x1b]52;".len();

/// Whether this is the beginning of one.
pub(crate) fn is_clipboard(pending: &str) -> bool {
    pending.starts_with("\x1b]52;") || pending.starts_with("\u{9d}52;")
}
