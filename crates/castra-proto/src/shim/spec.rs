//! What a shim is started with, and the files and lines it says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::ProcessId;

/// The largest StartSpec a shim reads from its stdin, bytes.
pub const MAX_SPEC: usize = 4 << 20;
/// Segment size when the spec names none, bytes.
pub const DEFAULT_SEGMENT_BYTES: u64 = 16 << 20;
/// The smallest segment size accepted, bytes: a record must fit.
pub const MIN_SEGMENT_BYTES: u64 = 128 << 10;

/// Everything a shim needs, given to `castra-shim run` on stdin: never in an argv, it holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSpec {
    pub run_id: Uuid,
    pub session_id: String,
    /// Run number within the session.
    pub run: u64,
    /// The owner's epoch at the start; lower ones are fenced from the first moment.
    pub epoch: u64,
    /// `argv[0]` is the program, looked up in `env.PATH` when it has no slash.
    pub argv: Vec<String>,
    /// The child's whole environment; the shim adds only `CASTRA_RUN`.
    pub env: BTreeMap<String, String>,
    /// Absolute.
    pub cwd: String,
    /// `argv[0]` is a sandbox wrapper (bwrap): claude is its first descendant that is not the wrapper.
    #[serde(default)]
    pub wrapped: bool,
    /// Resident memory of the whole tree over which it is killed, bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Bytes after which a new segment is begun; [`DEFAULT_SEGMENT_BYTES`] without.
    #[serde(default)]
    pub segment_bytes: Option<u64>,
    /// Reserved: a terminal instead of socketpairs. Refused by v1.
    #[serde(default)]
    pub pty: Option<Pty>,
    /// Reserved: files to be tailed into the log. Refused by v1 when not empty.
    #[serde(default)]
    pub files: Vec<TailRule>,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    pub rows: u16,
    pub cols: u16,
}

/// A directory whose files with this suffix are tailed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailRule {
    pub dir: String,
    pub suffix: String,
}

/// Why a spec is refused before anything is started.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "spec", rename_all = "snake_case")]
pub enum SpecError {
    #[error("argv is empty")]
    NoArgv,
    #[error("cwd is not absolute")]
    RelativeCwd,
    #[error("{field} holds a NUL byte, or a name is empty or holds '='")]
    BadString { field: String },
    #[error("segment_bytes is below {MIN_SEGMENT_BYTES}")]
    SegmentTooSmall,
    #[error("terminals are not supported by this shim")]
    PtyUnsupported,
    #[error("tailed files are not supported by this shim")]
    FilesUnsupported,
    #[error("the spec is not readable: {reason}")]
    Unreadable { reason: String },
}

impl StartSpec {
    /// Refuses what this version cannot run.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoArgv);
        }
        if !self.cwd.starts_with('/') {
            return Err(SpecError::RelativeCwd);
        }
        let bad = |field: &str| Err(SpecError::BadString { field: field.to_owned() });
        if self.argv.iter().any(|a| a.contains('\0')) {
            return bad("argv");
        }
        if self.cwd.contains('\0') {
            return bad("cwd");
        }
        if self.env.iter().any(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0')) {
            return bad("env");
        }
        if self.segment_bytes.is_some_and(|n| n < MIN_SEGMENT_BYTES) {
            return Err(SpecError::SegmentTooSmall);
        }
        if self.pty.is_some() {
            return Err(SpecError::PtyUnsupported);
        }
        if !self.files.is_empty() {
            return Err(SpecError::FilesUnsupported);
        }
        Ok(())
    }
}

/// `meta.json` of a run directory: who the processes are, for a daemon that was not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub run_id: Uuid,
    pub session_id: String,
    pub run: u64,
    pub boot_id: Uuid,
    pub guard: ProcessId,
    pub shim: ProcessId,
    /// Absent for the moment between the guard's start and claude's.
    pub claude: Option<ProcessId>,
    pub build: String,
}

/// `reaped` of a run directory: the guard's word that nothing of the tree is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    pub boot_id: Uuid,
    /// The shim's wait status: how it died.
    pub shim_code: Option<i32>,
    pub shim_signal: Option<i32>,
    /// Passes over `/proc` it took.
    pub passes: u32,
}

/// The one line a starting shim writes to stdout before it closes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    Started(Meta),
    Failed(StartError),
}

/// Why a run did not come up. Nothing is left running.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum StartError {
    #[error(transparent)]
    Spec(SpecError),
    #[error("the run directory is already in use")]
    Busy,
    #[error("{what}: {message}")]
    Io { what: String, errno: i32, message: String },
    /// The log holds `spawn_failed`.
    #[error("cannot execute: {message}")]
    Spawn { errno: i32, message: String },
}

/// File name of the nth segment; the first is 1.
pub fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}

/// The number in a segment's file name.
pub fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
