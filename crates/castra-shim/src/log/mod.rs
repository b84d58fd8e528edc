//! The record log being written: append, roll, take back. Readers are served from the files.
//!
//! One writer. What is appended is whole or gone: a failed write is cut off before anyone can see it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use castra_proto::shim::{
    MAX_RECORD, Note, RECORD_HEADER, SEGMENT_HEADER, SEGMENT_VERSION, SegmentHeader, Stream, record_header,
    segment_name,
};
use rustix::fs::{AtFlags, Mode, OFlags, ftruncate, mkdirat, openat, unlinkat};
use uuid::Uuid;

use crate::procs::boot_ns;

mod read;
mod sync;
#[cfg(test)]
mod tests;

pub(crate) use read::Pos;
pub(crate) use sync::Syncer;

/// Directory of the segments in the run directory.
pub(crate) const LOG_DIR: &str = "log";
/// An index entry per this many bytes: what a `follow` has to scan at most.
const INDEX_EVERY: u64 = 256 << 10;

/// Values of [`Stream::code`].
const STREAMS: usize = 1 << 8;

/// What every segment of a run says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogId {
    pub(crate) run: Uuid,
    pub(crate) boot_id: Uuid,
    pub(crate) wall_ns: u64,
    pub(crate) boot_ns: u64,
}

/// A segment as the writer knows it.
#[derive(Debug)]
struct Segment {
    first_seq: u64,
    len: u64,
    /// Sparse: record number and where it begins.
    index: Vec<(u64, u64)>,
}

/// Where the log was, to take back what was appended since.
pub(crate) struct Mark {
    segments: usize,
    len: u64,
    next_seq: u64,
    offsets: [u64; STREAMS],
}

pub(crate) struct Log {
    dir: OwnedFd,
    id: LogId,
    limit: u64,
    segments: Vec<Segment>,
    current: Arc<File>,
    next_seq: u64,
    /// Bytes per stream, by [`Stream::code`].
    offsets: [u64; STREAMS],
    sync: Syncer,
    /// The segment a slow reader is in.
    reading: Option<(u32, File)>,
    /// The current segment takes no more records.
    ended: bool,
}

impl Log {
    /// Begins the log of a new run in `run_dir`; an existing one is an error.
    pub(crate) fn create(run_dir: &OwnedFd, id: LogId, limit: u64, sync: Syncer) -> io::Result<Log> {
        mkdirat(run_dir, LOG_DIR, Mode::from(0o700))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = openat(run_dir, LOG_DIR, flags, Mode::empty())?;
        let current = Arc::new(new_segment(&dir, &id, 1, 1)?);
        sync.dirty(1, &current, Some(&dir));
        let first = Segment { first_seq: 1, len: SEGMENT_HEADER as u64, index: Vec::new() };
        Ok(Log {
            dir,
            id,
            limit,
            segments: vec![first],
            current,
            next_seq: 1,
            offsets: [0; STREAMS],
            sync,
            reading: None,
            ended: false,
        })
    }

    /// Number of the last record; 0 when there is none.
    pub(crate) fn last(&self) -> u64 {
        self.next_seq - 1
    }

    /// Bytes so far of a stream.
    pub(crate) fn offset(&self, stream: Stream) -> u64 {
        self.offsets[usize::from(stream.code())]
    }

    fn number(&self) -> u32 {
        self.segments.len() as u32
    }

    fn len(&self) -> u64 {
        self.segments.last().map_or(0, |s| s.len)
    }

    /// Appends one note.
    pub(crate) fn note(&mut self, note: &Note) -> io::Result<()> {
        self.append(Stream::Shim, &note.encode())
    }

