//! The decoder: records of one run in, events and facts out. Refuses clocks, so that replay repeats itself.

mod control;
mod read;
mod summary;

use crate::fact::{Decoded, Fact, Note};
use crate::line::{Line, LineId, Lines, MAX_LINE, RecordIn, StreamIn};
use crate::open::OpenMessage;
use crate::peek::{Head, STREAM_EVENT, StreamLine};
use bytes::Bytes;
use castra_proto::{Kind, OwnKind};
use serde::de::IgnoredAny;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use read::{fact, is_interrupt, is_synthetic, succeeded};
pub(crate) use summary::one_line;
pub use summary::{last_sentence, preview};

/// The decoder of one run's output.
///
/// The same records give the same lines, also when decoding starts anew at a `hold` and only what ends
/// after the cursor is taken (design.md §3.4). A start in the middle may meet the tail of an older line first;
/// that one ended before the cursor, and says nothing to the state.
#[derive(Debug)]
pub struct Decoder {
    out: Lines,
    err: Lines,
    state: State,
    /// Sequence number and time of the newest record of stdout and of stderr.
    newest: [(u64, u64); 2],
}

/// What lines leave behind beside events.
#[derive(Debug, Default)]
struct State {
    open: OpenMessage,
    /// The record in which the open message began.
    open_since: Option<u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_max_line(MAX_LINE)
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// With another limit than [`MAX_LINE`]. Bytes.
    pub fn with_max_line(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { out: Lines::new(limit), err: Lines::new(limit), state: State::default(), newest: [(0, 0); 2] }
    }

    /// Takes the next record; appends the lines that it completes.
    pub fn step(&mut self, record: RecordIn, out: &mut Vec<Decoded>) {
        let when = (record.seq, record.at);
        let Self { out: stdout, err: stderr, state, newest } = self;
        match record.stream {
            StreamIn::Out => {
                stdout.feed(&record, &mut |line| state.stdout(line, when, out));
                newest[0] = when;
            }
            StreamIn::Err => {
                stderr.feed(&record, &mut |line| out.push(stderr_line(line, when)));
                newest[1] = when;
            }
            StreamIn::In | StreamIn::Shim | StreamIn::File(_) => {}
        }
    }

    /// The run is over: what is unfinished is appended as torn.
    pub fn finish(&mut self, out: &mut Vec<Decoded>) {
        let Self { out: stdout, err: stderr, state, newest } = self;
        stdout.finish(&mut |line| state.stdout(line, newest[0], out));
        stderr.finish(&mut |line| out.push(stderr_line(line, newest[1])));
        state.close();
    }

    /// The oldest record that is still needed; none: the next one.
    pub fn hold(&self) -> Option<u64> {
        [self.out.hold(), self.err.hold(), self.state.open_since].into_iter().flatten().min()
    }

    /// The text so far of the message that is being written.
    pub fn open(&self) -> &OpenMessage {
        &self.state.open
    }
}

impl State {
    fn close(&mut self) {
        self.open.close();
        self.open_since = None;
    }

    fn stdout(&mut self, line: Line<'_>, when: (u64, u64), out: &mut Vec<Decoded>) {
        let (offset, began, cut) = (line.offset, line.began, line.note);
        let bytes = line.as_slice();
        if bytes.is_empty() {
            return;
        }
        let text = match (cut, std::str::from_utf8(bytes)) {
            (Some(Note::Cut), _) => return out.push(unknown(StreamIn::Out, line, when, Note::Cut, false)),
            (_, Ok(text)) => text,
            (_, Err(_)) => {
                return out.push(unknown(StreamIn::Out, line, when, cut.unwrap_or(Note::NotUtf8), false));
            }
        };
        if bytes.starts_with(STREAM_EVENT) && self.stream_event(text, offset, began) {
            return;
        }
        let Ok(head) = serde_json::from_str::<Head<'_>>(text) else {
            // Also an object with a field twice: valid JSON, but no message of claude's.
            let json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            let note = if json { Note::NotAMessage } else { cut.unwrap_or(Note::NotJson) };
            return out.push(unknown(StreamIn::Out, line, when, note, json));
        };
        if head.kind.is_empty() || !text.trim_start().starts_with('{') {
            return out.push(unknown(StreamIn::Out, line, when, Note::NotAMessage, true));
        }
        if &*head.kind == "stream_event" && self.stream_event(text, offset, began) {
            return;
        }
        let fact = match &*head.kind {
            "control_request" => control::request(text),
            kind => serde_json::from_str::<Value>(text).map_or(Fact::Other, |value| read::fact(kind, value)),
        };
        self.note(&fact);
        let decoded = Decoded {
            line: LineId { stream: StreamIn::Out, offset },
            record_seq: when.0,
            at: when.1,
            kind: Kind::of_claude(&head.kind),
            session_id: Uuid::parse_str(&head.session_id).ok(),
            data: Bytes::new(),
            json: true,
            raw: None,
            note: None,
            fact,
        };
        out.push(Decoded { data: line.into_bytes(), ..decoded });
    }

    /// False: not readable as one, and so an event like any other line.
    fn stream_event(&mut self, text: &str, offset: u64, began: u64) -> bool {
        let Ok(line) = serde_json::from_str::<StreamLine<'_>>(text) else { return false };
        // A subagent's text is no part of the conversation's open message.
        if line.parent_tool_use_id.is_empty() {
            self.open.apply(&line.event, offset);
            self.open_since = match (self.open.generation, self.open_since) {
                (0, _) => None,
                (generation, _) if generation == offset + 1 => Some(began),
                (_, since) => since,
            };
        }
        true
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Assistant(assistant) if assistant.parent_tool_use_id.is_none() => {
                for kind in &assistant.blocks {
                    self.open.close_block(assistant.message_id.as_deref(), *kind);
                }
            }
            Fact::Result(_) => self.close(),
            _ => {}
        }
    }
}

pub(crate) fn unknown(stream: StreamIn, line: Line<'_>, when: (u64, u64), note: Note, json: bool) -> Decoded {
    Decoded {
        line: LineId { stream, offset: line.offset },
        record_seq: when.0,
        at: when.1,
        kind: OwnKind::Unknown.into(),
        data: line.into_bytes(),
        json,
        raw: None,
        note: Some(note),
        session_id: None,
        fact: Fact::Other,
    }
}

fn stderr_line(line: Line<'_>, when: (u64, u64)) -> Decoded {
    let (offset, mut note) = (line.offset, line.note);
    let original = line.into_bytes();
    let text = String::from_utf8_lossy(&original);
    let data = Bytes::from(serde_json::json!({ "text": text }).to_string());
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    drop(text);
    if lossy && note.is_none() {
        note = Some(Note::NotUtf8);
    }
    Decoded {
        line: LineId { stream: StreamIn::Err, offset },
        record_seq: when.0,
        at: when.1,
        kind: OwnKind::Stderr.into(),
        data,
        json: true,
        raw: lossy.then_some(original),
        note,
        session_id: None,
        fact: Fact::Stderr,
    }
}

#[cfg(test)]
mod tests;
