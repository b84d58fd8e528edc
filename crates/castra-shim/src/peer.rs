//! Who may join a run: a daemon or a relay, and no agent, neither of this run nor of another. Refuses to guess.
//!
//! Guard and shim are subreapers, so whatever an agent starts has a shim above it as long as it lives. A daemon may
//! itself run inside a session; then that session's shims are above both of us.

use std::fs;

use castra_proto::shim::ProcessId;

use crate::procs;

/// Processes above one another; whoever built a taller tower is not let in.
const MAX_DEPTH: usize = 4096;
/// Times to look again when an ancestor ended under our eyes.
const TRIES: usize = 64;

/// Whether `pid` is below no shim that is not above `own` too.
pub(crate) fn is_outside(pid: i32, own: ProcessId) -> bool {
    judge(pid, own, look)
}

/// One process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// With its start: a number that was used again is another process.
    id: ProcessId,
    parent: i32,
    shim: bool,
}

fn judge(pid: i32, own: ProcessId, mut look: impl FnMut(i32) -> Option<Seen>) -> bool {
    for _ in 0..TRIES {
        let (Some(peer), Some(mine)) = (way(pid, &mut look), way(own.pid, &mut look)) else { continue };
        // A parent that ends between two looks leaves a number that leads nowhere, or to a stranger. The same
        // way seen twice had nobody end on it in between.
        if way(pid, &mut look).as_ref() != Some(&peer) || way(own.pid, &mut look).as_ref() != Some(&mine) {
            continue;
        }
        let above = |seen: &Seen| seen.id != own && mine.contains(seen);
        return !peer.iter().any(|seen| seen.id == own || (seen.shim && !above(seen)));
    }
    false
}

/// From a process to the top; `None` when somebody on the way is gone, or there are too many.
fn way(pid: i32, look: &mut impl FnMut(i32) -> Option<Seen>) -> Option<Vec<Seen>> {
    let mut way = Vec::new();
    let mut at = pid;
    while at > 0 {
        if way.len() == MAX_DEPTH {
            return None;
        }
        let seen = look(at)?;
        at = seen.parent;
        way.push(seen);
    }
    Some(way)
}

fn look(pid: i32) -> Option<Seen> {
    let stat = procs::stat(pid)?;
    Some(Seen { id: stat.id, parent: stat.ppid, shim: is_shim(pid) })
}

/// A shim or a guard. A relay is none: it is how daemons on other machines reach us.
fn is_shim(pid: i32) -> bool {
    // Another user's, which a shim of ours is not.
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    // A removed image still runs as `castra-shim (deleted)`.
    exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("castra-shim"))
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|cmdline| cmdline.split(|byte| *byte == 0).nth(1) == Some(b"run"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Tree = HashMap<i32, Seen>;

    /// `(pid, parent, shim)`, each started at its own number.
    fn tree(table: &[(i32, i32, bool)]) -> Tree {
        let seen = |pid: i32, parent, shim| Seen { id: ProcessId { pid, start: pid as u64 }, parent, shim };
        table.iter().map(|&(pid, parent, shim)| (pid, seen(pid, parent, shim))).collect()
    }

    fn own(pid: i32) -> ProcessId {
        ProcessId { pid, start: pid as u64 }
    }

    #[test]
    fn agents_stay_out_whosoever_they_are() {
        let tree = tree(&[
            (1, 0, false),
            (10, 1, false), // a daemon
            (20, 1, true),  // guard, shim and tool of this run
            (21, 20, true),
            (22, 21, false),
            (30, 1, true), // of another
            (31, 30, true),
            (32, 31, false),
            (40, 21, true), // of a session of a castra that runs inside this one, with its daemon beside it
            (41, 40, true),
            (42, 41, false),
            (43, 22, false),
        ]);
        for (own_shim, peer, outside) in [
            (21, 10, true),
            (21, 1, true),
            (21, 22, false),
            (21, 21, false),
            (21, 32, false),
            (31, 22, false),
            (21, 42, false),
            (41, 43, true),
            (41, 10, true),
            (41, 42, false),
            (41, 32, false),
            (21, 99, false),
        ] {
            let judged = judge(peer, own(own_shim), |pid| tree.get(&pid).copied());
            assert_eq!(judged, outside, "{peer} at {own_shim}");
        }
    }

    /// 22's parent ends in the middle of the first look, when its number was read and it was not looked at; then
    /// the number goes to a child of init's.
    #[test]
    fn a_number_that_is_used_again_lets_nobody_in() {
        let before = tree(&[(1, 0, false), (20, 1, true), (21, 20, false), (22, 21, false)]);
        let mut after = tree(&[(1, 0, false), (20, 1, true), (22, 20, false)]);
        after.insert(21, Seen { id: ProcessId { pid: 21, start: 500 }, parent: 1, shim: false });
        let mut looks = 0;
        let judged = judge(22, own(20), |pid| {
            looks += 1;
            if looks == 1 { before.get(&pid).copied() } else { after.get(&pid).copied() }
        });
        assert!(!judged);
    }

    #[test]
    fn a_tower_that_hides_its_shim_and_a_tree_that_never_holds_still_are_refused() {
        let tall = |pid: i32| {
            let parent = if pid <= 2 { 0 } else { pid - 1 };
            Some(Seen { id: own(pid), parent, shim: false })
        };
        assert!(judge(MAX_DEPTH as i32, own(1), tall));
        assert!(!judge(MAX_DEPTH as i32 + 2, own(1), tall));
        let mut looks = 0;
        assert!(!judge(5, own(1), |pid| {
            looks += 1;
            let parent = if pid == 5 { 1 } else { 0 };
            Some(Seen { id: ProcessId { pid, start: looks }, parent, shim: false })
        }));
    }
}
