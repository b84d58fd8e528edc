//! Reading a run's log from its files, as the shim wrote them or compressed: for runs whose shim is gone, and for
//! what was acknowledged.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes, BytesMut};
use castra_proto::shim::relay::{At, MAX_DATA};
use castra_proto::shim::{
    BadSegment, LogError, Records, SEGMENT_HEADER, SegmentHeader, segment_name, segment_number,
};
use thiserror::Error;

use super::pack::{self, NotPacked, Unpack, is_missing, packed_number};
use super::{Files, HostError, Record, RunDir};

/// Why a log cannot be read on. What came before is good.
#[derive(Debug, Error)]
pub enum LogReadError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("segment {segment}: {source}")]
    Segment { segment: u32, source: BadSegment },
    /// Damage in the middle: reported, never skipped. A torn tail is not an error, see [`LogReader::torn`].
    #[error("segment {segment}: {source}")]
    Records { segment: u32, source: LogError },
    /// Only the compressed file is there, and it is not whole.
    #[error("segment {segment}: {source}")]
    Packed { segment: u32, source: NotPacked },
    #[error("segment {segment} begins with record {found}, expected {expected}")]
    Gap { segment: u32, expected: u64, found: u64 },
}

/// Goes through a run's segments, from a record on. One segment is in memory at a time.
pub struct LogReader<'h> {
    files: &'h dyn Files,
    dir: String,
    segments: Vec<u32>,
    next: usize,
    from: u64,
    expected: Option<u64>,
    torn: u64,
    header: Option<SegmentHeader>,
}

impl<'h> LogReader<'h> {
    /// The log of `run`, from record `from` on; empty when there is none.
    pub async fn open(files: &'h dyn Files, run: &RunDir, from: u64) -> Result<LogReader<'h>, LogReadError> {
        let dir = pack::log_dir(run);
        let segments = segments(files, &dir).await?.into_iter().collect();
        let mut reader =
            LogReader { files, dir, segments, next: 0, from, expected: None, torn: 0, header: None };
        reader.skip_to(from).await?;
        Ok(reader)
    }

    /// Bytes cut off the end of the log: what a crash left of a record.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// The last segment's header: run, boot and the clock pair.
    pub fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// The records of the next segment, from `from` on; `None` at the end. May be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, LogReadError> {
        let Some(&segment) = self.segments.get(self.next) else { return Ok(None) };
        let last = self.next + 1 == self.segments.len();
        self.next += 1;
        let data = self.whole(segment).await?;
        let header = match SegmentHeader::decode(&data) {
            Ok(header) => header,
            // A crash between making the file and writing its first bytes.
            Err(BadSegment::Short { have }) if last => {
                self.torn = have as u64;
                return Ok(Some(Vec::new()));
            }
            Err(source) => return Err(LogReadError::Segment { segment, source }),
        };
        if let Some(expected) = self.expected
            && expected != header.first_seq
        {
            return Err(LogReadError::Gap { segment, expected, found: header.first_seq });
        }
        self.header = Some(header);
        let mut body = data;
        body.advance(SEGMENT_HEADER);
        let mut decoder = Records::expecting(&body, header.first_seq);
        let mut records = Vec::new();
        let mut next = header.first_seq;
        while let Some(item) = decoder.next() {
            match item {
                Ok(record) => {
                    next = record.seq + 1;
                    if record.seq >= self.from {
                        let end = decoder.good();
                        records.push(Record {
                            seq: record.seq,
                            at: record.at,
                            stream: record.stream,
                            offset: record.offset,
                            bytes: body.slice(end - record.bytes.len()..end),
                        });
                    }
                }
                // In an earlier segment it is what a failed write left when a new segment was begun: if
                // anything is missing, the next segment's number says so.
                Err(LogError::Torn { lost, .. }) => self.torn = lost as u64,
                Err(source) => return Err(LogReadError::Records { segment, source }),
            }
        }
        self.expected = Some(next);
        Ok(Some(records))
    }

    /// Starts at the last segment that begins at or before `from`.
    async fn skip_to(&mut self, from: u64) -> Result<(), LogReadError> {
        let (mut low, mut high) = (0, self.segments.len());
        while low < high {
            let middle = low.midpoint(high);
            let head = self.head(self.segments[middle]).await?;
            // One that cannot be read is found when its turn comes.
            if SegmentHeader::decode(&head).is_ok_and(|h| h.first_seq <= from) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.next = low.saturating_sub(1);
        Ok(())
    }

    /// A segment's first bytes; empty where they cannot be had.
    async fn head(&self, segment: u32) -> Result<Bytes, LogReadError> {
        match self.files.get(self.at(segment), 0, SEGMENT_HEADER as u64).await {
            Err(error) if is_missing(&error) => {}
            read => return Ok(read?.0),
        }
        let (data, _) = self.files.get(pack::packed_at(&self.dir, segment), 0, pack::HEAD).await?;
        Ok(pack::head(&data, SEGMENT_HEADER).into())
    }

    fn at(&self, segment: u32) -> At {
        At::home(format!("{}/{}", self.dir, segment_name(segment)))
    }

    /// The whole one where it still is: it may be compressed and gone from one request to the next.
    async fn whole(&self, segment: u32) -> Result<Bytes, LogReadError> {
        match self.plain(segment).await {
            Err(error) if is_missing(&error) => self.unpacked(segment).await,
            read => Ok(read?),
        }
    }

    async fn plain(&self, segment: u32) -> Result<Bytes, HostError> {
        let mut all = BytesMut::new();
        loop {
            let (data, size) = self.files.get(self.at(segment), all.len() as u64, MAX_DATA as u64).await?;
            let more = !data.is_empty();
            all.reserve((size as usize).saturating_sub(all.len()).min(MAX_RESERVED));
            all.extend_from_slice(&data);
            if !more || all.len() as u64 >= size {
                return Ok(all.freeze());
            }
        }
    }

    async fn unpacked(&self, segment: u32) -> Result<Bytes, LogReadError> {
        let at = pack::packed_at(&self.dir, segment);
        let not = |source| LogReadError::Packed { segment, source };
        let mut unpack = Unpack::default();
        let mut offset = 0;
        loop {
            let (data, size) = self.files.get(at.clone(), offset, MAX_DATA as u64).await?;
            offset += data.len() as u64;
            let more = !data.is_empty() && offset < size;
            unpack = unpack.push(data).await.map_err(not)?;
            if !more {
                return Ok(unpack.finish().map_err(not)?.into());
            }
        }
    }
}

/// Room that is made at once for a file of this size; a longer one grows.
const MAX_RESERVED: usize = 32 << 20;

/// The numbers of a log's segments, whole or compressed. A listing is no snapshot: a file that is compressed
/// meanwhile may be in it under neither name. Asked for by name there is always one, since the compressed file has
/// its name before the other loses it.
async fn segments(files: &dyn Files, dir: &str) -> Result<BTreeSet<u32>, HostError> {
    let entries = match files.list(At::home(dir)).await {
        Err(error) if is_missing(&error) => return Ok(BTreeSet::new()),
        other => other?,
    };
    let number = |name: &str| segment_number(name).or_else(|| packed_number(name));
    let mut found: BTreeSet<u32> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    for segment in 1.. {
        if found.contains(&segment) {
            continue;
        }
        let whole = At::home(format!("{dir}/{}", segment_name(segment)));
        if files.stat(whole).await?.is_some() || files.stat(pack::packed_at(dir, segment)).await?.is_some() {
            found.insert(segment);
        } else if found.last().is_none_or(|last| *last < segment) {
            break;
        }
    }
    Ok(found)
}
