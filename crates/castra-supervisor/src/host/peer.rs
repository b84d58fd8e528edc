//! Who is at the other end of a local socket: a person's program, or an agent's tool.

use castra_proto::SessionId;
use std::fs;

/// A process tree deeper than this is no ordinary one; its root is not looked for.
const MAX_DEPTH: usize = 256;

/// The session that this process belongs to, when one of its ancestors is a shim: then it is an agent.
///
/// The ancestors of a tool always lead to its shim, since shim and guard are subreapers.
pub fn session_of_pid(pid: i32) -> Option<SessionId> {
    let mut pid = pid;
    for _ in 0..MAX_DEPTH {
        if pid <= 1 {
            return None;
        }
        if let Some(session) = shim_session(pid) {
            return Some(session);
        }
        pid = parent(pid)?;
    }
    None
}

fn shim_session(pid: i32) -> Option<SessionId> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // A removed image still runs as `castra-shim (deleted)`.
    if !exe.file_name()?.to_str()?.starts_with("castra-shim") {
        return None;
    }
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&cmdline).into_owned();
    let after = text.split("sessions/").nth(1)?;
    after.get(..36)?.parse().ok()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also parentheses.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
