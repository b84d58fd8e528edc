//! The shim's own records: what happened to the run, as a closed set of JSON notes.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot.
    pub start: u64,
}

/// One record of stream `shim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// Always the first record of a run whose claude came up.
    Started {
        claude: ProcessId,
        shim: ProcessId,
        guard: ProcessId,
        boot_id: Uuid,
        wall_ns: u64,
        boot_ns: u64,
        /// What the kernel granted for claude's stdout socket, bytes.
        snd_buf: u32,
        epoch: u64,
    },
    /// claude could not be executed; the run has no other records.
    SpawnFailed { errno: i32, message: String },
    /// Stands before the `in` records that carry the bytes. `offset` and `len` are of stream `in`.
    Input { input_id: Uuid, offset: u64, len: u64, epoch: u64 },
    /// claude closed its stdin; `unsent` bytes of journalled input never reached it.
    StdinClosed { unsent: u64 },
    /// A signal that was asked for and sent.
    Signal { target: super::SignalTarget, signo: i32, epoch: u64 },
    /// The tree's resident memory went over the limit; an `exit` with that cause follows.
    MemoryLimit { bytes: u64, limit: u64 },
    /// The disk was full from `since` (boot-time ns). Written when there is room again.
    Degraded { since: u64, errno: i32 },
    /// Writing goes on. `stopped` says whether the tree was stopped meanwhile.
    Recovered { stopped: bool },
    /// fdatasync failed: that segment got no further record.
    SyncFailed { segment: u32, errno: i32 },
    /// The terminal's size from here on. The second record of a run with a terminal, and whenever it
    /// changes: `pty` records before it were drawn for the old size, those after it may be for the new.
    Resized { rows: u16, cols: u16 },
    /// From here on stream `16 + stream` carries a tailed file.
    File {
        stream: u8,
        /// Names the file's content in this run: a file that was truncated or replaced gets a new one,
        /// a file that comes back to a stream after others keeps its own.
        file: u32,
        /// Index of the rule in the start parameters.
        rule: u8,
        /// Below the rule's path.
        path: String,
        /// Where in the file the stream's next byte stands; 0 for snapshots.
        at: u64,
        /// Bytes of the stream so far: the offset of its next record.
        offset: u64,
    },
    /// No more of this file is tailed: it, or the number of files, is over the shim's bound. A path that
    /// is a directory is not searched for the same reason.
    FileCut { rule: u8, path: String, at: u64 },
    /// The last record of a run.
    Exit {
        /// Exit code, when it exited.
        code: Option<i32>,
        /// Signal number, when one ended it.
        signal: Option<i32>,
        /// stdout ended in the middle of a line, or could not be read to its end.
        tail_lost: bool,
        tree: TreeProof,
        cause: ExitCause,
    },
}

/// Whether nothing of the run's tree is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeProof {
    /// The subreaper has no children left.
    Empty,
    Unproven,
}

/// What ended claude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// By itself, or by a signal from outside castra.
    Own,
    /// After a `signal` frame to claude or to the tree.
    Asked,
    /// The guard died, so the shim killed the tree.
    GuardLost,
    MemoryLimit,
}

/// A note that this build cannot read.
#[derive(Debug, Error)]
#[error("not a note: {0}")]
pub struct NoteError(#[from] serde_json::Error);

impl Note {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data with string keys: serialisation has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record of stream `shim`. A newer shim's note is an error the reader may skip.
    pub fn decode(bytes: &[u8]) -> Result<Note, NoteError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
