//! One joined shim: frames in both directions over a byte stream, records verified and never copied.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use castra_proto::shim::{
    Answer, Command, FRAME_HEADER, FrameError, Hello, InputId, MAX_RECORDS, Reason, Refused, SignalTarget,
    Status, Stream, VERSIONS, highest_common, split_frame, split_record, write_parts,
};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use uuid::Uuid;

/// How long a shim may take to answer `hello`: it does nothing that waits.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Room asked of the socket per read: one whole `records` frame.
const READ: usize = MAX_RECORDS + FRAME_HEADER;

/// What a daemon says about itself when it joins.
#[derive(Debug, Clone)]
pub struct Join {
    /// The run that must be there.
    pub run: Uuid,
    /// Fences every lower one from now on.
    pub epoch: u64,
    /// The last record committed; 0 for none.
    pub last: u64,
}

/// What went wrong on a joined shim. All are the end of the connection.
#[derive(Debug, Error)]
pub enum ConnError {
    #[error("connection closed")]
    Closed,
    #[error("shim connection: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("corrupt record frame: {0}")]
    Record(#[from] castra_proto::shim::BadRecord),
    #[error("shim refused to talk: {0:?}")]
    Refused(Reason),
    #[error("shim spoke before hello")]
    Unexpected,
    #[error("no hello within {0:?}")]
    Timeout(Duration),
    #[error("another run ({0}) is behind this socket")]
    WrongRun(Uuid),
    #[error("no common protocol version with {0:?}")]
    Version(Vec<u32>),
}

/// One record of the log. `bytes` is a slice of the frame it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// CLOCK_BOOTTIME nanoseconds; the `started` note has the pair that makes it wall time.
    pub at: u64,
    pub stream: Stream,
    /// Bytes of the stream before this record.
    pub offset: u64,
    pub bytes: Bytes,
}

/// What a shim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimMsg {
    /// In order, whole frames; never empty.
    Records(Vec<Record>),
    Written {
        input_id: InputId,
        duplicate: bool,
    },
    /// A command was not carried out. [`Reason::Fenced`] is the last message before the end.
    Refused(Refused),
    Status(Status),
    /// This shim is older than the command that was sent.
    Unsupported {
        kind: u8,
    },
}

/// A joined shim; [`ShimConn::split`] it.
pub struct ShimConn {
    /// What the shim said about itself: `last`, `boot_id`, `build`.
    pub hello: Hello,
    /// The version both speak.
    pub version: u32,
    reader: ShimReader,
    writer: ShimWriter,
}

/// The receiving half.
pub struct ShimReader {
    io: OwnedReadHalf,
    buf: BytesMut,
}

/// The sending half. Every method returns when the bytes are in the socket, not when they are obeyed.
pub struct ShimWriter {
    io: OwnedWriteHalf,
    out: Vec<u8>,
}

impl ShimConn {
    /// Says hello on a fresh stream and waits for the shim's.
    pub(crate) async fn open(stream: UnixStream, join: &Join) -> Result<ShimConn, ConnError> {
        let (read, write) = stream.into_split();
        let mut writer = ShimWriter { io: write, out: Vec::new() };
        let mut reader = ShimReader { io: read, buf: BytesMut::new() };
        let hello = Hello {
            versions: versions(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            run: join.run,
            epoch: join.epoch,
            boot_id: Uuid::nil(),
            last: join.last,
        };
        let exchange = async {
            writer.send(Command::Hello(hello)).await?;
            reader.hello().await
        };
        let hello = tokio::time::timeout(HELLO_DEADLINE, exchange)
            .await
            .map_err(|_| ConnError::Timeout(HELLO_DEADLINE))??;
        if hello.run != join.run {
            return Err(ConnError::WrongRun(hello.run));
        }
        let version = highest_common(&hello.versions, &versions())
            .ok_or_else(|| ConnError::Version(hello.versions.clone()))?;
        Ok(ShimConn { hello, version, reader, writer })
    }

    /// Both halves, to be used from different tasks.
    pub fn split(self) -> (ShimReader, ShimWriter) {
        (self.reader, self.writer)
    }
}

/// Protocol versions that this build speaks; tests of version skew override them.
fn versions() -> Vec<u32> {
    #[cfg(feature = "failpoints")]
    if let Ok(list) = std::env::var("CASTRA_TEST_DAEMON_VERSIONS") {
        return list.split(',').filter_map(|version| version.trim().parse().ok()).collect();
    }
    VERSIONS.to_vec()
}

impl ShimReader {
    /// The next message. Cancel safe: a half-read frame stays in the buffer.
    pub async fn next(&mut self) -> Result<ShimMsg, ConnError> {
        loop {
            if let Some(msg) = self.take()? {
                return Ok(msg);
            }
            self.fill().await?;
        }
    }

