//! The log as it grows: complete lines, which of them end the task, and nothing after that. Refuses clocks: times come
//! with the bytes.

use super::{Enabled, Said, encoded, parse};
use castra_proto::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of a line that are read; what a longer one goes on with is dropped.
pub const MAX_LINE: usize = 64 * 1024;

/// Microseconds that set lines apart. More than the half second between two looks of a shim without inotify, so that
/// one append read in two pieces is still one.
pub const PAUSE_US: i64 = 750_000;

/// A line that said something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Where in the stream its first byte stands.
    pub offset: u64,
    pub said: Said,
    /// It was longer than [`MAX_LINE`] and ends there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Reads the log piece by piece. Its state can be stored with the cursor: what is pushed after that says the same as
/// it would have without the break.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reader {
    enabled: Enabled,
    /// Where the line that is being read begins.
    line: u64,
    /// Its bytes so far, at most [`MAX_LINE`].
    #[serde(with = "encoded")]
    bytes: Vec<u8>,
    /// How many more it has.
    over: u64,
    before: Before,
    /// When the newest bytes came.
    at: Option<Timestamp>,
    /// An end line of which it is not known yet what follows.
    held: Option<Entry>,
    ended: bool,
}

/// The line before, for an end line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    /// Nothing, or nothing that could go on.
    Apart,
    /// Text, which the next line may belong to.
    Text,
}

impl Reader {
    pub fn new(enabled: Enabled) -> Reader {
        Reader {
            enabled,
            line: 0,
            bytes: Vec::new(),
            over: 0,
            before: Before::Apart,
            at: None,
            held: None,
            ended: false,
        }
    }

    /// Takes bytes that came at `at` (the record's time on any one clock) and says what their complete lines say.
    /// How the bytes are cut makes no difference.
    pub fn push(&mut self, at: Timestamp, bytes: &[u8]) -> Vec<Entry> {
        let mut said = Vec::new();
        self.pass(at, &mut said);
        if bytes.is_empty() {
            return said;
        }
        self.at = Some(at);
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            self.extend(head);
            self.line_is_complete(&mut said);
            rest = tail.get(1..).unwrap_or_default();
        }
        self.extend(rest);
        said
    }

    /// When an end line that waits for what follows counts: call [`Reader::settle`] then. `None`: nothing waits.
    pub fn due(&self) -> Option<Timestamp> {
        self.held.as_ref().and(self.at).map(after_pause)
    }

    /// Says that nothing came until `now`. The end line that waited, if it is due.
    pub fn settle(&mut self, now: Timestamp) -> Option<Entry> {
        let mut said = Vec::new();
        self.pass(now, &mut said);
        said.pop()
    }

    /// Says that nobody is left who could write, so that a waiting end line counts. A line without its newline is
    /// never seen.
    pub fn finish(&mut self) -> Option<Entry> {
        self.settle(Timestamp(i64::MAX))
    }

    /// Says that another file is the log now, from its first byte: it was truncated or replaced. What waited in the
    /// old one counts, as nothing follows there.
    pub fn restart(&mut self) -> Option<Entry> {
        let said = self.finish();
        let (enabled, at, ended) = (self.enabled, self.at, self.ended);
        *self = Reader { at, ended, ..Reader::new(enabled) };
        said
    }

    /// Whether the end was said. Whatever is pushed then says nothing.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// A pause, or a clock that began anew with the machine, parts what was from what comes.
    fn pass(&mut self, now: Timestamp, said: &mut Vec<Entry>) {
        if self.at.is_none_or(|at| now < at || now >= after_pause(at)) {
            self.before = Before::Apart;
            self.release(said);
        }
    }

    fn release(&mut self, said: &mut Vec<Entry>) {
        if let Some(entry) = self.held.take() {
            self.ended = true;
            said.push(entry);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.bytes.len().min(MAX_LINE);
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        // After the end only offsets are counted.
        if self.ended {
            self.over += bytes.len() as u64;
            return;
        }
        self.bytes.extend_from_slice(kept);
        self.over += dropped.len() as u64;
    }

    fn line_is_complete(&mut self, said: &mut Vec<Entry>) {
        let bytes = std::mem::take(&mut self.bytes);
        let over = std::mem::take(&mut self.over);
        let offset = self.line;
        self.line += bytes.len() as u64 + over + 1;
        if self.ended {
            return;
        }
        // NUL is valid UTF-8 that databases refuse.
        let line = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
        let entry = parse(&line, &self.enabled).map(|what| {
            let said = match what {
                // Half a path names another file.
                Said::Deliverable { .. } | Said::Browser { .. } if over > 0 => Said::Progress { text: line },
                said => said,
            };
            Entry { offset, said, cut: over > 0 }
        });
        self.take(entry, said);
    }

    /// The rule of the module's page.
    fn take(&mut self, entry: Option<Entry>, said: &mut Vec<Entry>) {
        let goes_on = matches!(&entry, Some(Entry { said: Said::Progress { text }, .. })
            if !text.starts_with(char::is_whitespace));
        if let Some(held) = self.held.take() {
            if !goes_on {
                self.ended = true;
                said.push(held);
                return;
            }
            said.push(stray(held));
        }
        let Some(entry) = entry else {
            self.before = Before::Apart;
            return;
        };
        match (&entry.said, self.before) {
            (Said::Done { .. } | Said::Error { .. }, Before::Apart) => self.held = Some(entry),
            (Said::Done { .. } | Said::Error { .. }, Before::Text) => said.push(stray(entry)),
            (Said::Progress { .. }, _) => {
                // An indented line belongs to the one before it, whatever that is.
                if goes_on {
                    self.before = Before::Text;
                }
                said.push(entry);
            }
            _ => {
                self.before = Before::Apart;
                said.push(entry);
            }
        }
    }
}

fn after_pause(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_add(PAUSE_US))
}

/// An end line that ends nothing, as it was written.
fn stray(entry: Entry) -> Entry {
    let (word, value) = match entry.said {
        Said::Done { summary } => ("DONE", summary),
        Said::Error { message } => ("ERROR", message),
        said => return Entry { said, ..entry },
    };
    let text = value.map_or_else(|| word.to_owned(), |value| format!("{word}: {value}"));
    Entry { said: Said::Stray { text }, ..entry }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
