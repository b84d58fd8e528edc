//! Requests to a host's relay, and its frames when it serves them over a pipe.
//!
//! The daemon links the relay in for its own machine and calls it directly with the same types, so
//! that a remote host is nothing new. Over a pipe: [`MAGIC`], then frames of
//! `[u32 len][u8 type][u32 id][len bytes]`, where `id` names a request or a joined shim's stream.
//! Requests, replies and errors carry `[u32 json length][json][data]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{Meta, ProcessId, Reaped, StartError, StartSpec};

/// What the relay prints first; anything in front of it came from shell start-up files.
pub const MAGIC: &[u8] = b"\ncastra-relay 1\n";
/// Noise tolerated in front of [`MAGIC`], bytes.
pub const MAX_NOISE: usize = 64 << 10;
/// Bytes in front of a relay frame's payload.
pub const HEADER: usize = 9;
/// The longest payload of a relay frame, bytes.
pub const MAX_FRAME: usize = 5 << 20;
/// Data bytes of one `put`, `append` or `get` at most.
pub const MAX_DATA: usize = 1 << 20;
/// Bytes that one side of a stream may have in flight.
pub const WINDOW: usize = 1 << 20;
/// Bytes of one `data` frame at most.
pub const MAX_CHUNK: usize = 256 << 10;
/// Entries of one `list` at most; more is [`RelayError::TooMany`].
pub const MAX_LIST: usize = 100_000;

/// Types of relay frames.
pub mod kind {
    /// To the relay: a [`super::Request`] with data.
    pub const REQUEST: u8 = 1;
    /// To the relay: give up request `id`.
    pub const CANCEL: u8 = 2;
    /// From the relay: a [`super::Reply`] with data. For `connect`, `id` is from now on a stream.
    pub const REPLY: u8 = 3;
    /// From the relay: a [`super::RelayError`].
    pub const ERROR: u8 = 4;
    /// From the relay: one line of a running `exec`, first byte 1 (stdout) or 2 (stderr).
    pub const LINE: u8 = 5;
    /// Both ways: bytes of a stream, within the credit.
    pub const DATA: u8 = 6;
    /// Both ways: u32 more bytes may be sent.
    pub const CREDIT: u8 = 7;
    /// Both ways: the stream is over.
    pub const CLOSE: u8 = 8;
}

/// Which directory a path is relative to. Nothing outside it is touched and no link is followed below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// `$CASTRA_HOME` on that host.
    Home,
    /// An absolute directory, which itself may be reached through links.
    Dir(String),
}

/// A path below a root: `a/b`, no `..`, not absolute; empty is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    pub root: Root,
    pub path: String,
}

impl At {
    /// A path below `$CASTRA_HOME`.
    pub fn home(path: impl Into<String>) -> At {
        At { root: Root::Home, path: path.into() }
    }

    /// A path below an absolute directory.
    pub fn dir(dir: impl Into<String>, path: impl Into<String>) -> At {
        At { root: Root::Dir(dir.into()), path: path.into() }
    }
}

/// What a relay does. Run directories are paths below `$CASTRA_HOME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Makes the run directory and starts a shim from `shims/<image>/castra-shim`.
    Start {
        run: String,
        image: String,
        spec: Box<StartSpec>,
    },
    /// Joins a shim's socket. Only over a pipe; linked in, the caller dials.
    Connect {
        run: String,
    },
    /// Who is left of a run.
    TreeState {
        run: String,
    },
    /// Kills whatever carries `CASTRA_RUN=<run_id>`.
    Sweep {
        run_id: Uuid,
    },
    Probe,
    Exec(Exec),
    /// Makes a directory and its parents, mode 0700 or `mode` for the last.
    Mkdir {
        at: At,
        mode: u32,
    },
    /// Replaces a file by the request's data: temp file, rename.
    Put {
        at: At,
        mode: u32,
        sync: bool,
    },
    /// Writes the data at `offset` of a file that is made with `mode` when `offset` is 0.
    Append {
        at: At,
        offset: u64,
        mode: u32,
    },
    /// Up to `len` (at most [`MAX_DATA`]) bytes from `offset`.
    Get {
        at: At,
        offset: u64,
        len: u64,
    },
    List {
        at: At,
    },
    Stat {
        at: At,
    },
    /// Removes a file or a whole tree; nothing there is fine.
    Remove {
        at: At,
    },
    /// Copies a tree: files, directories and links as links; modes kept. The target must not exist.
    CopyTree {
        from: At,
        to: At,
    },
    /// Replaces `to`. Both below the same root.
    Rename {
        from: At,
        to: At,
        sync: bool,
    },
    /// Makes or replaces a link. Only for castra's own.
    Symlink {
        at: At,
        target: String,
    },
}