    /// The next message if it is here already.
    pub fn try_next(&mut self) -> Result<Option<ShimMsg>, ConnError> {
        loop {
            if let Some(msg) = self.take()? {
                return Ok(Some(msg));
            }
            self.buf.reserve(READ);
            match self.io.try_read_buf(&mut self.buf) {
                Ok(0) => return Err(ConnError::Closed),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Err(ConnError::Closed),
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ConnError> {
        self.buf.reserve(READ);
        match self.io.read_buf(&mut self.buf).await {
            Ok(0) => Err(ConnError::Closed),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Err(ConnError::Closed),
            Err(e) => Err(e.into()),
        }
    }

    async fn hello(&mut self) -> Result<Hello, ConnError> {
        loop {
            if let Some((frame, used)) = split_frame(&self.buf, MAX_RECORDS)? {
                let hello = match Answer::decode(frame)? {
                    Answer::Hello(hello) => hello,
                    Answer::Refused(refused) => return Err(ConnError::Refused(refused.reason)),
                    _ => return Err(ConnError::Unexpected),
                };
                self.buf.advance(used);
                return Ok(hello);
            }
            self.fill().await?;
        }
    }

    fn take(&mut self) -> Result<Option<ShimMsg>, ConnError> {
        loop {
            let Some((frame, used)) = split_frame(&self.buf, MAX_RECORDS)? else { return Ok(None) };
            let msg = match Answer::decode(frame) {
                Ok(Answer::Records(_)) => {
                    let mut whole = self.buf.split_to(used).freeze();
                    whole.advance(FRAME_HEADER);
                    let records = slice_records(&whole)?;
                    if records.is_empty() {
                        continue;
                    }
                    return Ok(Some(ShimMsg::Records(records)));
                }
                Ok(Answer::Written { input_id, duplicate }) => ShimMsg::Written { input_id, duplicate },
                Ok(Answer::Refused(refused)) => ShimMsg::Refused(refused),
                Ok(Answer::Status(status)) => ShimMsg::Status(status),
                Ok(Answer::Unsupported { kind }) => ShimMsg::Unsupported { kind },
                Ok(Answer::Hello(_)) => return Err(ConnError::Unexpected),
                // A newer shim's unasked frame says nothing that this version needs.
                Err(FrameError::Unknown { .. }) => {
                    self.buf.advance(used);
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            self.buf.advance(used);
            return Ok(Some(msg));
        }
    }
}

/// Records of one frame as slices of it, every checksum verified.
pub(crate) fn slice_records(frame: &Bytes) -> Result<Vec<Record>, ConnError> {
    let mut records = Vec::with_capacity(frame.len() / 256 + 1);
    let mut at = 0;
    while at < frame.len() {
        let (record, used) = split_record(&frame[at..])?;
        let end = at + used;
        records.push(Record {
            seq: record.seq,
            at: record.at,
            stream: record.stream,
            offset: record.offset,
            bytes: frame.slice(end - record.bytes.len()..end),
        });
        at = end;
    }
    Ok(records)
}

impl ShimWriter {
    /// Sends records from number `from` on, for as long as the connection lasts.
    pub async fn follow(&mut self, from: u64) -> Result<(), ConnError> {
        self.send(Command::Follow { from }).await
    }

    /// Everything up to `seq` is committed.
    pub async fn ack(&mut self, seq: u64) -> Result<(), ConnError> {
        self.send(Command::Ack { seq }).await
    }

    /// Input for claude, any length; answered `Written` or `Refused` with its id.
    ///
    /// Not cancel safe: a cut-off write must be followed by a new connection.
    pub async fn write(&mut self, input_id: InputId, bytes: &[u8]) -> Result<(), ConnError> {
        for part in write_parts(input_id, bytes) {
            self.send(part).await?;
        }
        Ok(())
    }

    /// A signal to claude, or the end of the whole tree (`signo` is then ignored).
    pub async fn signal(&mut self, target: SignalTarget, signo: i32) -> Result<(), ConnError> {
        self.send(Command::Signal { target, signo }).await
    }

    /// The terminal's size.
    pub async fn resize(&mut self, rows: u16, cols: u16) -> Result<(), ConnError> {
        self.send(Command::Resize { rows, cols }).await
    }

    /// Asks for a [`ShimMsg::Status`].
    pub async fn status(&mut self) -> Result<(), ConnError> {
        self.send(Command::Status).await
    }

    async fn send(&mut self, command: Command<'_>) -> Result<(), ConnError> {
        self.out.clear();
        command.encode(&mut self.out);
        match self.io.write_all(&self.out).await {
            Ok(()) => Ok(()),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(ConnError::Closed)
            }
            Err(e) => Err(e.into()),
        }
    }
}
