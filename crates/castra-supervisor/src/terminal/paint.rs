//! What a client must be fed to see the terminal, and its screen as text.

use std::fmt::Write;

use avt::{Color, Pen};

use super::cluster::width;
use super::{Size, Terminal};

impl Terminal {
    /// What a new terminal of this size must be fed to be equal: a reset, the lines that scrolled out, both
    /// screens, modes, title, and the beginning of what is not finished. It asks for nothing and writes no
    /// clipboard. Send it to viewers through their [`super::Wash`].
    ///
    /// Equal but for blanks in front of wide characters in lines that scrolled out under another width: there
    /// a blank that was written and a column that was too narrow look alike. A line of over 64 kB is cut where
    /// the width has it.
    pub fn serialise(&self) -> Vec<u8> {
        let mut out = String::from("\x1bc");
        self.modes.paint_primary(&mut out);
        self.paint_history(&mut out);
        self.paint_rest(out)
    }

    /// The same without the reset and without the lines that scrolled out, for a client that has them: it is to be
    /// on its primary screen, empty, with nothing set.
    pub fn serialise_screen(&self) -> Vec<u8> {
        let mut out = String::new();
        self.modes.paint_primary(&mut out);
        self.paint_rest(out)
    }

    /// As much of the screen as a client of another size can show, drawn over what it shows now: from the top, or,
    /// where rows are lacking, up to the cursor. Nothing scrolls and no mode changes.
    pub fn crop(&self, size: Size) -> String {
        let (col, row, visible) = self.cursor();
        let (rows, cols) = (usize::from(size.rows), usize::from(size.cols));
        let skip = (usize::from(row) + 1).saturating_sub(rows);
        let mut out = String::from("\x1b[?25l\x1b[m");
        for (n, line) in self.screens.screen().visible_lines().skip(skip).take(rows).enumerate() {
            let _ = write!(out, "\x1b[{};1H", n + 1);
            // Behind a full line the cursor waits in its last column, which is not to be erased.
            if self.paint_line(line, cols, &mut out) < cols {
                out.push_str("\x1b[K");
            }
        }
        if usize::from(self.size.rows) < rows {
            let _ = write!(out, "\x1b[{};1H\x1b[J", self.size.rows + 1);
        }
        let (row, col) = (usize::from(row) - skip, usize::from(col).min(cols.saturating_sub(1)));
        let _ = write!(out, "\x1b[{};{}H", row + 1, col + 1);
        if visible {
            out.push_str("\x1b[?25h");
        }
        out
    }

    /// The modes that programs set for their terminal, its title among them.
    pub fn serialise_modes(&self) -> String {
        let mut out = String::new();
        let alternate = self.is_alternate();
        if !alternate {
            self.modes.paint_primary(&mut out);
        }
        self.modes.paint(alternate, &mut out);
        if self.is_application_cursor() {
            out.push_str("\x1b[?1h");
        }
        out
    }

    /// Everything but the lines that scrolled out.
    pub(super) fn paint_rest(&self, mut out: String) -> Vec<u8> {
        self.paint_screens(&mut out);
        self.modes.paint(self.is_alternate(), &mut out);
        if let Some((col, base)) = self.joint() {
            // Printed once more, so that a mark that is still to come has something to belong to.
            out.push_str(&format!("\x1b[{}G", col + 1));
            self.clusters.expand(base, &mut out);
        }
        out.push_str(&self.pending);
        let mut out = out.into_bytes();
        out.extend_from_slice(self.utf8.held());
        out
    }

    /// The rows of the screen that is shown, without blanks at their ends.
    pub fn screen_text(&self) -> Vec<String> {
        let text = |line: &avt::Line| {
            let mut text = String::new();
            line.chars().for_each(|c| self.clusters.expand(c, &mut text));
            text.truncate(text.trim_end().len());
            text
        };
        self.screens.screen().visible_lines().map(text).collect()
    }

    /// The same with colours, one line each: to be printed, not to be fed.
    pub fn screen_ansi(&self) -> String {
        let mut out = String::new();
        for line in self.screens.screen().visible_lines() {
            self.paint_line(line, usize::MAX, &mut out);
            out.push('\n');
        }
        out
    }

    /// A line without blanks at its end, with colours, as far as it fits into `cols` columns; then the default pen.
    /// How many columns that were.
    fn paint_line(&self, line: &avt::Line, cols: usize, out: &mut String) -> usize {
        let mut current = Pen::default();
        let end = line.cells().iter().rposition(|c| c.char() != ' ' || *c.pen() != Pen::default());
        let mut col = 0;
        for cell in line.cells().iter().take(end.map_or(0, |end| end + 1)).filter(|c| c.width() > 0) {
            let width = usize::from(cell.width());
            if col + width > cols {
                break;
            }
            col += width;
            if *cell.pen() != current {
                current = *cell.pen();
                pen(&current, out);
            }
            self.clusters.expand(cell.char(), out);
        }
        if current != Pen::default() {
            pen(&Pen::default(), out);
        }
        col
    }

