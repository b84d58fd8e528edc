//! Processes as `/proc` shows them: identity, descent, and signals that never reach a stranger.

use std::collections::HashMap;
use std::fs;

use castra_proto::shim::ProcessId;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait,
};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(crate) comm: Vec<u8>,
    pub(crate) state: u8,
    pub(crate) ppid: i32,
    pub(crate) rss_pages: u64,
}

impl Stat {
    /// Waiting to be reaped, or already gone.
    pub(crate) fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The name may hold any byte, spaces and parentheses too: fields count from the last `)`.
fn parse(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|&b| b == b'(')?;
    let close = line.iter().rposition(|&b| b == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let ppid = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    let rss_pages = fields.nth(1)?.parse().unwrap_or(0);
    Some(Stat {
        id: ProcessId { pid, start },
        comm: line.get(open + 1..close)?.to_vec(),
        state,
        ppid,
        rss_pages,
    })
}

pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The numbers of a process in all pid namespaces it is in, the outermost first.
pub(crate) fn numbers(pid: i32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The identity of a living process.
pub(crate) fn identify(pid: i32) -> Option<ProcessId> {
    stat(pid).map(|s| s.id)
}

pub(crate) fn own_id() -> ProcessId {
    let pid = std::process::id() as i32;
    identify(pid).unwrap_or(ProcessId { pid, start: 0 })
}

/// Whether exactly this process lives; a zombie does not.
pub(crate) fn alive(id: ProcessId) -> bool {
    stat(id.pid).is_some_and(|s| s.id == id && !s.dead())
}

pub(crate) fn all() -> Vec<Stat> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// Everything below `root`, parents before children; zombies too.
pub(crate) fn descendants(root: i32) -> Vec<Stat> {
    let mut by_parent: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all() {
        by_parent.entry(stat.ppid).or_default().push(stat);
    }
    let mut found = by_parent.remove(&root).unwrap_or_default();
    let mut at = 0;
    while at < found.len() {
        if let Some(children) = by_parent.remove(&found[at].id.pid) {
            found.extend(children);
        }
        at += 1;
    }
    found
}

/// Everything below `root` by the kernel's own lists of children (`CONFIG_PROC_CHILDREN`), which costs what the tree has
/// and not what the machine has; by [`descendants`] where there are none. One that ends or is handed on meanwhile may
/// hide its neighbours (proc(5)): good for weighing a tree again and again, not for proving that it is empty.
pub(crate) fn glance(root: i32) -> Vec<Stat> {
    let Some(mut below) = children(root) else { return descendants(root) };
    let mut at = 0;
    while at < below.len() {
        below.extend(children(below[at]).unwrap_or_default());
        at += 1;
    }
    below.into_iter().filter_map(stat).collect()
}

/// None when the process is gone, or the kernel has no such lists.
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    // Of each thread: a child belongs to the one that forked it.
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        match fs::read_to_string(task.ok()?.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A thread that has ended meanwhile; the process goes on without it.
            Err(_) if fs::exists(format!("/proc/{pid}/task/{pid}/children")).unwrap_or(false) => (),
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Signals exactly this process: the number is pinned by a pidfd before the start time is compared.
pub(crate) fn signal(id: ProcessId, signo: i32) -> bool {
    let (Some(pid), Some(signal)) = (Pid::from_raw(id.pid), Signal::from_named_raw(signo)) else {
        return false;
    };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    identify(id.pid) == Some(id) && pidfd_send_signal(&fd, signal).is_ok()
}

/// One pass of SIGKILL over everything below `root`; whether anything was there.
pub(crate) fn kill_below(root: i32) -> bool {
    let below = descendants(root);
    for stat in below.iter().filter(|s| !s.dead()) {
        signal(stat.id, libc::SIGKILL);
    }
    !below.is_empty()
}

/// The next child that has ended, without waiting; `Ended::None` proves that there is no child at all,
/// which for a subreaper means no descendant.
pub(crate) enum Ended {
    Child(i32, WaitStatus),
    NotYet,
    None,
}

pub(crate) fn reap() -> Ended {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Ended::Child(pid.as_raw_nonzero().get(), status),
            Ok(None) => return Ended::NotYet,
            Err(rustix::io::Errno::INTR) => (),
            Err(_) => return Ended::None,
        }
    }
}

/// CLOCK_BOOTTIME, nanoseconds.
pub(crate) fn boot_ns() -> u64 {
    nanos(ClockId::Boottime)
}

/// CLOCK_REALTIME, nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    nanos(ClockId::Realtime)
}

fn nanos(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// This boot of this machine; nil where the kernel does not say.
pub(crate) fn boot_id() -> Uuid {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Uuid::parse_str(text.trim()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_hostile_names() {
        let tail = " S 7 1 1 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 98765 1000 42 18446744073709551615";
        for name in ["cat", "a b", ") S 1 (", "((", ")", "é"] {
            let line = format!("123 ({name}){tail}\n");
            let want = Stat {
                id: ProcessId { pid: 123, start: 98765 },
                comm: name.as_bytes().to_vec(),
                state: b'S',
                ppid: 7,
                rss_pages: 42,
            };
            assert_eq!(parse(line.as_bytes()), Some(want), "{name}");
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 (x) S"), None);
    }

    #[test]
    fn a_glance_sees_the_children_of_every_thread_and_theirs() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Command, Stdio};

        // One that a thread has forked, with a child of its own.
        let forked = std::thread::spawn(|| {
            let mut shell = Command::new("/bin/sh")
                .args(["-c", "sleep 600 & echo $!; read line; kill $!"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
            (shell, line.trim().parse::<i32>().unwrap())
        });
        let (mut shell, grandchild) = forked.join().unwrap();
        let child = shell.id() as i32;
        let of = |found: Vec<Stat>| {
            found.iter().any(|s| s.id.pid == child && s.ppid == own_id().pid)
                && found.iter().any(|s| s.id.pid == grandchild && s.ppid == child)
        };
        assert!(of(glance(own_id().pid)) && of(descendants(own_id().pid)));
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        assert!(children(child).is_none() && glance(child).is_empty());
    }

    #[test]
    fn a_reused_number_is_not_signalled() {
        let own = own_id();
        let stranger = ProcessId { pid: own.pid, start: own.start + 1 };
        assert!(!signal(stranger, libc::SIGKILL));
        assert!(!alive(stranger));
        assert!(alive(own));
    }
}
