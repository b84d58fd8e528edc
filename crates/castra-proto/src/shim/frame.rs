//! Frames of the shim's socket: `[u32 len][u8 type][len bytes]`, little endian.
//!
//! Control payloads are JSON, data payloads binary. A message longer than a frame is sent as numbered
//! parts of one input id on one connection; the shim journals it whole before claude sees its first
//! byte, and an input whose last part never came has not happened.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Bytes in front of a frame's payload.
pub const FRAME_HEADER: usize = 5;
/// The longest payload a shim accepts, bytes.
pub const MAX_COMMAND: usize = 1 << 20;
/// The longest payload of a `records` frame, bytes: whole records only.
pub const MAX_RECORDS: usize = 256 << 10;
/// Message bytes per `write` frame.
pub const WRITE_PART: usize = 128 << 10;
const WRITE_HEADER: usize = 21;

/// Names one input for ever: a second write of the same id does nothing.
pub type InputId = Uuid;

/// A frame as it came: type and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

/// Bytes that are not a frame of this protocol.
#[derive(Debug, Error)]
pub enum FrameError {
    #[error("frame of {len} bytes is over the limit of {max}")]
    TooLong { len: usize, max: usize },
    /// Answered `unsupported`, never fatal.
    #[error("unknown frame type {kind}")]
    Unknown { kind: u8 },
    #[error("malformed frame of type {kind}")]
    Malformed { kind: u8 },
    #[error("malformed frame of type {kind}: {source}")]
    Json { kind: u8, source: serde_json::Error },
}

/// The first frame of `buf` and the bytes it takes; `None` while it is incomplete.
///
/// `max` bounds the payload; more is an error before it has arrived.
pub fn split_frame(buf: &[u8], max: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(header) = buf.get(..FRAME_HEADER) else { return Ok(None) };
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    match buf.get(FRAME_HEADER..FRAME_HEADER + len) {
        None => Ok(None),
        Some(payload) => Ok(Some((Frame { kind: header[4], payload }, FRAME_HEADER + len))),
    }
}

/// The first frame in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// All versions this side speaks; the highest common one is spoken.
    pub versions: Vec<u32>,
    /// For people: package version and commit.
    pub build: String,
    pub run: Uuid,
    pub epoch: u64,
    /// The machine's boot; nil from a daemon that does not know it.
    pub boot_id: Uuid,
    /// The shim's last record; from a daemon the last it has committed.
    pub last: u64,
}

/// The highest version in both lists.
pub fn highest_common(a: &[u32], b: &[u32]) -> Option<u32> {
    a.iter().filter(|v| b.contains(v)).max().copied()
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalTarget {
    /// claude itself, by pidfd.
    Claude,
    /// Every process of the run; always SIGKILL.
    Tree,
}

/// What a daemon says to a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    Hello(Hello),
    /// Send records from number `from` on, and go on sending.
    Follow {
        from: u64,
    },
    /// Everything up to `seq` is committed.
    Ack {
        seq: u64,
    },
    Write {
        input_id: InputId,
        part: u32,
        last: bool,
        bytes: &'a [u8],
    },
    Signal {
        target: SignalTarget,
        signo: i32,
    },
    Resize {
        rows: u16,
        cols: u16,
    },
    Status,
    /// `pty` records before `before` are in two checkpoints of the terminal: their bytes may go. Later
    /// than v1's first build, which answers `unsupported`.
    Prune {
        before: u64,
    },
}

/// What a shim says to a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    Hello(Hello),
    /// Record bytes as they are on disk, back to back; the receiver verifies the checksums.
    Records(&'a [u8]),
    /// Journalled. `duplicate`: it was already, and nothing was done.
    Written {
        input_id: InputId,
        duplicate: bool,
    },
    Refused(Refused),
    /// Asked for, or unasked when `degraded` changes.
    Status(Status),
    /// The shim does not know frames of this type.
    Unsupported {
        kind: u8,
    },
}

/// A command that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: Reason,
    /// Set for a refused write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_id: Option<InputId>,
}

/// Why. `fenced`, `no_common_version`, `wrong_run`, `not_allowed` and `bad_frame` also end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A higher epoch was seen.
    Fenced,
    /// Pending input is at its bound, or the disk is full: try again later.
    Full,
    /// claude has exited.
    Exited,
    /// claude has closed its stdin.
    StdinClosed,
    /// Known frame, but not for this run (resize without a terminal).
    Unsupported,
    BadFrame,
    NoCommonVersion,
    WrongRun,
    /// Another user, or a process of the run itself.
    NotAllowed,
    /// The input is longer than the shim's bound of 80 MiB.
    TooLarge,
}

/// The run as its shim sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub epoch: u64,
    /// Number of the last record.
    pub last: u64,
    /// Highest acknowledged record.
    pub acked: u64,
    /// claude, while it runs.
    pub claude: Option<super::ProcessId>,
    /// Journalled input that claude has not read, bytes.
    pub pending_input: u64,
    /// Boot-time ns since when nothing can be written.
    pub degraded: Option<u64>,
    pub exit: Option<StatusExit>,
}

/// How claude ended, also in the log's `exit` note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusExit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

#[derive(Serialize, Deserialize)]
struct FollowBody {
    from: u64,
}
#[derive(Serialize, Deserialize)]
struct AckBody {
    seq: u64,
}
#[derive(Serialize, Deserialize)]
struct PruneBody {
    before: u64,
}
#[derive(Serialize, Deserialize)]
struct SignalBody {
    target: SignalTarget,
    signo: i32,
}
#[derive(Serialize, Deserialize)]
struct ResizeBody {
    rows: u16,
    cols: u16,
}
#[derive(Serialize, Deserialize)]
struct WrittenBody {
    input_id: InputId,
    duplicate: bool,
}
#[derive(Serialize, Deserialize)]
struct UnsupportedBody {
    #[serde(rename = "type")]
    kind: u8,
}

