//! Lines of a byte stream: names them and puts them together from records. Refuses to know what they mean.

use crate::fact::Note;
use bytes::Bytes;
use memchr::memchr_iter;

/// A line longer than this is cut; each part is an `unknown` event of its own. Bytes.
pub const MAX_LINE: usize = 256 << 20;

/// The stream of a run that a record belongs to. Stdout and stderr are decoded by [`crate::Decoder`], transcripts by
/// [`crate::Tail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamIn {
    In,
    Out,
    Err,
    /// Whatever the shim says about itself, and PTY bytes.
    Shim,
    /// The nth tailed file of the run.
    File(u8),
}

/// One record of the shim's log, as the decoder takes it.
#[derive(Clone, Debug)]
pub struct RecordIn {
    pub seq: u64,
    /// Boot-time nanoseconds: the only time that the decoder knows.
    pub at: u64,
    pub stream: StreamIn,
    /// Where `bytes` begin in their stream. Bytes.
    pub offset: u64,
    pub bytes: Bytes,
}

/// The name of a line within a run: its stream and the offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineId {
    pub stream: StreamIn,
    pub offset: u64,
}

/// A line as it was cut out of the stream, without its newline.
pub(crate) struct Line<'a> {
    pub(crate) offset: u64,
    /// Of the record in which it began.
    pub(crate) began: u64,
    /// `Cut` or `Torn`, else none.
    pub(crate) note: Option<Note>,
    bytes: Source<'a>,
}

enum Source<'a> {
    /// Within one record: shared, not copied.
    Record(&'a Bytes, usize, usize),
    Assembled(&'a mut Vec<u8>),
}

impl Line<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Source::Record(record, from, to) => &record[*from..*to],
            Source::Assembled(buffer) => buffer,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self.bytes {
            Source::Record(record, from, to) => record.slice(from..to),
            Source::Assembled(buffer) => Bytes::from(std::mem::take(buffer)),
        }
    }
}

/// The lines of one stream.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    /// Where the next record should begin.
    next: Option<u64>,
    /// The record in which the unfinished line began.
    began: Option<u64>,
    /// Where `buffer` begins in the stream.
    start: u64,
    buffer: Vec<u8>,
    /// Parts of this line have been emitted already.
    cut: bool,
}

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, next: None, began: None, start: 0, buffer: Vec::new(), cut: false }
    }

    /// The record in which the unfinished line began. Also for a line of which parts were emitted: whoever
    /// starts anew must see its beginning to cut it at the same places.
    pub(crate) fn hold(&self) -> Option<u64> {
        self.began
    }

    pub(crate) fn feed(&mut self, record: &RecordIn, emit: &mut impl FnMut(Line<'_>)) {
        if self.next.is_some_and(|next| next != record.offset) {
            self.finish(emit);
        }
        self.next = Some(record.offset + record.bytes.len() as u64);
        let mut from = 0;
        for to in memchr_iter(b'\n', &record.bytes) {
            if self.began.is_none() && to - from <= self.limit {
                let bytes = Source::Record(&record.bytes, from, to);
                let offset = record.offset + from as u64;
                emit(Line { offset, began: record.seq, note: None, bytes });
            } else {
                self.push(record, from, to, emit);
                let note = self.cut.then_some(Note::Cut);
                self.end(note, emit);
            }
            from = to + 1;
        }
        if from < record.bytes.len() {
            self.push(record, from, record.bytes.len(), emit);
        }
    }

    /// The stream is over, or the next bytes do not follow: what is unfinished is torn.
    pub(crate) fn finish(&mut self, emit: &mut impl FnMut(Line<'_>)) {
        if self.began.is_some() {
            self.end(Some(Note::Torn), emit);
        }
        self.next = None;
    }

    fn push(&mut self, record: &RecordIn, from: usize, to: usize, emit: &mut impl FnMut(Line<'_>)) {
        let began = match self.began {
            Some(began) => began,
            None => {
                self.start = record.offset + from as u64;
                *self.began.insert(record.seq)
            }
        };
        let mut rest = &record.bytes[from..to];
        while self.buffer.len() + rest.len() > self.limit {
            let (part, after) = rest.split_at(self.limit - self.buffer.len());
            self.buffer.extend_from_slice(part);
            let (offset, length) = (self.start, self.buffer.len() as u64);
            let bytes = Source::Assembled(&mut self.buffer);
            emit(Line { offset, began, note: Some(Note::Cut), bytes });
            self.buffer.clear();
            self.start += length;
            self.cut = true;
            rest = after;
        }
        self.buffer.extend_from_slice(rest);
    }

    fn end(&mut self, note: Option<Note>, emit: &mut impl FnMut(Line<'_>)) {
        let began = self.began.take().unwrap_or_default();
        // A cut line that ends where its last part does has no further part.
        if !(self.cut && self.buffer.is_empty()) {
            let bytes = Source::Assembled(&mut self.buffer);
            emit(Line { offset: self.start, began, note, bytes });
        }
        self.buffer.clear();
        // One huge line must not keep its memory for the rest of the run.
        self.buffer.shrink_to(1 << 20);
        self.cut = false;
    }
}
