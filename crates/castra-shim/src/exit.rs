//! The end of a run: claude's exit, the rest of its tree, the rest of its output, the last note.

use std::time::{Duration, Instant};

use castra_proto::shim::{ExitCause, Note, StatusExit, Stream, TreeProof};

use crate::procs::{self, Ended};
use crate::run::{Life, Shim};
use crate::tail::Tail;

/// How long a tree may take to die of SIGKILL before the note says `unproven`.
const KILL_DEADLINE: Duration = Duration::from_secs(2);
/// Orphans that ended are collected at least this often: a zombie costs little, and 200 idle shims that look every
/// 5 s cost 0.17 % of a core.
const REAP_EVERY: Duration = Duration::from_secs(20);
/// After claude's end, when nobody may ever ask for what the log has.
const REAP_EVERY_ENDED: Duration = Duration::from_secs(5);
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// Signals that a program dies of and does not report itself by 128+n, as claude does SIGHUP and SIGTERM.
const FATAL: [i32; 9] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// bwrap and its like report a child that was killed as 128 and the signal.
fn behind_wrapper(exit: StatusExit) -> StatusExit {
    let signal = exit.code.map(|code| code - 128).filter(|signal| FATAL.contains(signal));
    if signal.is_some() { StatusExit { code: None, signal } } else { exit }
}

/// A tree that is being killed.
pub(crate) struct Kill {
    next: Instant,
    deadline: Instant,
    passes: u32,
    proof: Option<TreeProof>,
}

/// What is due when, besides descriptors.
pub(crate) struct Timers {
    reaped: Instant,
    memory: Option<(u64, Instant)>,
}

impl Timers {
    pub(crate) fn new(memory_limit: Option<u64>) -> Timers {
        let now = Instant::now();
        Timers { reaped: now, memory: memory_limit.map(|limit| (limit, now + MEMORY_EVERY)) }
    }
}

impl Shim {
    /// When the next of these ticks is due.
    pub(crate) fn tick_deadline(&self) -> Instant {
        let mut at = self.reap_at();
        if let (Some((_, memory)), Life::Running) = (self.timers.memory, &self.life) {
            at = at.min(memory);
        }
        if let Some(kill) = self.kill.as_ref().filter(|k| k.proof.is_none()) {
            at = at.min(kill.next);
        }
        at
    }

    fn reap_at(&self) -> Instant {
        let every = if matches!(self.life, Life::Running) { REAP_EVERY } else { REAP_EVERY_ENDED };
        self.timers.reaped + every
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if now >= self.reap_at() {
            self.timers.reaped = now;
            self.reap();
            self.removed = rustix::fs::fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0);
        }
        self.memory_tick(now);
        self.kill_tick(now);
        self.finish_exit();
    }

    /// Collects every child that has ended; whether there is none left at all.
    pub(crate) fn reap(&mut self) -> bool {
        loop {
            match procs::reap() {
                Ended::Child(pid, status) => {
                    if pid == self.child.direct.pid && matches!(self.life, Life::Running) {
                        let exit =
                            StatusExit { code: status.exit_status(), signal: status.terminating_signal() };
                        let exit = if self.child.wrapped { behind_wrapper(exit) } else { exit };
                        self.life = Life::Ending(exit);
                        self.input.close();
                        self.child.ends.stdin = None;
                        // What claude has left running ends with it.
                        self.start_kill(ExitCause::Own);
                    }
                }
                Ended::NotYet => return false,
                Ended::None => return true,
            }
        }
    }

    /// Begins to kill everything of the run. The first cause stays.
    pub(crate) fn start_kill(&mut self, cause: ExitCause) {
        if self.cause == ExitCause::Own {
            self.cause = cause;
        }
        if self.kill.is_none() {
            let now = Instant::now();
            self.kill = Some(Kill { next: now, deadline: now + KILL_DEADLINE, passes: 0, proof: None });
        }
    }

    fn kill_tick(&mut self, now: Instant) {
        let Some(mut kill) = self.kill.take() else { return };
        if kill.proof.is_none() && now >= kill.next {
            procs::kill_below(self.own.pid);
            kill.passes = kill.passes.saturating_add(1);
            let empty = self.reap();
            if empty {
                kill.proof = Some(TreeProof::Empty);
            } else if now >= kill.deadline && !matches!(self.life, Life::Running) {
                kill.proof = Some(TreeProof::Unproven);
            }
            let pause = match kill.passes {
                0..20 => 1,
                20..200 => 10,
                _ => 500,
            };
            kill.next = Instant::now() + Duration::from_millis(pause);
        }
        self.kill = Some(kill);
    }

    fn memory_tick(&mut self, now: Instant) {
        let Some((limit, at)) = self.timers.memory else { return };
        if now < at || !matches!(self.life, Life::Running) || self.kill.is_some() {
            return;
        }
        self.timers.memory = Some((limit, now + MEMORY_EVERY));
        let pages: u64 = procs::glance(self.own.pid).iter().map(|s| s.rss_pages).sum();
        let bytes = pages * self.page;
        if bytes > limit {
            self.note(Note::MemoryLimit { bytes, limit });
            self.start_kill(ExitCause::MemoryLimit);
        }
    }

    /// With claude reaped and its tree gone: reads what is still in the sockets, then says the last word.
    fn finish_exit(&mut self) {
        let Life::Ending(exit) = self.life else { return };
        let Some(tree) = self.kill.as_ref().and_then(|k| k.proof) else { return };
        for stream in [Stream::Out, Stream::Err] {
            while self.full.is_none() && self.read_stream(stream) {}
        }
        // A read of a terminal first fetches what its slaves have written: empty is the end, also when
        // somebody outside the tree holds a slave open.
        while self.full.is_none() && self.read_terminal() {}
        if let Some(tail) = &mut self.tail {
            // Nobody is left to write: what inotify did not tell yet is there now.
            tail.look_again();
        }
        while self.full.is_none() && self.tail.as_ref().is_some_and(Tail::is_behind) {
            self.pump_files();
        }
        if self.full.is_some() {
            return;
        }
        let tail_lost = self.read_failed || self.torn;
        self.note(Note::Exit { code: exit.code, signal: exit.signal, tail_lost, tree, cause: self.cause });
        // A note that found no room waits; until it is written the run has not ended.
        if self.full.is_none() {
            self.child.ends.out = None;
            self.child.ends.err = None;
            self.child.ends.pty = None;
            self.tail = None;
            self.last_word = self.log.last();
            self.life = Life::Exited(exit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_hides_a_signal_and_no_code_of_claudes_own() {
        for (code, signal, shown) in [
            (Some(137), None, (None, Some(libc::SIGKILL))),
            (Some(139), None, (None, Some(libc::SIGSEGV))),
            (Some(143), None, (Some(143), None)),
            (Some(129), None, (Some(129), None)),
            (Some(0), None, (Some(0), None)),
            (Some(255), None, (Some(255), None)),
            (None, Some(libc::SIGKILL), (None, Some(libc::SIGKILL))),
        ] {
            let exit = behind_wrapper(StatusExit { code, signal });
            assert_eq!((exit.code, exit.signal), shown, "{code:?} {signal:?}");
        }
    }
}
