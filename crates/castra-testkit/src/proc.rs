//! What `/proc` tells of processes. A pid is never trusted alone: with it goes the start time.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;

/// A process that cannot be mistaken for another one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
}

struct Stat {
    state: char,
    parent: i32,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_time })
}

/// The process that has this pid now; none for one that is only waiting to be reaped.
pub fn process(pid: i32) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
    Some(Process { pid, start_time: stat.start_time })
}

/// Every process that runs now.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// Children, their children and so on; not `root` itself.
pub fn descendants(root: i32) -> Vec<Process> {
    let parents: BTreeMap<i32, i32> =
        all().iter().filter_map(|one| Some((one.pid, stat(one.pid)?.parent))).collect();
    let below = |pid: i32| {
        let mut at = pid;
        // A parent may have ended while we looked: the way up is never longer than the list.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(parent) if *parent == root => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| below(*pid)).filter_map(process).collect()
}

/// Every process whose environment has `name=value`.
pub fn with_env(name: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{name}={value}");
    let has = |one: &Process| {
        fs::read(format!("/proc/{}/environ", one.pid))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
    };
    all().into_iter().filter(has).collect()
}

/// Every process of a run: what `CASTRA_RUN` names in its environment.
pub fn of_run(run: &str) -> Vec<Process> {
    with_env("CASTRA_RUN", run)
}

/// Every process that has `text` in its arguments or its environment, except this one.
pub fn mentioning(text: &str) -> Vec<Process> {
    let needle = text.as_bytes();
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let mentions = |one: &Process| {
        ["cmdline", "environ"]
            .iter()
            .any(|file| fs::read(format!("/proc/{}/{file}", one.pid)).is_ok_and(|bytes| holds(&bytes)))
    };
    let own = i32::try_from(std::process::id()).expect("a pid");
    all().into_iter().filter(|one| one.pid != own && mentions(one)).collect()
}

impl Process {
    pub fn is_alive(self) -> bool {
        process(self.pid) == Some(self)
    }

    /// The arguments, joined by spaces: for messages.
    pub fn arguments(self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
    }

    /// Its own pages and its share of the others', in KiB.
    pub fn rss_kib(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }

    /// Whether the signal was sent to this very process.
    pub fn signal(self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        // Looked at after the descriptor is held: from here on the pid cannot become somebody else's.
        self.is_alive() && pidfd_send_signal(fd, signal).is_ok()
    }

    pub fn kill9(self) -> bool {
        self.signal(Signal::KILL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DEADLINE, wait_until};
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_found_by_parent_environment_and_argument_and_ends_by_its_pidfd() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & wait; : marked-3f1b"])
            .env("CASTRA_RUN", "run-3f1b")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let shell = process(pid).unwrap();
        wait_until("the shell's own child", || descendants(pid).len() == 1, DEADLINE);
        let own = i32::try_from(std::process::id()).unwrap();
        let below = descendants(own);
        let sleep = descendants(pid)[0];
        assert!(below.contains(&shell) && below.contains(&sleep), "{below:?}");
        wait_until("both to be of the run", || of_run("run-3f1b") == [shell, sleep], DEADLINE);
        assert_eq!(mentioning("marked-3f1b"), [shell]);
        assert_eq!(shell.arguments(), "sh -c sleep 1000 & wait; : marked-3f1b");
        assert!(shell.rss_kib() > 0);

        let stranger = Process { start_time: shell.start_time + 1, ..shell };
        assert!(!stranger.is_alive() && !stranger.kill9(), "another start time is another process");
        assert!(shell.is_alive());
        assert!(shell.kill9() && sleep.kill9(), "the shell first: it ends by itself when its child has");
        child.wait().unwrap();
        wait_until("an end", || !shell.is_alive() && !sleep.is_alive(), DEADLINE);
    }
}