    /// Prints the lines, then scrolls until the last of them has left the screen.
    fn paint_history(&self, out: &mut String) {
        let open = self.history.open(&self.clusters);
        if self.history.lines().len() == 0 && open.is_none() {
            return;
        }
        for line in self.history.lines() {
            out.push_str(line);
            if line.contains('\x1b') && !ends_at_edge(line, self.size.cols.into()) {
                // A line that wrapped while it had a background has it to the end of its last row.
                out.push_str("\x1b[K");
            }
            out.push_str("\r\n");
        }
        if let Some(open) = open {
            out.push_str(&open);
            // Its first character wraps the line; it is printed again with the rest of the row.
            let first = self.screens.primary_screen().line(0).and_then(|row| row.cells().first());
            if let Some(cell) = first {
                pen(cell.pen(), out);
                self.clusters.expand(cell.char(), out);
                pen(&Pen::default(), out);
            }
        }
        out.extend(std::iter::repeat_n('\n', usize::from(self.size.rows) - 1));
        out.push_str("\x1b[H");
    }

    fn paint_screens(&self, out: &mut String) {
        let start = out.len();
        // Where the parameters of a sequence begin, and the character before it.
        let (mut csi, mut escape, mut last) = (None, false, None);
        for c in self.screens.dump().chars() {
            match (c, csi) {
                // Not every terminal knows the short forms in UTF-8.
                ('\u{80}'..='\u{9f}', _) => {
                    out.push('\x1b');
                    out.push(char::from_u32(u32::from(c) - 0x40).unwrap_or('['));
                    csi = (c == '\u{9b}').then_some(out.len());
                    continue;
                }
                ('@'..='~', Some(begin)) => {
                    csi = None;
                    let count = out.get(begin..).and_then(|count| count.parse::<usize>().ok());
                    if let (Some(count), 'b', Some(last)) = (count, c, last) {
                        // Nor to repeat a character that is not ASCII: tmux repeats nothing then.
                        out.truncate(begin - "\x1b[".len());
                        (0..count).for_each(|_| self.clusters.expand(last, out));
                        continue;
                    }
                    out.push(c);
                }
                (c, Some(_)) => out.push(c),
                (c, None) => {
                    self.clusters.expand(c, out);
                    csi = (escape && c == '[').then_some(out.len());
                    if !escape && c >= ' ' {
                        last = Some(c);
                    }
                }
            }
            escape = c == '\x1b';
        }
        if out[start..].contains("\x1b[5W") {
            // Tab stops by the sequences that everybody knows.
            let tabs = out[start..].replace("\x1b[5W", "\x1b[3g").replace("\x1b[W", "\x1bH");
            out.truncate(start);
            out.push_str(&tabs);
        }
    }
}

/// Whether the last row of a line, laid out in `cols` columns, is full: the cursor waits there, and erasing
/// behind it would take the last character in some terminals.
fn ends_at_edge(line: &str, cols: usize) -> bool {
    let (mut col, mut chars) = (0, line.chars());
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(|c| *c == 'm');
            continue;
        }
        let width = width(c);
        col = if col + width > cols { width } else { col + width };
    }
    col == cols
}

/// Whether a blank of this pen can be seen.
pub(crate) fn is_visible(pen: &Pen) -> bool {
    pen.background().is_some() || pen.is_underline() || pen.is_inverse() || pen.is_strikethrough()
}

/// Appends the sequence that makes `pen` the current one, whatever it was.
pub(crate) fn pen(pen: &Pen, out: &mut String) {
    if pen.is_default() {
        return out.push_str("\x1b[m");
    }
    out.push_str("\x1b[0");
    let flags = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_blink(), ";5"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, code)| out.push_str(code));
    for (color, base) in [(pen.foreground(), 30u8), (pen.background(), 40)] {
        // Writing to a String cannot fail.
        let _ = match color {
            None => Ok(()),
            Some(Color::Indexed(n @ 0..8)) => write!(out, ";{}", base + n),
            Some(Color::Indexed(n @ 8..16)) => write!(out, ";{}", base + 52 + n),
            Some(Color::Indexed(n)) => write!(out, ";{};5;{n}", base + 8),
            Some(Color::RGB(c)) => write!(out, ";{};2;{};{};{}", base + 8, c.r, c.g, c.b),
        };
    }
    out.push('m');
}
