//! Input on its way to claude: each id once, journalled whole, fed from the log as fast as it is read.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use castra_proto::shim::{InputId, MAX_RECORD, Note, RECORD_HEADER, Reason, Stream};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use crate::child::Sink;
use crate::log::Log;

/// The longest single input, bytes: the CLI's own limit for a line is far below.
pub(crate) const MAX_INPUT: u64 = 80 << 20;
/// Input that claude has not read, bytes; more is refused `full`.
const MAX_PENDING: u64 = 128 << 20;
/// Pieces of it: bounds memory when they are small.
const MAX_PIECES: usize = 16 << 10;

/// Part of the log that is still to be written to claude.
#[derive(Debug, Clone, Copy)]
struct Piece {
    segment: u32,
    at: u64,
    len: u32,
}

/// What was accepted, and what claude has not read of it.
#[derive(Default)]
pub(crate) struct Input {
    seen: HashSet<InputId>,
    pieces: VecDeque<Piece>,
    pending: u64,
    /// claude's end is closed.
    pub(crate) closed: bool,
}

/// Why an input was not journalled.
pub(crate) enum Rejected {
    Refused(Reason),
    /// The log could not be written; nothing of the input is in it.
    Log(io::Error),
}

impl Input {
    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    pub(crate) fn has_seen(&self, id: InputId) -> bool {
        self.seen.contains(&id)
    }

    /// Nothing will be written any more; returns how much was not.
    pub(crate) fn close(&mut self) -> u64 {
        self.closed = true;
        self.pieces = VecDeque::new();
        std::mem::take(&mut self.pending)
    }

    /// Journals a note and the bytes of `source`, all or nothing, and queues them for claude.
    pub(crate) fn accept(
        &mut self,
        log: &mut Log,
        id: InputId,
        epoch: u64,
        len: u64,
        source: &mut dyn Read,
    ) -> Result<(), Rejected> {
        let count = len.div_ceil(MAX_RECORD as u64) as usize;
        if self.pending + len > MAX_PENDING || self.pieces.len() + count > MAX_PIECES {
            return Err(Rejected::Refused(Reason::Full));
        }
        let mark = log.mark();
        match journal(log, id, epoch, len, source) {
            Ok(pieces) => {
                self.seen.insert(id);
                self.pending += len;
                self.pieces.extend(pieces);
                Ok(())
            }
            Err(error) => {
                // What cannot be cut off is a note without its bytes: `len` tells a reader.
                let _ = log.take_back(&mark);
                Err(Rejected::Log(error))
            }
        }
    }

    /// Writes what claude takes now. `Ok(true)`: claude closed its stdin.
    pub(crate) fn feed(&mut self, log: &mut Log, stdin: &Sink, scratch: &mut Vec<u8>) -> io::Result<bool> {
        while let Some(piece) = self.pieces.front_mut() {
            scratch.resize(piece.len as usize, 0);
            log.read_exact(piece.segment, piece.at, scratch)?;
            match stdin.write(scratch) {
                Ok(sent) => {
                    self.pending -= sent as u64;
                    piece.at += sent as u64;
                    piece.len -= sent as u32;
                    if piece.len == 0 {
                        self.pieces.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => return Ok(false),
                Err(rustix::io::Errno::INTR) => (),
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }
}

fn journal(
    log: &mut Log,
    id: InputId,
    epoch: u64,
    len: u64,
    source: &mut dyn Read,
) -> io::Result<Vec<Piece>> {
    log.note(&Note::Input { input_id: id, offset: log.offset(Stream::In), len, epoch })?;
    let mut pieces = Vec::with_capacity(len.div_ceil(MAX_RECORD as u64) as usize);
    let mut left = len;
    let mut chunk = vec![0; left.min(MAX_RECORD as u64) as usize];
    while left > 0 {
        let take = left.min(MAX_RECORD as u64) as usize;
        source.read_exact(&mut chunk[..take])?;
        log.append(Stream::In, &chunk[..take])?;
        let end = log.end();
        debug_assert!(end.at > (take + RECORD_HEADER) as u64);
        pieces.push(Piece { segment: end.segment, at: end.at - take as u64, len: take as u32 });
        left -= take as u64;
    }
    Ok(pieces)
}

/// An input of several parts, on one connection, until its last part has come.
pub(crate) struct Incoming {
    pub(crate) id: InputId,
    pub(crate) next: u32,
    pub(crate) len: u64,
    /// A nameless file: a long message costs disk, not memory. `None` once it is known to be refused.
    spool: Result<File, Reason>,
}

impl Incoming {
    /// Begins with part 0.
    pub(crate) fn begin(dir: &OwnedFd, id: InputId) -> Incoming {
        Incoming { id, next: 0, len: 0, spool: nameless(dir).map_err(|_| Reason::Full) }
    }

    /// Takes the next part; whatever is wrong is said with the last one.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.next = self.next.saturating_add(1);
        self.len += bytes.len() as u64;
        if self.len > MAX_INPUT {
            self.spool = Err(Reason::TooLarge);
        } else if let Ok(file) = &mut self.spool
            && file.write_all(bytes).is_err()
        {
            self.spool = Err(Reason::Full);
        }
    }

    /// The whole input, to be read from its beginning.
    pub(crate) fn finish(self) -> Result<File, Reason> {
        let mut file = self.spool?;
        file.rewind().map_err(|_| Reason::Full)?;
        Ok(file)
    }
}

fn nameless(dir: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(dir, ".", flags | OFlags::TMPFILE, Mode::from(0o600)) {
        return Ok(file.into());
    }
    let file =
        openat(dir, "spool", flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, Mode::from(0o600))?;
    unlinkat(dir, "spool", AtFlags::empty())?;
    Ok(file.into())
}
