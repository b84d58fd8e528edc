//! Who is at the other end of a local socket: a person's program, or an agent's tool. Refuses to guess.

use castra_proto::SessionId;
use std::{fs, io};

/// Processes above one another. An agent may build a taller tower; it is then told nothing.
const MAX_DEPTH: usize = 4096;
/// Times to look again when an ancestor ended under our eyes.
const TRIES: usize = 64;

/// The session that this process belongs to, when one of its ancestors is a shim: then it is an agent.
///
/// The ancestors of a tool always lead to its shim, since shim and guard are subreapers. Of several shims the
/// outermost counts: an agent can only add below its own.
///
/// # Errors
/// When the ancestors cannot be told. Whoever gets this is no person: an agent could else end its parent in the
/// right moment, or hide behind a tall tree.
pub fn session_of_pid(pid: i32) -> io::Result<Option<SessionId>> {
    judge(pid, look)
}

/// One process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    parent: i32,
    /// Clock ticks since boot: a number that was used again is another process.
    start: u64,
    shim: Shim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shim {
    No,
    Of(SessionId),
    /// A shim, of a session that it does not tell.
    Unreadable,
}

fn judge(pid: i32, mut look: impl FnMut(i32) -> Option<Seen>) -> io::Result<Option<SessionId>> {
    let unknown = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned());
    for _ in 0..TRIES {
        // A parent that ends between two looks leaves a number that leads nowhere, or to a stranger. The same
        // way seen twice had nobody end on it in between.
        let Some(way) = lineage(pid, &mut look)? else { continue };
        if lineage(pid, &mut look)?.as_ref() != Some(&way) {
            continue;
        }
        return match way.iter().rev().find(|seen| seen.shim != Shim::No).map(|seen| seen.shim) {
            None | Some(Shim::No) => Ok(None),
            Some(Shim::Of(session)) => Ok(Some(session)),
            Some(Shim::Unreadable) => Err(unknown("the peer is below a shim that does not say whose it is")),
        };
    }
    Err(unknown("the ancestors of the peer keep changing"))
}

/// From a process to the top; `None` when somebody on the way is gone.
fn lineage(pid: i32, look: &mut impl FnMut(i32) -> Option<Seen>) -> io::Result<Option<Vec<Seen>>> {
    let mut way = Vec::new();
    let mut at = pid;
    while at > 0 {
        if way.len() == MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer has too many ancestors"));
        }
        let Some(seen) = look(at) else { return Ok(None) };
        at = seen.parent;
        way.push(seen);
    }
    Ok(Some(way))
}

fn look(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Seen { parent, start, shim: shim(pid) })
}

fn shim(pid: i32) -> Shim {
    // Another user's, which a shim of ours is not.
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return Shim::No };
    // A removed image still runs as `castra-shim (deleted)`.
    if !exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("castra-shim")) {
        return Shim::No;
    }
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    session_of(&String::from_utf8_lossy(&cmdline)).map_or(Shim::Unreadable, Shim::Of)
}

/// `castra-shim run --dir HOME/sessions/ID/runs/N`, where HOME may hold anything.
fn session_of(cmdline: &str) -> Option<SessionId> {
    cmdline.rsplit_once("sessions/")?.1.get(..36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const ID: &str = "01928f6e-7b5a-7000-8000-000000000001";
    const INNER: &str = "01928f6e-7b5a-7000-8000-000000000002";

    fn id(text: &str) -> SessionId {
        text.parse().unwrap()
    }

    /// `(pid, parent, shim)`, each started at its own number.
    fn tree(table: &[(i32, i32, Shim)]) -> HashMap<i32, Seen> {
        table.iter().map(|&(pid, parent, shim)| (pid, Seen { parent, start: pid as u64, shim })).collect()
    }

    #[test]
    fn whoever_has_a_shim_above_is_an_agent_of_the_outermost() {
        let (no, of, inner) = (Shim::No, Shim::Of(id(ID)), Shim::Of(id(INNER)));
        let tree = tree(&[
            (1, 0, no),
            (10, 1, no),
            (20, 1, of),
            (21, 20, of),
            (22, 21, no),
            (30, 22, inner),
            (31, 30, no),
            (40, 1, Shim::Unreadable),
            (41, 40, no),
        ]);
        let judged = |pid| judge(pid, |pid| tree.get(&pid).copied()).map_err(|error| error.kind());
        let refused = Err(io::ErrorKind::PermissionDenied);
        for (pid, expected) in [
            (1, Ok(None)),
            (10, Ok(None)),
            (20, Ok(Some(id(ID)))),
            (22, Ok(Some(id(ID)))),
            (31, Ok(Some(id(ID)))),
            (41, refused),
            (99, Err(io::ErrorKind::PermissionDenied)),
        ] {
            assert_eq!(judged(pid), expected, "{pid}");
        }
    }

    #[test]
    fn a_tower_that_hides_its_shim_is_refused() {
        let tall = |pid: i32| {
            let shim = if pid == 1 { Shim::Of(id(ID)) } else { Shim::No };
            Some(Seen { parent: pid - 1, start: 0, shim })
        };
        assert_eq!(judge(MAX_DEPTH as i32, tall).unwrap(), Some(id(ID)));
        assert!(judge(MAX_DEPTH as i32 + 1, tall).is_err());
    }

    /// 22's parent 21 ends in the middle of the first look, when its number was read and it was not looked at.
    #[test]
    fn a_parent_that_ends_in_the_right_moment_makes_no_person() {
        let (no, of) = (Shim::No, Shim::Of(id(ID)));
        let before = tree(&[(1, 0, no), (20, 1, of), (21, 20, no), (22, 21, no)]);
        let gone = tree(&[(1, 0, no), (20, 1, of), (22, 20, no)]);
        // Its number goes to a child of init's.
        let mut reused = gone.clone();
        reused.insert(21, Seen { parent: 1, start: 500, shim: no });
        for after in [gone, reused] {
            let mut looks = 0;
            let judged = judge(22, |pid| {
                looks += 1;
                if looks == 1 { before.get(&pid).copied() } else { after.get(&pid).copied() }
            });
            assert_eq!(judged.unwrap(), Some(id(ID)));
        }
    }

    #[test]
    fn a_tree_that_never_holds_still_is_refused() {
        let mut looks = 0;
        let judged = judge(5, |pid| {
            looks += 1;
            Some(Seen { parent: if pid == 5 { 1 } else { 0 }, start: looks, shim: Shim::No })
        });
        assert!(judged.is_err());
    }

    #[test]
    fn the_session_is_read_behind_whatever_the_home_is_called() {
        for home in
            ["/home/u/.local/share/castra", "/srv/sessions/castra", "/x/sessions", "/sessions/sessions/a b"]
        {
            let cmdline = format!("{home}/shims/ab/castra-shim\0run\0--dir\0{home}/sessions/{ID}/runs/1\0");
            assert_eq!(session_of(&cmdline), Some(id(ID)), "{home}");
        }
        assert_eq!(session_of("castra-shim\0run\0--dir\0/tmp/x\0"), None);
    }

    #[test]
    fn this_very_process_has_ancestors() {
        let own = i32::try_from(std::process::id()).unwrap();
        let way = lineage(own, &mut look).unwrap().unwrap();
        assert!(way.len() > 1 && way.last().unwrap().parent == 0, "{way:?}");
    }
}
