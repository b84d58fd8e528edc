//! Lines that scrolled out of the primary screen, as text with colours; bounded in lines and bytes.
//!
//! Lines are kept as they were written: rows that were wrapped are one again, so that they fit any width later.

use std::collections::VecDeque;

use super::cluster::Clusters;
use super::{Scrollback, paint};

/// A line that is never ended is cut here, bytes.
const MAX_LINE: usize = 64 << 10;

pub(crate) struct History {
    limits: Scrollback,
    lines: VecDeque<String>,
    bytes: usize,
    /// The line that goes on in the first row of the screen.
    open: Option<Open>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Open {
    text: String,
    pen: avt::Pen,
    /// Default blanks at its end: written only when something follows.
    blanks: usize,
    /// A blank in the last column waits for the next row: before a wide character it was only too little room.
    last: Option<avt::Pen>,
}

impl History {
    pub(crate) fn new(limits: Scrollback) -> History {
        History { limits, lines: VecDeque::new(), bytes: 0, open: None }
    }

    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.bytes = 0;
        self.open = None;
    }

    /// A row that leaves the screen at its top.
    pub(crate) fn push(&mut self, row: &avt::Line, clusters: &Clusters) {
        let mut open = self.open.take().unwrap_or_default();
        let cells = row.cells();
        if let Some(pen) = open.last.take()
            && cells.first().is_some_and(|cell| cell.width() != 2)
        {
            open.write(' ', &pen, clusters);
        }
        let go_on = row.is_wrapped() && open.text.len() + open.blanks < MAX_LINE;
        let (last, most) = match cells.split_last() {
            Some((last, most)) if row.is_wrapped() && last.width() == 1 && last.char() == ' ' => {
                (Some(*last.pen()), most)
            }
            // The blanks behind the text of a line that ends are most of it.
            _ if !row.is_wrapped() => (None, trimmed(cells)),
            _ => (None, cells),
        };
        for cell in most.iter().filter(|cell| cell.width() > 0) {
            open.write(cell.char(), cell.pen(), clusters);
        }
        open.last = last;
        self.open = Some(open);
        if !go_on {
            self.close();
        }
    }

    /// Ends the line that is open.
    pub(crate) fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.end();
        open.text.shrink_to_fit();
        self.add(open.text);
    }

    /// A line that is whole. None is open.
    pub(crate) fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.limits.lines as usize || self.bytes > self.limits.bytes as usize {
            let Some(gone) = self.lines.pop_front() else { return };
            self.bytes -= gone.len();
        }
    }

    pub(crate) fn lines(&self) -> impl ExactSizeIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The line that goes on in the first row, its blanks written.
    pub(crate) fn open(&self, clusters: &Clusters) -> Option<String> {
        self.open.clone().map(|mut open| {
            if let Some(pen) = open.last.take() {
                open.write(' ', &pen, clusters);
            }
            open.fill();
            open.text
        })
    }
}

fn trimmed(cells: &[avt::Cell]) -> &[avt::Cell] {
    let seen = |cell: &avt::Cell| cell.char() != ' ' || cell.width() != 1 || paint::is_visible(cell.pen());
    &cells[..cells.iter().rposition(seen).map_or(0, |last| last + 1)]
}

impl Open {
    /// As [`Open::write`] for each character of printable ASCII.
    pub(super) fn write_text(&mut self, text: &str, pen: &avt::Pen, clusters: &Clusters) {
        if !pen.is_default() {
            return text.chars().for_each(|c| self.write(c, pen, clusters));
        }
        // Blanks in front may turn out to be at the end, those between are text.
        let written = text.trim_start_matches(' ');
        self.skip(text.len() - written.len());
        let (written, behind) = (written.trim_end_matches(' '), written.len());
        if !written.is_empty() {
            self.fill();
            self.turn(pen);
            self.text.push_str(written);
        }
        self.skip(behind - written.len());
    }

    /// Cells that nothing was written into.
    pub(super) fn skip(&mut self, cells: usize) {
        self.blanks += cells;
    }

    /// The line, which ends here; another one may begin.
    pub(super) fn take_line(&mut self) -> String {
        self.end();
        let line = self.text.as_str().to_owned();
        self.text.clear();
        (self.pen, self.blanks) = (avt::Pen::default(), 0);
        line
    }

    fn end(&mut self) {
        self.turn(&avt::Pen::default());
    }

    fn turn(&mut self, pen: &avt::Pen) {
        if *pen != self.pen {
            self.pen = *pen;
            paint::pen(pen, &mut self.text);
        }
    }

    pub(super) fn write(&mut self, c: char, pen: &avt::Pen, clusters: &Clusters) {
        // A bold blank is none. What is behind the end of a row is such, or has a background.
        if c == ' ' && !paint::is_visible(pen) {
            self.blanks += 1;
            return;
        }
        self.fill();
        self.turn(pen);
        clusters.expand(c, &mut self.text);
    }

    /// Writes the blanks that something follows.
    fn fill(&mut self) {
        if self.blanks == 0 {
            return;
        }
        self.turn(&avt::Pen::default());
        self.text.extend(std::iter::repeat_n(' ', self.blanks));
        self.blanks = 0;
    }
}
