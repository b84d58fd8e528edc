//! Who is left of a run and what proves that nobody is; the sweep for what escaped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use castra_proto::shim::relay::{Proof, RelayError, Root, Swept, TreeState};
use castra_proto::shim::{
    Meta, Note, ProcessId, Records, SEGMENT_HEADER, SegmentHeader, Stream, TreeProof, segment_number,
};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, WaitOptions, waitpid};
use uuid::Uuid;

use super::beneath::{DIR, open_beneath, open_root};
use super::files::{list, read_small};
use crate::guard::REAPED;
use crate::log::LOG_DIR;
use crate::run::META;
use crate::start::LOCK;
use crate::{RUN_VARIABLE, procs, sys};

/// How long a swept process may take to die.
const SWEEP_DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn state(home: &Path, run: &str) -> Result<TreeState, RelayError> {
    let root = open_root(home, &Root::Home)?;
    let dir = match open_beneath(&root, run, DIR, Mode::empty()) {
        Ok(dir) => dir,
        Err(e) if e.errno() == Some(libc::ENOENT) => {
            return Ok(TreeState {
                meta: None,
                rebooted: false,
                locked: false,
                shim_alive: false,
                guard_alive: false,
                claude_alive: false,
                proof: Proof::None,
            });
        }
        Err(e) => return Err(e),
    };
    // The lock first: what is read after "not locked" no longer changes.
    let lock = openat(&dir, LOCK, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let locked = lock.is_ok_and(|lock| sys::is_locked(&lock).unwrap_or(false));
    let meta: Option<Meta> = read_small(&dir, META).and_then(|text| serde_json::from_slice(&text).ok());
    let here = |meta: &Meta| meta.boot_id == procs::boot_id();
    let rebooted = meta.as_ref().is_some_and(|m| !here(m));
    let lives = |id: Option<ProcessId>| !rebooted && id.is_some_and(alive_or_reaped);
    let proof = if rebooted {
        Proof::Rebooted
    } else if let Some(reaped) = read_small(&dir, REAPED).and_then(|text| serde_json::from_slice(&text).ok())
    {
        Proof::Reaped(reaped)
    } else if ended_in_log(&dir) {
        Proof::Logged
    } else {
        Proof::None
    };
    Ok(TreeState {
        shim_alive: lives(meta.as_ref().map(|m| m.shim)),
        guard_alive: lives(meta.as_ref().map(|m| m.guard)),
        claude_alive: lives(meta.as_ref().and_then(|m| m.claude)),
        meta,
        rebooted,
        locked,
        proof,
    })
}

/// Where the daemon is pid 1 or a subreaper, dead guards and shims are its children: collected here.
fn alive_or_reaped(id: ProcessId) -> bool {
    if procs::identify(id.pid) == Some(id)
        && let Some(pid) = Pid::from_raw(id.pid)
    {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
    procs::alive(id)
}

/// Whether the log's last record says that nothing is left.
fn ended_in_log(dir: &std::os::fd::OwnedFd) -> bool {
    let last_note = || {
        let entries = list(dir, LOG_DIR).ok()?;
        let last = entries
            .iter()
            .rev()
            .find(|e| segment_number(&e.name).is_some() && e.size > SEGMENT_HEADER as u64)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = open_beneath(dir, &format!("{LOG_DIR}/{}", last.name), flags, Mode::empty()).ok()?;
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(file), &mut data).ok()?;
        SegmentHeader::decode(&data).ok()?;
        let mut last = None;
        for record in Records::new(&data[SEGMENT_HEADER..]) {
            let record = record.ok()?;
            last = (record.stream == Stream::Shim).then(|| record.bytes.to_vec());
        }
        Note::decode(&last?).ok()
    };
    matches!(last_note(), Some(Note::Exit { tree: TreeProof::Empty, .. } | Note::SpawnFailed { .. }))
}

/// Kills every process that carries the run's id in its environment, and what is below it, until two
/// passes find none. Killed by pidfd after the start time was compared: never a stranger.
pub(crate) fn sweep(run_id: Uuid) -> Swept {
    let mark = format!("{RUN_VARIABLE}={run_id}");
    let deadline = Instant::now() + SWEEP_DEADLINE;
    let mut killed = BTreeMap::new();
    loop {
        let victims = marked(mark.as_bytes());
        if victims.is_empty() || Instant::now() > deadline {
            return Swept { killed: killed.into_values().collect(), left: victims };
        }
        for id in victims {
            if procs::signal(id, libc::SIGKILL) {
                killed.insert(id.pid, id);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn marked(mark: &[u8]) -> Vec<ProcessId> {
    let own = std::process::id() as i32;
    let mut found = BTreeMap::new();
    for stat in procs::all().into_iter().filter(|s| !s.dead() && s.id.pid != own) {
        let environ = fs::read(format!("/proc/{}/environ", stat.id.pid)).unwrap_or_default();
        // The number may have been given away between the two reads.
        if environ.split(|&b| b == 0).any(|v| v == mark) && procs::identify(stat.id.pid) == Some(stat.id) {
            for below in procs::descendants(stat.id.pid).into_iter().filter(|s| !s.dead()) {
                found.insert(below.id.pid, below.id);
            }
            found.insert(stat.id.pid, stat.id);
        }
    }
    found.remove(&own);
    found.into_values().collect()
}