const HELLO: u8 = 1;
const FOLLOW: u8 = 2;
const ACK: u8 = 3;
const WRITE: u8 = 4;
const SIGNAL: u8 = 5;
const RESIZE: u8 = 6;
const STATUS: u8 = 7;
const PRUNE: u8 = 8;
const A_HELLO: u8 = 129;
const A_RECORDS: u8 = 130;
const A_WRITTEN: u8 = 131;
const A_REFUSED: u8 = 132;
const A_STATUS: u8 = 133;
const A_UNSUPPORTED: u8 = 134;

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body(out);
    let len = (out.len() - start - FRAME_HEADER) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_json(out: &mut Vec<u8>, kind: u8, body: &impl Serialize) {
    // Plain data into memory: serialisation has no way to fail.
    put(out, kind, |out| out.extend_from_slice(&serde_json::to_vec(body).unwrap_or_default()));
}

fn json<'de, T: Deserialize<'de>>(frame: Frame<'de>) -> Result<T, FrameError> {
    serde_json::from_slice(frame.payload).map_err(|source| FrameError::Json { kind: frame.kind, source })
}

impl<'a> Command<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Hello(hello) => put_json(out, HELLO, hello),
            Command::Follow { from } => put_json(out, FOLLOW, &FollowBody { from: *from }),
            Command::Ack { seq } => put_json(out, ACK, &AckBody { seq: *seq }),
            Command::Write { input_id, part, last, bytes } => put(out, WRITE, |out| {
                out.extend_from_slice(input_id.as_bytes());
                out.extend_from_slice(&part.to_le_bytes());
                out.push(u8::from(*last));
                out.extend_from_slice(bytes);
            }),
            Command::Signal { target, signo } => {
                put_json(out, SIGNAL, &SignalBody { target: *target, signo: *signo })
            }
            Command::Resize { rows, cols } => put_json(out, RESIZE, &ResizeBody { rows: *rows, cols: *cols }),
            Command::Status => put(out, STATUS, |_| ()),
            Command::Prune { before } => put_json(out, PRUNE, &PruneBody { before: *before }),
        }
    }

    /// Reads a frame that a daemon sent.
    pub fn decode(frame: Frame<'a>) -> Result<Command<'a>, FrameError> {
        let kind = frame.kind;
        Ok(match kind {
            HELLO => Command::Hello(json(frame)?),
            FOLLOW => json(frame).map(|FollowBody { from }| Command::Follow { from })?,
            ACK => json(frame).map(|AckBody { seq }| Command::Ack { seq })?,
            WRITE => {
                let (header, bytes) =
                    frame.payload.split_at_checked(WRITE_HEADER).ok_or(FrameError::Malformed { kind })?;
                let mut id = [0; 16];
                id.copy_from_slice(&header[..16]);
                let part = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
                let last = match header[20] {
                    0 => false,
                    1 => true,
                    _ => return Err(FrameError::Malformed { kind }),
                };
                Command::Write { input_id: Uuid::from_bytes(id), part, last, bytes }
            }
            SIGNAL => json(frame).map(|SignalBody { target, signo }| Command::Signal { target, signo })?,
            RESIZE => json(frame).map(|ResizeBody { rows, cols }| Command::Resize { rows, cols })?,
            STATUS => Command::Status,
            PRUNE => json(frame).map(|PruneBody { before }| Command::Prune { before })?,
            _ => return Err(FrameError::Unknown { kind }),
        })
    }
}

/// The `write` frames of one input, in order.
pub fn write_parts(input_id: InputId, bytes: &[u8]) -> impl Iterator<Item = Command<'_>> {
    let count = bytes.len().div_ceil(WRITE_PART).max(1);
    (0..count).map(move |part| {
        let from = part * WRITE_PART;
        let to = bytes.len().min(from + WRITE_PART);
        Command::Write { input_id, part: part as u32, last: part + 1 == count, bytes: &bytes[from..to] }
    })
}

impl<'a> Answer<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Hello(hello) => put_json(out, A_HELLO, hello),
            Answer::Records(bytes) => put(out, A_RECORDS, |out| out.extend_from_slice(bytes)),
            Answer::Written { input_id, duplicate } => {
                put_json(out, A_WRITTEN, &WrittenBody { input_id: *input_id, duplicate: *duplicate })
            }
            Answer::Refused(refused) => put_json(out, A_REFUSED, refused),
            Answer::Status(status) => put_json(out, A_STATUS, status),
            Answer::Unsupported { kind } => put_json(out, A_UNSUPPORTED, &UnsupportedBody { kind: *kind }),
        }
    }

    /// The header of a `records` frame whose `len` bytes follow.
    pub fn records_header(len: usize) -> [u8; FRAME_HEADER] {
        let l = (len as u32).to_le_bytes();
        [l[0], l[1], l[2], l[3], A_RECORDS]
    }

    /// Reads a frame that a shim sent.
    pub fn decode(frame: Frame<'a>) -> Result<Answer<'a>, FrameError> {
        Ok(match frame.kind {
            A_HELLO => Answer::Hello(json(frame)?),
            A_RECORDS => Answer::Records(frame.payload),
            A_WRITTEN => json(frame)
                .map(|WrittenBody { input_id, duplicate }| Answer::Written { input_id, duplicate })?,
            A_REFUSED => Answer::Refused(json(frame)?),
            A_STATUS => Answer::Status(json(frame)?),
            A_UNSUPPORTED => json(frame).map(|UnsupportedBody { kind }| Answer::Unsupported { kind })?,
            kind => return Err(FrameError::Unknown { kind }),
        })
    }
}
