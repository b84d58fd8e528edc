//! The record log's bytes: segment header, record, and a decoder that tells a torn tail from damage.
//!
//! Little endian throughout. A segment is one [`SegmentHeader`] and records back to back:
//! `[u32 len][u32 crc32c][u64 seq][u64 at][u8 stream][u64 offset][len bytes]`. The checksum covers
//! everything but itself, `len` included, so that a run of zeros is never a record.

use thiserror::Error;
use uuid::Uuid;

/// Bytes in front of a record's payload.
pub const RECORD_HEADER: usize = 33;
/// The longest payload of one record, in bytes: one read of the shim.
pub const MAX_RECORD: usize = 64 * 1024;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 76;
/// The segment format this build writes.
pub const SEGMENT_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"castrlog";

/// Where a record's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// What was accepted for claude's stdin.
    In,
    /// claude's stdout.
    Out,
    /// claude's stderr.
    Err,
    /// The terminal, both directions as the screen shows them.
    Pty,
    /// The shim's own notes, JSON ([`super::Note`]).
    Shim,
    /// The nth tailed file.
    File(u8),
}

impl Stream {
    /// The byte on disk. 0 is never used: zeroed blocks must not decode. Files are 16 and up.
    pub fn code(self) -> u8 {
        match self {
            Stream::In => 1,
            Stream::Out => 2,
            Stream::Err => 3,
            Stream::Pty => 4,
            Stream::Shim => 5,
            Stream::File(n) => 16u8.saturating_add(n),
        }
    }

    /// The stream of a byte on disk, if there is one.
    pub fn from_code(code: u8) -> Option<Stream> {
        match code {
            1 => Some(Stream::In),
            2 => Some(Stream::Out),
            3 => Some(Stream::Err),
            4 => Some(Stream::Pty),
            5 => Some(Stream::Shim),
            16.. => Some(Stream::File(code - 16)),
            _ => None,
        }
    }
}

/// One record, borrowed from the buffer it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Position in the log; the first is 1, no gaps.
    pub seq: u64,
    /// CLOCK_BOOTTIME nanoseconds.
    pub at: u64,
    pub stream: Stream,
    /// Bytes of this stream before this record.
    pub offset: u64,
    pub bytes: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadRecord {
    #[error("cut short: {have} of {need} bytes")]
    Short { have: usize, need: usize },
    #[error("length {len} is over the limit")]
    Length { len: u32 },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("unknown stream {code}")]
    Stream { code: u8 },
}

/// What ends the decoding of a log before its end. Positions count from the first record's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LogError {
    /// Nothing valid follows: what a crash leaves. Cut at `at`.
    #[error("torn tail of {lost} bytes at {at}: {why}")]
    Torn { at: usize, lost: usize, why: BadRecord },
    /// A valid, later record follows at `resumes_at`: data between was lost after it was written.
    #[error("damage at {at}, next good record {seq} at {resumes_at}: {why}")]
    Damaged { at: usize, resumes_at: usize, seq: u64, why: BadRecord },
    /// The checksum is good and the number is not the next one.
    #[error("record {found} where {expected} was expected, at {at}")]
    Gap { at: usize, expected: u64, found: u64 },
}

fn u32_at(buf: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&buf[at..at + 4]);
    u32::from_le_bytes(b)
}

fn u64_at(buf: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(b)
}

/// The header that goes in front of `bytes` (at most [`MAX_RECORD`]; the caller splits).
pub fn record_header(seq: u64, at: u64, stream: Stream, offset: u64, bytes: &[u8]) -> [u8; RECORD_HEADER] {
    debug_assert!(bytes.len() <= MAX_RECORD);
    let mut header = [0u8; RECORD_HEADER];
    header[0..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&seq.to_le_bytes());
    header[16..24].copy_from_slice(&at.to_le_bytes());
    header[24] = stream.code();
    header[25..33].copy_from_slice(&offset.to_le_bytes());
    let crc = checksum(&header, bytes);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header
}

fn checksum(header: &[u8], bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[0..4]);
    let crc = crc32c::crc32c_append(crc, &header[8..RECORD_HEADER]);
    crc32c::crc32c_append(crc, bytes)
}

/// Appends one whole record to `out`.
pub fn encode_record(out: &mut Vec<u8>, seq: u64, at: u64, stream: Stream, offset: u64, bytes: &[u8]) {
    out.extend_from_slice(&record_header(seq, at, stream, offset, bytes));
    out.extend_from_slice(bytes);
}

/// The record at the front of `buf` and its length on disk, checksum verified.
pub fn split_record(buf: &[u8]) -> Result<(Record<'_>, usize), BadRecord> {
    if buf.len() < RECORD_HEADER {
        return Err(BadRecord::Short { have: buf.len(), need: RECORD_HEADER });
    }
    let len = u32_at(buf, 0);
    if len as usize > MAX_RECORD {
        return Err(BadRecord::Length { len });
    }
    let end = RECORD_HEADER + len as usize;
    if buf.len() < end {
        return Err(BadRecord::Short { have: buf.len(), need: end });
    }
    let bytes = &buf[RECORD_HEADER..end];
    let (expected, found) = (u32_at(buf, 4), checksum(buf, bytes));
    if expected != found {
        return Err(BadRecord::Checksum { found, expected });
    }
    let stream = Stream::from_code(buf[24]).ok_or(BadRecord::Stream { code: buf[24] })?;
    let record = Record { seq: u64_at(buf, 8), at: u64_at(buf, 16), stream, offset: u64_at(buf, 25), bytes };
    Ok((record, end))
}

