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
    /// A terminal of this size instead of socketpairs.
    #[serde(default)]
    pub pty: Option<Pty>,
    /// Files to be tailed into the log; at most [`MAX_RULES`].
    #[serde(default)]
    pub files: Vec<TailRule>,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    pub rows: u16,
    pub cols: u16,
}

/// Which files are tailed: those below `dir` whose names end in `suffix` and that `which` admits.
///
/// No link is followed below `dir`. What is there before claude starts is seen before claude starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailRule {
    /// Absolute, and there at the start; links on the way to it are the operator's own.
    pub dir: String,
    /// `a/b` below `dir`, empty for `dir` itself; need not be there yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    pub suffix: String,
    /// Levels of directories below `path` that are searched too, at most [`MAX_DEPTH`].
    #[serde(default)]
    pub depth: u8,
    #[serde(default)]
    pub which: Which,
    #[serde(default)]
    pub how: How,
    /// Bytes of files that are in an earlier log already, by path below `path`: the tail begins there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known: BTreeMap<String, u64>,
    /// Files that are there at the start and not `known` begin at their end, not at 0.
    #[serde(default)]
    pub skip_existing: bool,
}

/// Files of a [`TailRule`] by the first name below its path, without the suffix.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    #[default]
    All,
    /// claude's pid, as this host or a pid namespace of the run numbers it.
    Pid,
    /// One of these, or one that stood between double quotes in a snapshot of this run. Shorter than
    /// [`MIN_NAMED`] bytes does not count: it would occur by chance.
    Named(Vec<String>),
}

/// How a [`TailRule`]'s files become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What is appended, as it comes.
    #[default]
    Append,
    /// The whole file as one record whenever it changed; an empty record when it is gone. Files over
    /// [`super::MAX_RECORD`] and empty ones are passed over.
    Snapshot,
}

/// Rules of one run at most.
pub const MAX_RULES: usize = 8;
/// Levels below a rule's path at most.
pub const MAX_DEPTH: u8 = 6;
/// The shortest name that a snapshot can admit, bytes.
pub const MIN_NAMED: usize = 8;

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
    #[error("a terminal has at least one row and one column")]
    PtySize,
    /// `rule` counts from 0.
    #[error("tail rule {rule}: {field} is out of bounds")]
    BadTail { rule: u64, field: String },
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
        if self.pty.is_some_and(|pty| pty.rows == 0 || pty.cols == 0) {
            return Err(SpecError::PtySize);
        }
        for (rule, tail) in self.files.iter().enumerate() {
            let bad = |field: &str| Err(SpecError::BadTail { rule: rule as u64, field: field.to_owned() });
            if rule >= MAX_RULES {
                return bad("files");
            }
            if let Err(field) = tail.check() {
                return bad(field);
            }
        }
        Ok(())
    }
}

impl TailRule {
    /// The field that is wrong.
    fn check(&self) -> Result<(), &'static str> {
        if !self.dir.starts_with('/') || self.dir.contains('\0') {
            return Err("dir");
        }
        let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        if !self.path.is_empty() && self.path.split('/').any(bad) {
            return Err("path");
        }
        if self.suffix.contains(['/', '\0']) {
            return Err("suffix");
        }
        if self.depth > MAX_DEPTH {
            return Err("depth");
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
