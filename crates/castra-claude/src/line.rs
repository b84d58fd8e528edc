//! Lines of a byte stream: names them and puts them together from records. Refuses to know what they mean.

use bytes::Bytes;

/// A line longer than this is cut; each part is an `unknown` event of its own. Bytes.
pub const MAX_LINE: usize = 256 << 20;

/// The stream of a run that a record belongs to. Only claude's stdout and stderr are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamIn {
    In,
    Out,
    Err,
    /// Whatever the shim says about itself, PTY bytes, tailed files.
    Shim,
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