/// Records of a segment (without its header), in order; the first error is the last item.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    buf: &'a [u8],
    good: usize,
    next: Option<u64>,
    ended: bool,
}

impl<'a> Records<'a> {
    /// Decodes `buf`, taking whatever number the first record has.
    pub fn new(buf: &'a [u8]) -> Records<'a> {
        Records { buf, good: 0, next: None, ended: false }
    }

    /// Decodes `buf`, whose first record must be number `first`.
    pub fn expecting(buf: &'a [u8], first: u64) -> Records<'a> {
        Records { buf, good: 0, next: Some(first), ended: false }
    }

    /// Bytes decoded so far: where to cut a torn tail.
    pub fn good(&self) -> usize {
        self.good
    }

    fn classify(&self, why: BadRecord) -> LogError {
        let rest = &self.buf[self.good..];
        let last = rest.len().saturating_sub(RECORD_HEADER);
        // A later record at any byte position means that this is no tail. The number and the stream
        // are tested before the checksum, so that the search stays linear in practice.
        for skip in 1..=last {
            let at = &rest[skip..];
            let near = match self.next {
                Some(next) => (next..next.saturating_add(1 << 24)).contains(&u64_at(at, 8)),
                None => true,
            };
            if near
                && Stream::from_code(at[24]).is_some()
                && let Ok((record, _)) = split_record(at)
            {
                let resumes_at = self.good + skip;
                return LogError::Damaged { at: self.good, resumes_at, seq: record.seq, why };
            }
        }
        LogError::Torn { at: self.good, lost: rest.len(), why }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.good == self.buf.len() {
            return None;
        }
        match split_record(&self.buf[self.good..]) {
            Ok((record, used)) => {
                if let Some(expected) = self.next
                    && expected != record.seq
                {
                    self.ended = true;
                    return Some(Err(LogError::Gap { at: self.good, expected, found: record.seq }));
                }
                self.good += used;
                self.next = Some(record.seq.wrapping_add(1));
                Some(Ok(record))
            }
            Err(why) => {
                self.ended = true;
                Some(Err(self.classify(why)))
            }
        }
    }
}

/// The front of every segment file. The clock pair is taken once per run, so that `at` of a record
/// becomes the same wall time whichever segment or socket it is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub version: u32,
    pub run: Uuid,
    /// Number of the segment's first record.
    pub first_seq: u64,
    pub boot_id: Uuid,
    /// CLOCK_REALTIME at the run's start, nanoseconds since 1970.
    pub wall_ns: u64,
    /// CLOCK_BOOTTIME at the same moment, nanoseconds.
    pub boot_ns: u64,
}

/// Why a file is not a segment that this build can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSegment {
    #[error("header cut short: {have} bytes")]
    Short { have: usize },
    #[error("not a segment")]
    Magic,
    #[error("segment format {version} is not known")]
    Version { version: u32 },
    #[error("header checksum is wrong")]
    Checksum,
}

impl SegmentHeader {
    /// The header's bytes: magic, version, run, first seq, boot id, wall ns, boot ns, crc32c.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0u8; SEGMENT_HEADER];
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        out[12..28].copy_from_slice(self.run.as_bytes());
        out[28..36].copy_from_slice(&self.first_seq.to_le_bytes());
        out[36..52].copy_from_slice(self.boot_id.as_bytes());
        out[52..60].copy_from_slice(&self.wall_ns.to_le_bytes());
        out[60..68].copy_from_slice(&self.boot_ns.to_le_bytes());
        // 68..72 is reserved and zero.
        let crc = crc32c::crc32c(&out[..72]);
        out[72..76].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the front of a segment file.
    pub fn decode(buf: &[u8]) -> Result<SegmentHeader, BadSegment> {
        if buf.len() < SEGMENT_HEADER {
            return Err(BadSegment::Short { have: buf.len() });
        }
        if &buf[0..8] != MAGIC {
            return Err(BadSegment::Magic);
        }
        if crc32c::crc32c(&buf[..72]) != u32_at(buf, 72) {
            return Err(BadSegment::Checksum);
        }
        let version = u32_at(buf, 8);
        if version != SEGMENT_VERSION {
            return Err(BadSegment::Version { version });
        }
        let uuid = |at: usize| {
            let mut b = [0; 16];
            b.copy_from_slice(&buf[at..at + 16]);
            Uuid::from_bytes(b)
        };
        Ok(SegmentHeader {
            version,
            run: uuid(12),
            first_seq: u64_at(buf, 28),
            boot_id: uuid(36),
            wall_ns: u64_at(buf, 52),
            boot_ns: u64_at(buf, 60),
        })
    }

    /// Wall time of a record's `at`, nanoseconds since 1970.
    pub fn wall(&self, at: u64) -> u64 {
        if at >= self.boot_ns {
            self.wall_ns.saturating_add(at - self.boot_ns)
        } else {
            self.wall_ns.saturating_sub(self.boot_ns - at)
        }
    }
}
