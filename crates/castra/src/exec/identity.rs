//! Which process it was: pid and start time. A pid alone may belong to a stranger by now.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks from boot to its start: field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Identity {
    /// Of a process that exists and is not a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let start_time = start_time(&stat)?;
        Some(Self { pid, start_time })
    }

    pub fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal to this very process, or to none.
    ///
    /// # Errors
    /// `NotFound` when it is gone, whoever bears its pid now.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        // The descriptor first, the check second: then no later process can bear the checked pid.
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(not_found)?;
        if !self.is_alive() {
            return Err(gone());
        }
        // It may have been reaped since the check.
        pidfd_send_signal(process, signal).map_err(not_found)
    }
}

/// ESRCH has no kind of its own in std.
fn not_found(error: Errno) -> std::io::Error {
    match error {
        Errno::SRCH => std::io::ErrorKind::NotFound.into(),
        error => error.into(),
    }
}

/// The name in parentheses may hold anything, also `) S 1`; fields are counted from its last parenthesis.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_field_22_whatever_the_name_is() {
        let tail = "1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 9 9";
        let table: &[(String, Option<u64>)] = &[
            (format!("7 (sh) S {tail}"), Some(4711)),
            (format!("7 (a b) R 2) S {tail}"), Some(4711)),
            (format!("7 (sh) Z {tail}"), None),
            ("7 (sh) S 1".into(), None),
            (String::new(), None),
        ];
        for (stat, expected) in table {
            assert_eq!(start_time(stat), *expected, "{stat}");
        }
    }

    #[test]
    fn this_process_is_alive_and_another_with_its_pid_is_not() {
        let me = Identity::own().unwrap();
        assert!(me.is_alive());
        let stranger = Identity { start_time: me.start_time + 1, ..me };
        assert!(!stranger.is_alive());
        assert_eq!(
            stranger.signal(Signal::KILL).unwrap_err().kind(),
            std::io::ErrorKind::NotFound,
            "a stranger is never signalled"
        );
    }
}