    /// Appends one record of at most 64 KiB: whole, or the log is as it was.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(bytes.len() <= MAX_RECORD);
        let need = (RECORD_HEADER + bytes.len()) as u64;
        let used = self.len();
        if self.ended || (used > SEGMENT_HEADER as u64 && used + need > self.limit) {
            self.roll()?;
        }
        let header = record_header(self.next_seq, boot_ns(), stream, self.offset(stream), bytes);
        let at = self.len();
        if let Err(error) = write_at(&self.current, at, &header, bytes) {
            // What could not be cut off is written over by the next record; no reader looks past `len`.
            let _ = ftruncate(&self.current, at);
            // A full disk may have room again; any other error has ended this file.
            self.ended = !is_full(&error);
            return Err(error);
        }
        let seq = self.next_seq;
        if let Some(segment) = self.segments.last_mut() {
            segment.len += need;
            let last = segment.index.last().map_or(SEGMENT_HEADER as u64, |&(_, at)| at);
            if at - last >= INDEX_EVERY {
                segment.index.push((seq, at));
            }
        }
        self.next_seq += 1;
        self.offsets[usize::from(stream.code())] += bytes.len() as u64;
        self.sync.dirty(self.number(), &self.current, None);
        Ok(())
    }

    /// Ends the current segment; the next record begins a new one.
    pub(crate) fn end_segment(&mut self) {
        self.ended = true;
    }

    fn roll(&mut self) -> io::Result<()> {
        let number = self.number() + 1;
        let file = new_segment(&self.dir, &self.id, number, self.next_seq)?;
        self.current = Arc::new(file);
        self.segments.push(Segment {
            first_seq: self.next_seq,
            len: SEGMENT_HEADER as u64,
            index: Vec::new(),
        });
        self.sync.dirty(number, &self.current, Some(&self.dir));
        self.ended = false;
        Ok(())
    }

    /// Remembers this moment for [`Log::take_back`].
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            segments: self.segments.len(),
            len: self.len(),
            next_seq: self.next_seq,
            offsets: self.offsets,
        }
    }

    /// Removes what was appended since `mark`. Nobody has seen it: readers are served between events.
    pub(crate) fn take_back(&mut self, mark: &Mark) -> io::Result<()> {
        if self.segments.len() > mark.segments {
            let keep = openat(
                &self.dir,
                segment_name(mark.segments as u32),
                OFlags::RDWR | OFlags::CLOEXEC,
                0.into(),
            )?;
            for number in mark.segments + 1..=self.segments.len() {
                unlinkat(&self.dir, segment_name(number as u32), AtFlags::empty())?;
            }
            self.current = Arc::new(File::from(keep));
            self.segments.truncate(mark.segments);
            self.reading = None;
        }
        self.next_seq = mark.next_seq;
        self.offsets = mark.offsets;
        if let Some(segment) = self.segments.last_mut() {
            segment.len = mark.len;
            segment.index.retain(|&(seq, _)| seq < mark.next_seq);
        }
        Ok(ftruncate(&self.current, mark.len)?)
    }

    /// Waits until everything is on disk: only at the very end, when nobody depends on this loop.
    pub(crate) fn sync_now(&self) {
        let _ = self.current.sync_data();
    }
}

/// Whether room on the disk is what is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn new_segment(dir: &OwnedFd, id: &LogId, number: u32, first_seq: u64) -> io::Result<File> {
    let name = segment_name(number);
    // The directory is ours alone: what may have this name is a segment that was taken back.
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(openat(dir, &name, flags, 0o600.into())?);
    let header = SegmentHeader {
        version: SEGMENT_VERSION,
        run: id.run,
        first_seq,
        boot_id: id.boot_id,
        wall_ns: id.wall_ns,
        boot_ns: id.boot_ns,
    };
    if let Err(error) = file.write_all_at(&header.encode(), 0) {
        let _ = unlinkat(dir, &name, AtFlags::empty());
        return Err(error);
    }
    Ok(file)
}

/// Header and payload with one system call in the usual case.
fn write_at(file: &File, at: u64, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    let total = header.len() + bytes.len();
    let written = loop {
        match rustix::io::pwritev(file.as_fd(), &[IoSlice::new(header), IoSlice::new(bytes)], at) {
            Err(rustix::io::Errno::INTR) => (),
            other => break other?,
        }
    };
    if written == total {
        return Ok(());
    }
    let done = written.saturating_sub(header.len());
    if written < header.len() {
        file.write_all_at(&header[written..], at + written as u64)?;
    }
    file.write_all_at(&bytes[done..], at + (header.len() + done) as u64)
}
