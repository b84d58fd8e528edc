//! The decoder: records of one run in, events and facts out. Refuses clocks, so that replay repeats itself.

use crate::fact::Decoded;
use crate::line::RecordIn;
use crate::open::OpenMessage;

/// The decoder of one run's output.
///
/// The same records give the same lines, also when decoding starts anew at a `hold` and only what ends
/// after the cursor is taken (design.md §3.4).
#[derive(Debug, Default)]
pub struct Decoder {
    open: OpenMessage,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record; appends the lines that it completes.
    pub fn step(&mut self, _record: RecordIn, _out: &mut Vec<Decoded>) {}

    /// The run is over: what is unfinished is appended as torn.
    pub fn finish(&mut self, _out: &mut Vec<Decoded>) {}

    /// The oldest record that is still needed; none: the next one.
    pub fn hold(&self) -> Option<u64> {
        None
    }

    /// The text so far of the message that is being written.
    pub fn open(&self) -> &OpenMessage {
        &self.open
    }
}
