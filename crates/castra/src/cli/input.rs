//! What a person types, line by line, beside output that comes whenever it likes. Plain lines of the
//! terminal's own editing: they work in every terminal, and nothing has to be restored after a crash.

use std::io::{BufRead as _, IsTerminal as _, Read};
use tokio::sync::mpsc;

/// Lines typed ahead; the reader waits beyond.
const AHEAD: usize = 64;
/// A pasted text may be long, an endless one is cut into lines of this many bytes.
const LONGEST: u64 = 16 << 20;

/// A thread that reads lines. It ends with the process: a blocked read cannot be cancelled.
pub(super) struct Lines {
    lines: mpsc::Receiver<String>,
}

impl Lines {
    /// From the terminal: stdin, or `/dev/tty` where stdin is something else. `None` without one.
    pub(super) fn of_terminal() -> Option<Self> {
        if std::io::stdin().is_terminal() {
            return Self::of(std::io::stdin()).ok();
        }
        let tty = std::fs::File::open("/dev/tty").ok()?;
        Self::of(tty).ok()
    }

    /// Whether stdin is a terminal that shows what is typed.
    pub(super) fn are_echoed() -> bool {
        use rustix::termios::{LocalModes, tcgetattr};
        tcgetattr(std::io::stdin()).is_ok_and(|modes| modes.local_modes.contains(LocalModes::ECHO))
    }

    pub(super) fn of_stdin() -> std::io::Result<Self> {
        Self::of(std::io::stdin())
    }

    fn of(source: impl Read + Send + 'static) -> std::io::Result<Self> {
        let (sender, lines) = mpsc::channel(AHEAD);
        std::thread::Builder::new().name("input".into()).spawn(move || {
            let mut source = std::io::BufReader::new(source);
            loop {
                let mut line = Vec::new();
                match source.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                }
                let line = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { lines })
    }

    /// The next line; `None` at the end (Ctrl-D). Cancel safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Forgets what was typed before a question was asked: it is not the answer.
    pub(super) fn discard(&mut self) {
        while self.lines.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_end() {
        let mut lines = Lines::of(std::io::Cursor::new(b"one\r\n\xff\n\nlast".to_vec())).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line);
        }
        assert_eq!(all, ["one", "\u{fffd}", "", "last"]);
    }
}
