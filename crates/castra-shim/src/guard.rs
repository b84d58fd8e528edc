//! The guard: subreaper above the shim. It only waits; when the shim dies, it kills what is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use castra_proto::shim::Reaped;
use rustix::process::{WaitOptions, WaitStatus, wait};

use crate::procs::{self, Ended};
use crate::relay::put_file;

/// File in the run directory with which the guard proves that the tree is empty.
pub(crate) const REAPED: &str = "reaped";

/// Waits for the shim. A shim that ended by itself has ended its tree first; for any other death the
/// guard kills everything below it, proves it by having no child left, and says so in `reaped`.
pub(crate) fn guard(shim: i32, dir: &OwnedFd) {
    let status = wait_for(shim);
    if status.is_some_and(|s| s.exit_status() == Some(0)) {
        return;
    }
    let passes = kill_all();
    let proof = Reaped {
        boot_id: procs::boot_id(),
        shim_code: status.and_then(|s| s.exit_status()),
        shim_signal: status.and_then(|s| s.terminating_signal()),
        passes,
    };
    // Without the file the daemon finds no proof and sweeps: nothing more to do about a full disk here.
    let _ = write_reaped(dir, &proof);
}

fn wait_for(shim: i32) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == shim => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            // No child at all: cannot be, before the shim's own end. The kill below proves the rest.
            Err(_) => return None,
        }
    }
}

/// Repeats until there is no child: a process that forks while it is being killed is met again. What
/// may not be killed (another user's) is waited for.
fn kill_all() -> u32 {
    let own = std::process::id() as i32;
    let mut passes = 0u32;
    loop {
        procs::kill_below(own);
        passes = passes.saturating_add(1);
        loop {
            match procs::reap() {
                Ended::Child(..) => (),
                Ended::NotYet => break,
                Ended::None => return passes,
            }
        }
        std::thread::sleep(Duration::from_millis(match passes {
            0..50 => 1,
            50..200 => 20,
            _ => 1000,
        }));
    }
}

fn write_reaped(dir: &OwnedFd, proof: &Reaped) -> io::Result<()> {
    put_file(dir.as_fd(), REAPED, 0o600, true, &serde_json::to_vec(proof)?)
}
