//! The only place that writes to stdout and stderr. Data and progress never mix; a closed pipe is no error.

use super::escape::{visible, visible_json};
use super::failure::Failure;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

/// How and where this command speaks.
#[derive(Clone, Debug)]
pub(super) struct Out {
    /// `--json`: data is JSON.
    pub(super) json: bool,
    pub(super) stdout_tty: bool,
    pub(super) stderr_tty: bool,
    colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Green,
    Red,
    Yellow,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        let stderr_tty = std::io::stderr().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty,
            colour: stderr_tty && !dumb && !set("NO_COLOR"),
        }
    }

    /// Data as it is, and no terminal anywhere.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { json: false, stdout_tty: false, stderr_tty: false, colour: false }
    }

    /// For stderr; plain where colour is not wanted.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        match (self.colour, style) {
            (false, _) | (_, Style::Plain) => text.into(),
            (true, style) => format!("\x1b[{}m{text}\x1b[0m", style.code()),
        }
    }

    /// Columns of the terminal that stderr is, or 100.
    pub(super) fn width(&self) -> usize {
        rustix::termios::tcgetwinsize(std::io::stderr())
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns >= 20)
            .unwrap_or(100)
    }

    /// Bytes to stdout, as they are unless a terminal reads them.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = if self.stdout_tty {
            stdout.write_all(visible(&String::from_utf8_lossy(bytes)).as_bytes())
        } else {
            stdout.write_all(bytes)
        };
        Ok(written.and_then(|()| stdout.flush())?)
    }

    /// Text with colours, as the daemon painted it: of all that a terminal obeys, only SGR sequences are let through.
    pub(super) fn painted(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        Ok(stdout.write_all(painted(text).as_bytes()).and_then(|()| stdout.flush())?)
    }

    /// Text to stdout, without a newline.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// One JSON document on a line of its own.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string(value).map_err(std::io::Error::from)?;
        if self.stdout_tty {
            text = visible_json(&text).into_owned();
        }
        text.push('\n');
        let mut stdout = std::io::stdout().lock();
        Ok(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())?)
    }

    /// `--json`: the value; else the text.
    pub(super) fn either(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { self.json(value) } else { self.line(&text()) }
    }

    /// Progress and hints. stderr that nobody reads stops nothing.
    pub(super) fn note(&self, text: &str) {
        self.raw_note(&format!("{text}\n"));
    }

    /// Without a newline; the caller has made untrusted parts visible.
    pub(super) fn raw_note(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
    }

    pub(super) fn hint(&self, text: &str) {
        self.note(&format!("{} {text}", self.paint(Style::Cyan, "hint:")));
    }

    pub(super) fn warn(&self, text: &str) {
        self.note(&format!("{} {text}", self.paint(Style::Yellow, "warning:")));
    }

    /// Columns as wide as their widest cell; the last one is not padded.
    pub(super) fn table(&self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        self.text(&columns(head, rows))
    }
}

/// Everything but `ESC [ … m` is made visible.
fn painted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, part) in text.split("\x1b[").enumerate() {
        let end = part.find(|c: char| !(c.is_ascii_digit() || matches!(c, ';' | ':')));
        match end {
            Some(end) if n > 0 && part[end..].starts_with('m') => {
                out.push_str("\x1b[");
                out.push_str(&part[..=end]);
                out.push_str(&visible(&part[end + 1..]));
            }
            _ if n > 0 => out.push_str(&visible(&format!("\x1b[{part}"))),
            _ => out.push_str(&visible(part)),
        }
    }
    out
}

fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    let mut add = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    };
    add(head.to_vec());
    rows.iter().for_each(|row| add(row.iter().map(String::as_str).collect()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = vec![
            vec!["1".into(), "größer".into(), "x".into()],
            vec!["22".into(), String::new(), String::new()],
        ];
        assert_eq!(columns(&["ID", "NAME", "WHAT"], &rows), "ID  NAME    WHAT\n1   größer  x\n22\n");
    }

    #[test]
    fn colours_are_let_through_and_nothing_else() {
        let table = [
            ("\x1b[1;38:5:3mé\x1b[0m\n", "\x1b[1;38:5:3mé\x1b[0m\n"),
            ("\x1b[mx", "\x1b[mx"),
            ("a\x1b[2Jb", "a\\x1b[2Jb"),
            ("\x1b]0;t\x07\x1b[31mx\x1b[", "\\x1b]0;t\\x07\x1b[31mx\\x1b["),
            ("\x1b[?25m", "\\x1b[?25m"),
        ];
        for (text, expected) in table {
            assert_eq!(painted(text), expected);
        }
    }
}
