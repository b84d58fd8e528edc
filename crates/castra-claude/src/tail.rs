//! The decoder of a terminal session: transcripts and state files in, the events of a stream session out.
//!
//! claude writes its transcript in batches whose order may be wrong (facts/seed-packages.md §3), so records wait for
//! their parent: events come in the order of the conversation, never in that of lines. Refuses clocks: what must be
//! given up one day is given up at a record of the log whose `at` says so, and [`Tail::due`] says when the caller is to
//! make sure of one.

mod command;
mod entry;
mod prompt;
mod sum;
mod turn;
mod window;

use crate::decode::unknown;
use crate::fact::{Decoded, Note};
use crate::line::{Line, Lines, MAX_LINE, RecordIn, StreamIn};
use crate::peek::Head;
use crate::terminal::signal::State;
use castra_proto::{Kind, Timestamp};
pub use command::{command_output, command_result};
use entry::Entry;
pub use prompt::{Prompt, Source};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
pub use turn::Call;
use window::Window;

/// Boot-time nanoseconds for which a turn stays open after its answer is on disk and claude has said that it is idle,
/// and no record says that it is over.
pub const SETTLE: u64 = 1_500_000_000;
/// The same for a turn without an answer: its records are flushed to disk later than its state (0.1 s measured, 3 s on a
/// machine with ten of them starting), and only one that was taken back leaves none at all. See [`Tail::taken_back`].
pub const PATIENCE: u64 = 15_000_000_000;

/// One event, and what of it only a terminal session has.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// As [`crate::Decoder`] would have given it. `record_seq` is the record that released it, not the one in which
    /// the line ended: it may have waited for its parent.
    pub line: Decoded,
    /// What somebody typed, if this is it.
    pub prompt: Option<Prompt>,
}

/// The decoder of a terminal run's tailed files.
///
/// Replay works as for [`crate::Decoder`]: a new one that is fed from [`Tail::hold`] on tells the same after the
/// cursor. All that it remembers is thrown away whenever nothing is open, so that there is nothing else to keep.
#[derive(Debug)]
pub struct Tail {
    limit: usize,
    files: BTreeMap<u8, Lines>,
    window: Window,
    /// Records older than this belong to the conversation that was resumed or forked.
    since: Option<Timestamp>,
}

impl Default for Tail {
    fn default() -> Self {
        Self::with_max_line(MAX_LINE)
    }
}

impl Tail {
    pub fn new() -> Self {
        Self::default()
    }

    /// With another limit than [`MAX_LINE`]. Bytes.
    pub fn with_max_line(limit: usize) -> Self {
        Self { limit: limit.max(1), files: BTreeMap::new(), window: Window::default(), since: None }
    }

    /// Passes over records that are older than the run. A fork's file begins with a copy of the whole history, uuids
    /// and times as they were (measured on both versions).
    pub fn since(&mut self, started: Timestamp) {
        self.since = Some(started);
    }

    /// Takes the next record of the log, of whatever stream; appends what it completes.
    pub fn step(&mut self, record: &RecordIn, out: &mut Vec<Told>) {
        let when = (record.seq, record.at);
        self.window.tick(when, out);
        if let StreamIn::File(number) = record.stream {
            let Self { limit, files, window, since } = self;
            let lines = files.entry(number).or_insert_with(|| Lines::new(*limit));
            lines.feed(record, &mut |line| take(window, *since, number, line, when, out));
            window.drain(when, out);
            window.end_of_batch(when, out);
        }
        self.rest();
    }

    /// Takes the content of `sessions/<pid>.json`, which was in the record `seq`.
    pub fn state(&mut self, seq: u64, at: u64, state: &State, out: &mut Vec<Told>) {
        self.window.tick((seq, at), out);
        self.window.state((seq, at), state, out);
        self.rest();
    }

    /// The screen shows that claude is idle and has the turn's prompt back in its composer, as after an Esc before any
    /// answer: no record will tell, and nothing is waited for. Without a turn, or while claude is busy, nothing happens.
    pub fn taken_back(&mut self, seq: u64, at: u64, out: &mut Vec<Told>) {
        self.window.taken_back((seq, at), out);
        self.rest();
    }

    /// The run is over: what waits is told in the order of its lines, what is unfinished is torn, and a turn that is
    /// open was cut off.
    pub fn finish(&mut self, seq: u64, at: u64, out: &mut Vec<Told>) {
        let Self { files, window, since, .. } = self;
        for (number, lines) in files {
            lines.finish(&mut |line| take(window, *since, *number, line, (seq, at), out));
        }
        self.window.drain((seq, at), out);
        self.window.finish((seq, at), out);
        self.rest();
    }

    /// The oldest record that is still needed; none: the next one.
    pub fn hold(&self) -> Option<u64> {
        self.files.values().map(Lines::hold).chain([self.window.since]).flatten().min()
    }

    /// When the log should hold a further record, whatever it is; boot-time nanoseconds. A `resize` to the size that
    /// the terminal has is one that claude does not see.
    pub fn due(&self) -> Option<u64> {
        self.window.due()
    }

    /// The tool calls without a result, in the order in which they were made; subagents' too.
    pub fn calls(&self) -> &[Call] {
        &self.window.calls
    }

    /// What claude waits for in a dialog, in its own words: `permission prompt`, `input needed`, `dialog open`.
    pub fn waiting_for(&self) -> Option<&str> {
        self.window.waiting_for.as_deref()
    }

    /// Forgets, once nothing is open: so a decoder that starts at the next record knows as much.
    fn rest(&mut self) {
        if self.window.is_quiet() && self.files.values().all(|lines| lines.hold().is_none()) {
            self.window = Window::default();
        }
    }
}

/// Takes one line of a transcript.
fn take(
    window: &mut Window,
    since: Option<Timestamp>,
    number: u8,
    line: Line<'_>,
    when: (u64, u64),
    out: &mut Vec<Told>,
) {
    let stream = StreamIn::File(number);
    window.began(line.began);
    let cut = line.note;
    let mut odd = |line, note, json| {
        out.push(Told { line: unknown(stream, line, when, note, json), prompt: None });
    };
    let bytes = line.as_slice();
    if bytes.is_empty() {
        return;
    }
    let text = match (cut, std::str::from_utf8(bytes)) {
        (Some(Note::Cut), _) => return odd(line, Note::Cut, false),
        (_, Ok(text)) => text,
        (_, Err(_)) => return odd(line, cut.unwrap_or(Note::NotUtf8), false),
    };
    let Ok(head) = serde_json::from_str::<Head<'_>>(text) else {
        let json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let note = if json { Note::NotAMessage } else { cut.unwrap_or(Note::NotJson) };
        return odd(line, note, json);
    };
    if head.kind.is_empty() || !text.trim_start().starts_with('{') {
        return odd(line, Note::NotAMessage, true);
    }
    let kind = Kind::of_claude(&head.kind);
    let Ok(value) = serde_json::from_str(text) else {
        // Nested too deeply for a tree.
        return odd(line, Note::NotAMessage, true);
    };
    let (offset, bytes) = (line.offset, line.into_bytes());
    let Some(entry) = Entry::read(stream, offset, when.1, kind, value, bytes) else { return };
    if since.is_some_and(|since| entry.written.is_some_and(|written| written < since)) {
        return window.knows(&entry);
    }
    window.place(entry, when, out);
}

#[cfg(test)]
mod tests;
