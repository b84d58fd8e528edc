//! Programs that run to their end: provisioning a CLI, `--version`. Lines as they come, then the outcome.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_proto::shim::relay::{Exec, ExecEnd, RelayError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::OnLine;
use super::beneath::failed_io;
use crate::{procs, sys};

/// Kept of each stream for the outcome, bytes; also the longest line.
const TAIL: usize = 64 << 10;
/// How soon a cancelled or ended program is noticed when it says nothing.
const TICK: Duration = Duration::from_millis(50);

/// Runs it. Cancelled or timed out, its whole session is killed.
pub(crate) fn exec(
    exec: &Exec,
    stdin: &[u8],
    on_line: OnLine<'_>,
    cancel: &AtomicBool,
) -> Result<ExecEnd, RelayError> {
    let Some((program, args)) = exec.argv.split_first() else {
        return Err(RelayError::Malformed { reason: "argv is empty".to_owned() });
    };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&exec.env).current_dir(&exec.cwd);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::as_session(&mut command);
    let mut child = command.spawn().map_err(|e| failed_io("exec", program, &e))?;
    let deadline = Instant::now() + Duration::from_millis(exec.timeout_ms);
    let mut out = Pipe::new(child.stdout.take());
    let mut err = Pipe::new(child.stderr.take());
    let mut feed = child.stdin.take().map(|pipe| (pipe, stdin));
    if let Some((pipe, _)) = &feed {
        unblock(pipe);
    }

    let mut ended = None;
    let (mut timed_out, mut cancelled) = (false, false);
    loop {
        feed = feed.and_then(|(pipe, rest)| write_some(pipe, rest));
        out.read_some(&|line| on_line(false, line));
        err.read_some(&|line| on_line(true, line));
        // Its end, not the end of its output, is what counts: a background child may hold the pipes.
        if ended.is_some() || (out.source.is_none() && err.source.is_none() && ended.is_some()) {
            break;
        }
        ended = child.try_wait().map_err(|e| failed_io("exec", program, &e))?;
        if ended.is_some() {
            continue;
        }
        timed_out = Instant::now() >= deadline;
        cancelled = cancel.load(Ordering::Relaxed);
        if timed_out || cancelled {
            kill_session(&mut child);
            ended = child.wait().ok();
            continue;
        }
        wait(&out, &err, feed.as_ref().map(|(pipe, _)| pipe.as_fd()));
    }
    if cancelled {
        return Err(RelayError::Cancelled);
    }
    let status = ended.unwrap_or_default();
    use std::os::unix::process::ExitStatusExt;
    Ok(ExecEnd {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        stdout: out.finish(&|line| on_line(false, line)),
        stderr: err.finish(&|line| on_line(true, line)),
    })
}

/// The program first, or it would see its children die and still have a say in how it ended.
fn kill_session(child: &mut Child) {
    let pid = child.id() as i32;
    let below = procs::descendants(pid);
    let _ = child.kill();
    for stat in below {
        procs::signal(stat.id, libc::SIGKILL);
    }
    // What was forked meanwhile and stayed in the session's first group. Not reaped yet: the number is ours.
    if let Some(group) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn unblock(fd: impl AsFd) {
    if let Ok(flags) = fcntl_getfl(&fd) {
        let _ = fcntl_setfl(&fd, flags | OFlags::NONBLOCK);
    }
}

fn write_some(mut pipe: std::process::ChildStdin, rest: &[u8]) -> Option<(std::process::ChildStdin, &[u8])> {
    match pipe.write(rest) {
        Ok(n) if n < rest.len() => Some((pipe, &rest[n..])),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
            Some((pipe, rest))
        }
        // All written, or nobody reads: closed.
        _ => None,
    }
}

fn wait(
    out: &Pipe<impl Read + AsFd>,
    err: &Pipe<impl Read + AsFd>,
    stdin: Option<std::os::fd::BorrowedFd<'_>>,
) {
    let mut fds = Vec::with_capacity(3);
    fds.extend(out.source.as_ref().map(|f| PollFd::from_borrowed_fd(f.as_fd(), PollFlags::IN)));
    fds.extend(err.source.as_ref().map(|f| PollFd::from_borrowed_fd(f.as_fd(), PollFlags::IN)));
    fds.extend(stdin.map(|f| PollFd::from_borrowed_fd(f, PollFlags::OUT)));
    if let Ok(tick) = Timespec::try_from(TICK) {
        let _ = poll(&mut fds, Some(&tick));
    }
}

/// One output pipe: the line being read, and the last bytes of all.
struct Pipe<R> {
    source: Option<R>,
    line: Vec<u8>,
    tail: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(source: Option<R>) -> Pipe<R> {
        if let Some(source) = &source {
            unblock(source);
        }
        Pipe { source, line: Vec::new(), tail: Vec::new() }
    }

    /// Takes what is there, up to a bound.
    fn read_some(&mut self, on_line: &dyn Fn(&[u8])) {
        let mut chunk = [0; 16 << 10];
        for _ in 0..16 {
            let Some(source) = &mut self.source else { return };
            match source.read(&mut chunk) {
                Ok(0) => self.source = None,
                Ok(n) => self.take(&chunk[..n], on_line),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.source = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], on_line: &dyn Fn(&[u8])) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                on_line(&self.line);
                self.line.clear();
            } else if self.line.len() >= TAIL {
                on_line(&self.line);
                self.line.clear();
            }
        }
    }

    fn finish(mut self, on_line: &dyn Fn(&[u8])) -> String {
        if !self.line.is_empty() {
            on_line(&self.line);
        }
        let from = self.tail.len().saturating_sub(TAIL);
        String::from_utf8_lossy(&self.tail.split_off(from)).into_owned()
    }
}
