//! Segments of a log that nobody writes any more, compressed: gzip, so that `zcat` reads them where castra is not.
//! Refuses to decide which; never changes the bytes, whether they are good records or not.
//!
//! The steps are temporary file, read back, sync, rename, and only then the removal of the original: a kill between
//! any two leaves the original, and doing it again is harmless.

use std::io::{self, Read, Write};

use bytes::Bytes;
use castra_proto::shim::relay::{At, MAX_DATA};
use castra_proto::shim::{segment_name, segment_number};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use thiserror::Error;

use super::{Files, HostError, RunDir};
use crate::failpoint::failpoint;

/// Smaller ones would take a block of the disk either way, bytes.
const WORTH: u64 = 4096;
/// Compressed bytes that hold a segment's header for certain.
pub(super) const HEAD: u64 = 4096;
/// No segment is longer when it is read: many times what a shim writes before it begins the next.
const MAX_SEGMENT: usize = 256 << 20;
/// zlib's own default. Recordings of the CLI shrink 9 times at 57 MB/s; 4 is half as fast again for 5 % more bytes,
/// 9 a quarter slower for 0.4 % fewer.
const LEVEL: Compression = Compression::new(6);

/// Why a segment was not compressed, or why what is compressed cannot be read.
#[derive(Debug, Error)]
pub enum NotPacked {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the compressed file is not whole: {0}")]
    Damaged(#[source] io::Error),
    #[error("the compressed file is longer than any segment")]
    TooLong,
    /// What was read back is not what was written.
    #[error("{read} bytes were read back of {written}")]
    Differs { written: u64, read: u64 },
    #[error("the supervisor is ending")]
    Ending,
}

/// What compressing did, in bytes of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    pub before: u64,
    pub after: u64,
}

pub(super) fn log_dir(run: &RunDir) -> String {
    format!("{}/log", run.0)
}

fn packed_name(segment: u32) -> String {
    format!("{}.gz", segment_name(segment))
}

pub(super) fn packed_number(name: &str) -> Option<u32> {
    segment_number(name.strip_suffix(".gz")?)
}

pub(super) fn packed_at(dir: &str, segment: u32) -> At {
    At::home(format!("{dir}/{}", packed_name(segment)))
}

pub(crate) fn is_missing(error: &HostError) -> bool {
    const ENOENT: i32 = 2;
    matches!(error, HostError::Relay(relay) if relay.errno() == Some(ENOENT))
}

/// Compresses the next segment of a log that nobody writes any more; `None` when there is none left to do.
///
/// # Errors
/// Of the host. The log is as it was, or has that segment twice, which a reader does not mind.
pub async fn pack(files: &dyn Files, run: &RunDir) -> Result<Option<Packed>, NotPacked> {
    let dir = log_dir(run);
    let entries = match files.list(At::home(dir.clone())).await {
        Err(error) if is_missing(&error) => return Ok(None),
        other => other?,
    };
    let mut worth = entries.iter().filter(|entry| entry.size >= WORTH);
    match worth.find_map(|entry| segment_number(&entry.name)) {
        Some(segment) => Ok(Some(one(files, &dir, segment).await?)),
        None => Ok(None),
    }
}

async fn one(files: &dyn Files, dir: &str, segment: u32) -> Result<Packed, NotPacked> {
    let whole = At::home(format!("{dir}/{}", segment_name(segment)));
    let target = packed_at(dir, segment);
    // The same name each time: what a killed daemon left is written over.
    let temp = At::home(format!("{}.tmp", target.path));
    let mut packer = Packer(GzEncoder::new(Vec::new(), LEVEL));
    let mut done = Packed::default();
    loop {
        let (data, size) = files.get(whole.clone(), done.before, MAX_DATA as u64).await?;
        done.before += data.len() as u64;
        let more = !data.is_empty() && done.before < size;
        let out;
        (packer, out) = packer.push(data, !more).await?;
        if !out.is_empty() || done.after == 0 {
            let len = out.len() as u64;
            files.append(temp.clone(), done.after, 0o600, out).await?;
            done.after += len;
        }
        if !more {
            break;
        }
    }
    failpoint!("pack.written");
    verify(files, &temp, done.before).await?;
    files.rename(temp, target, true).await?;
    failpoint!("pack.renamed");
    files.remove(whole).await?;
    failpoint!("pack.removed");
    Ok(done)
}

/// Reads the file back: its checksum is that of what was to be compressed.
async fn verify(files: &dyn Files, at: &At, written: u64) -> Result<(), NotPacked> {
    let mut unpack = Unpack::discarding();
    let mut offset = 0;
    loop {
        let (data, _) = files.get(at.clone(), offset, MAX_DATA as u64).await?;
        if data.is_empty() {
            break;
        }
        offset += data.len() as u64;
        unpack = unpack.push(data).await?;
    }
    let read = unpack.end()?.len as u64;
    if read == written { Ok(()) } else { Err(NotPacked::Differs { written, read }) }
}

/// The first `want` bytes of what `data` begins to hold.
pub(super) fn head(data: &[u8], want: usize) -> Vec<u8> {
    let mut out = Vec::new();
    // What cannot be read is found when the segment is.
    let _ = flate2::read::GzDecoder::new(data).take(want as u64).read_to_end(&mut out);
    out
}

/// Work of milliseconds for each piece: not for the threads that serve everybody.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotPacked> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NotPacked::Ending)
}

struct Packer(GzEncoder<Vec<u8>>);

impl Packer {
    /// Takes a piece and gives what it has of the compressed bytes.
    async fn push(mut self, data: Bytes, last: bool) -> Result<(Packer, Bytes), NotPacked> {
        aside(move || {
            // Into memory: there is no other error than a bug in the encoder.
            self.0.write_all(&data).map_err(NotPacked::Damaged)?;
            if last {
                self.0.try_finish().map_err(NotPacked::Damaged)?;
            }
            let out = std::mem::take(self.0.get_mut());
            Ok((self, Bytes::from(out)))
        })
        .await?
    }
}

/// Decompresses what comes in pieces.
pub(super) struct Unpack {
    decoder: GzDecoder<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    len: usize,
    discard: bool,
}

impl Write for Kept {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.len += buf.len();
        if !self.discard {
            self.bytes.extend_from_slice(buf);
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Unpack {
    fn default() -> Self {
        Unpack { decoder: GzDecoder::new(Kept::default()) }
    }
}

impl Unpack {
    fn discarding() -> Self {
        Unpack { decoder: GzDecoder::new(Kept { discard: true, ..Kept::default() }) }
    }

    pub(super) async fn push(mut self, data: Bytes) -> Result<Unpack, NotPacked> {
        aside(move || {
            // A piece at a time, so that a small file cannot become any number of bytes.
            for piece in data.chunks(64 << 10) {
                self.decoder.write_all(piece).map_err(NotPacked::Damaged)?;
                if self.decoder.get_ref().len > MAX_SEGMENT {
                    return Err(NotPacked::TooLong);
                }
            }
            Ok(self)
        })
        .await?
    }

    /// The bytes, once the checksum at the end has been seen.
    pub(super) fn finish(self) -> Result<Vec<u8>, NotPacked> {
        Ok(self.end()?.bytes)
    }

    fn end(self) -> Result<Kept, NotPacked> {
        self.decoder.finish().map_err(NotPacked::Damaged)
    }
}
