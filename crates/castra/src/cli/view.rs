//! Shows a session on this terminal or pipe: which of `progress`'s pieces, where, and with what spinner.

use super::escape::one_line;
use super::failure::Failure;
use super::out::{Out, Style};
use super::progress::{Piece, Progress};
use crate::client::Partial;
use castra_proto::Event;
use std::time::{Duration, Instant};

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Nothing but the answer, which is printed at the end.
    Nothing,
    /// Everything that a person likes to see.
    Everything,
    /// Every event as a line of JSON on stdout.
    Events,
}

/// Where the agent's words go while they are being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// To stdout: they are the answer, and are not printed again.
    Stdout,
    /// To stderr, dimmed: the answer goes to stdout as a whole.
    Stderr,
    /// Not as they come: the answer goes to stdout as a whole, and stderr may be the same pipe.
    Nowhere,
}

pub(super) struct View {
    pub(super) out: Out,
    pub(super) progress: Progress,
    show: Show,
    words: Words,
    /// Words were written without a newline behind them.
    mid_line: bool,
    /// The text block that is on the screen as the last thing on stdout.
    on_stdout: String,
    /// That block is complete: the next words begin another.
    block_over: bool,
    spinner: Option<Spinner>,
    /// A person types on this terminal, which echoes it.
    typing: bool,
    /// The prompt is the last thing on the screen, perhaps with the beginning of a line behind it.
    prompted: bool,
}

struct Spinner {
    since: Instant,
    frame: usize,
    shown: bool,
}

/// Between two frames of the spinner.
pub(super) const TICK: Duration = Duration::from_millis(120);
/// Asks for a line of a conversation.
const PROMPT: &str = "> ";
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

impl View {
    pub(super) fn new(out: Out, show: Show, words: Words) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let spins = show == Show::Everything && out.stderr_tty && !dumb;
        let progress = Progress::new(out.width());
        let spinner = spins.then(|| Spinner { since: Instant::now(), frame: 0, shown: false });
        Self {
            out,
            progress,
            show,
            words,
            mid_line: false,
            on_stdout: String::new(),
            block_over: true,
            spinner,
            typing: false,
            prompted: false,
        }
    }

    /// For `castra run`: everything on a terminal, only the answer in a pipe.
    pub(super) fn for_answer(out: Out) -> Self {
        let show = if out.stderr_tty { Show::Everything } else { Show::Nothing };
        let words = if out.stdout_tty && out.stderr_tty && !out.json { Words::Stdout } else { Words::Stderr };
        Self::new(out, show, words)
    }

    pub(super) fn event(&mut self, event: &Event) -> Result<(), Failure> {
        let pieces = self.progress.event(event);
        match self.show {
            Show::Nothing => Ok(()),
            Show::Events => self.out.json(event),
            Show::Everything => self.pieces(pieces),
        }
    }

    pub(super) fn partial(&mut self, partial: &Partial) -> Result<(), Failure> {
        let pieces = self.progress.partial(partial);
        if self.show == Show::Everything { self.pieces(pieces) } else { Ok(()) }
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), Failure> {
        for piece in pieces {
            self.make_room();
            match piece {
                Piece::Line(style, text) => {
                    self.end_line()?;
                    self.on_stdout.clear();
                    self.out.note(&self.out.paint(style, &text));
                }
                Piece::Text(text) => {
                    if std::mem::take(&mut self.block_over) {
                        self.on_stdout.clear();
                    }
                    match self.words {
                        Words::Stdout => {
                            self.out.text(&text)?;
                            self.on_stdout.push_str(&text);
                        }
                        Words::Stderr => self.out.raw_note(&self.out.paint(Style::Dim, &text)),
                        Words::Nowhere => continue,
                    }
                    self.mid_line = !text.ends_with('\n');
                }
                Piece::EndText => {
                    self.block_over = true;
                    self.end_line()?;
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.mid_line) {
            match self.words {
                Words::Stdout => self.out.text("\n")?,
                Words::Stderr => self.out.raw_note("\n"),
                Words::Nowhere => {}
            }
        }
        Ok(())
    }

    /// The answer on stdout, unless exactly it is what stands there already.
    pub(super) fn answer(&mut self, text: &str) -> Result<(), Failure> {
        self.make_room();
        self.end_line()?;
        let shown = std::mem::take(&mut self.on_stdout);
        if shown.trim_end() == super::escape::visible(text).trim_end() && !shown.is_empty() {
            return Ok(());
        }
        match text {
            "" => Ok(()),
            text if text.ends_with('\n') => self.out.text(text),
            text => self.out.line(text),
        }
    }

    /// A line for the person, whatever is shown otherwise.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.make_room();
        self.end_line()?;
        self.out.note(text);
        Ok(())
    }

    /// The next frame; to be called every `TICK` while something is waited for.
    pub(super) fn tick(&mut self, what: &str) {
        if self.mid_line {
            return;
        }
        self.leave_prompt();
        let Some(spinner) = &mut self.spinner else { return };
        spinner.frame = (spinner.frame + 1) % FRAMES.len();
        spinner.shown = true;
        let line = format!(
            "{} {} {} s",
            FRAMES[spinner.frame],
            one_line(what, 50),
            spinner.since.elapsed().as_secs()
        );
        let line = self.out.paint(Style::Dim, &line);
        self.out.raw_note(&format!("\r\x1b[K{line}"));
    }

    pub(super) fn spins(&self) -> bool {
        self.spinner.is_some()
    }

    /// Takes the spinner off the screen, e.g. before a person is asked.
    pub(super) fn clear_spinner(&mut self) {
        if let Some(spinner) = &mut self.spinner
            && std::mem::take(&mut spinner.shown)
        {
            self.out.raw_note("\r\x1b[K");
        }
    }

    /// What is typed is on the screen: it is asked for, and never shown a second time.
    pub(super) fn expect_typing(&mut self) {
        self.typing = true;
    }

    /// Asks for a line, unless that is done already or nobody types here.
    pub(super) fn prompt(&mut self) -> Result<(), Failure> {
        if self.typing && !self.prompted {
            self.make_room();
            self.end_line()?;
            self.out.raw_note(PROMPT);
            self.prompted = true;
        }
        Ok(())
    }

    /// A line was typed: the cursor is at the beginning of the next.
    pub(super) fn line_typed(&mut self) {
        if self.typing {
            self.prompted = false;
            self.mid_line = false;
        }
    }

    /// What was typed behind the prompt stays to be seen: the terminal keeps it until Enter, and nobody can ask
    /// it for that.
    fn leave_prompt(&mut self) {
        if std::mem::take(&mut self.prompted) {
            self.out.raw_note("\n");
        }
    }

    fn make_room(&mut self) {
        self.clear_spinner();
        self.leave_prompt();
    }

    /// From now on the spinner counts from zero.
    pub(super) fn restart_clock(&mut self) {
        if let Some(spinner) = &mut self.spinner {
            spinner.since = Instant::now();
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.make_room();
    }
}
