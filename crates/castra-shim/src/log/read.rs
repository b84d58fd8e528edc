//! Reading the log that is being written: positions, and whole records from them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use castra_proto::shim::{MAX_RECORD, RECORD_HEADER, SEGMENT_HEADER, segment_name};
use rustix::fs::{OFlags, openat};

use super::{INDEX_EVERY, Log};

/// The beginning of a record, or the end of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pos {
    /// Segment number, from 1.
    pub(crate) segment: u32,
    /// Byte in the file.
    pub(crate) at: u64,
}

impl Log {
    /// Where the next record will be.
    pub(crate) fn end(&self) -> Pos {
        Pos { segment: self.number(), at: self.len() }
    }

    /// Where record `seq` begins; the end when it does not exist yet.
    pub(crate) fn find(&mut self, seq: u64, scratch: &mut Vec<u8>) -> io::Result<Pos> {
        if seq >= self.next_seq {
            return Ok(self.end());
        }
        let index = self.segments.partition_point(|s| s.first_seq <= seq).max(1) - 1;
        let segment = &self.segments[index];
        let near = segment.index.partition_point(|&(first, _)| first <= seq);
        let (mut found, mut at) = match near.checked_sub(1) {
            Some(i) => segment.index[i],
            None => (segment.first_seq, SEGMENT_HEADER as u64),
        };
        let end = segment.len.min(at + INDEX_EVERY + 2 * (RECORD_HEADER + MAX_RECORD) as u64);
        let number = index as u32 + 1;
        scratch.resize((end - at) as usize, 0);
        self.read_exact(number, at, scratch)?;
        let base = at;
        while found < seq {
            let Some(len) = record_len(&scratch[(at - base) as usize..]) else { break };
            at += len as u64;
            found += 1;
        }
        Ok(Pos { segment: number, at })
    }

    /// Fills `buf` with whole records from `pos` on, at most `max` bytes, and moves `pos` past them.
    /// Empty at the end of the log. `max` must hold a record.
    pub(crate) fn read_records(&mut self, pos: &mut Pos, max: usize, buf: &mut Vec<u8>) -> io::Result<()> {
        buf.clear();
        loop {
            let Some(segment) = self.segments.get(pos.segment as usize - 1) else { return Ok(()) };
            if pos.at < segment.len {
                let want = (segment.len - pos.at).min(max as u64) as usize;
                buf.resize(want, 0);
                self.read_exact(pos.segment, pos.at, buf)?;
                let whole = whole_records(buf);
                buf.truncate(whole);
                pos.at += whole as u64;
                return Ok(());
            }
            if pos.segment >= self.number() {
                return Ok(());
            }
            *pos = Pos { segment: pos.segment + 1, at: SEGMENT_HEADER as u64 };
        }
    }

    /// Bytes of a segment that are known to be there.
    pub(crate) fn read_exact(&mut self, number: u32, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if number == self.number() {
            return self.current.read_exact_at(buf, at);
        }
        if self.reading.as_ref().is_none_or(|(open, _)| *open != number) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = openat(&self.dir, segment_name(number), flags, 0.into())?;
            self.reading = Some((number, File::from(file)));
        }
        match &self.reading {
            Some((_, file)) => file.read_exact_at(buf, at),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Length on disk of the record at the front, if its header is there. Our own bytes: not verified.
fn record_len(buf: &[u8]) -> Option<usize> {
    let len = buf.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize)?;
    Some(RECORD_HEADER + len)
}

fn whole_records(buf: &[u8]) -> usize {
    let mut at = 0;
    while let Some(len) = record_len(&buf[at..]) {
        if at + len > buf.len() {
            break;
        }
        at += len;
    }
    at
}