/// A program to run to its end: provisioning, `--version`. Never a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Absolute.
    pub cwd: String,
    /// After this it and its process group are killed, milliseconds.
    pub timeout_ms: u64,
}

/// How an [`Exec`] ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// The last 64 KiB, lossy UTF-8.
    pub stdout: String,
    pub stderr: String,
}

/// Answers, in the order of [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Started(Meta),
    Connected,
    Tree(Box<TreeState>),
    Swept(Swept),
    Probe(Box<Probe>),
    Exec(ExecEnd),
    Done,
    /// The data follows; `size` is the whole file's, `eof` whether the data reaches its end.
    Got {
        size: u64,
        eof: bool,
    },
    List {
        entries: Vec<Entry>,
    },
    Stat {
        entry: Option<Entry>,
    },
}

/// A directory entry; links are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    pub inode: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Dir,
    Link,
    Other,
}

/// A run's processes, as `/proc`, `meta.json`, `reaped` and the log say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeState {
    /// Absent: no shim came as far as being started.
    pub meta: Option<Meta>,
    /// The host was restarted since; nothing of the run is alive.
    pub rebooted: bool,
    /// Starter, guard or shim holds the run directory's lock.
    pub locked: bool,
    pub shim_alive: bool,
    pub guard_alive: bool,
    pub claude_alive: bool,
    pub proof: Proof,
}

/// What proves that nothing of the tree is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The guard wrote `reaped`.
    Reaped(Reaped),
    /// The log ends with an `exit` note that says `empty`.
    Logged,
    /// Another boot.
    Rebooted,
    None,
}

/// The outcome of a sweep by environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    pub killed: Vec<ProcessId>,
    /// Still there after two seconds.
    pub left: Vec<ProcessId>,
}

/// What a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// `/etc/machine-id`, or one that castra keeps in its home.
    pub machine_id: String,
    pub boot_id: Uuid,
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub uid: u32,
    /// Absolute `$CASTRA_HOME`.
    pub home: String,
    /// The user's own `$HOME`.
    pub user_home: String,
    /// Free for this user on the file system of `$CASTRA_HOME`, bytes.
    pub disk_free: u64,
    /// Found in PATH: `bwrap`, `npm`, `claude`, `tmux`, `git`, … → absolute path.
    pub programs: BTreeMap<String, String>,
    /// `systemd-run --user --scope` works.
    pub scope: bool,
    pub wmem_max: u64,
    pub build: String,
}

/// A request that failed. Facts only; the text for people is chosen at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum RelayError {
    #[error("{op} {path}: {message}")]
    Io { op: String, path: String, errno: i32, message: String },
    /// Absolute, `..`, or a link on the way.
    #[error("{path} is not beneath its root")]
    Outside { path: String },
    #[error("{path} is not a name castra writes to")]
    BadPath { path: String },
    #[error("{path} has more than {limit} entries")]
    TooMany { path: String, limit: u64 },
    #[error(transparent)]
    Start { start: StartError },
    #[error("no shim answers at {run}")]
    NoShim { run: String },
    #[error("cancelled")]
    Cancelled,
    #[error("malformed request: {reason}")]
    Malformed { reason: String },
    #[error("too many requests at once")]
    Busy,
}

impl RelayError {
    /// The OS error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            RelayError::Io { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Appends one relay frame.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, id: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(payload);
}

/// A relay frame's fixed front: payload length, type, id.
pub fn read_header(header: &[u8; HEADER]) -> Result<(usize, u8, u32), RelayError> {
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if len > MAX_FRAME {
        return Err(RelayError::Malformed { reason: format!("frame of {len} bytes") });
    }
    Ok((len, header[4], u32::from_le_bytes([header[5], header[6], header[7], header[8]])))
}

/// `[u32 json length][json][data]`.
pub fn pack(json: &impl Serialize, data: &[u8]) -> Vec<u8> {
    // Plain data into memory: serialisation has no way to fail.
    let json = serde_json::to_vec(json).unwrap_or_default();
    let mut out = Vec::with_capacity(4 + json.len() + data.len());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(data);
    out
}

/// Splits what [`pack`] made.
pub fn unpack<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<(T, &'a [u8]), RelayError> {
    let malformed = |reason: &str| RelayError::Malformed { reason: reason.to_owned() };
    let (len, rest) = payload.split_first_chunk::<4>().ok_or_else(|| malformed("short"))?;
    let (json, data) =
        rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(|| malformed("short json"))?;
    let value = serde_json::from_slice(json).map_err(|e| malformed(&e.to_string()))?;
    Ok((value, data))
}
