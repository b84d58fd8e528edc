//! claude as a child: its ends (socketpairs or a terminal), a pidfd, and who claude is behind a wrapper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use castra_proto::shim::{ProcessId, StartSpec};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_send_buffer_size,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::pty::Pty;
use crate::{RUN_VARIABLE, procs, sys};

/// Asked of the kernel for the stdout socket, bytes: what claude can leave behind at exit. Without
/// CAP_NET_ADMIN it grants up to `wmem_max`. Only what is unread costs memory.
const SEND_BUFFER: usize = 8 << 20;
/// How long a wrapper may take to execute claude before the wrapper itself counts as claude.
const WRAPPER_DEADLINE: Duration = Duration::from_secs(2);

/// The running child and this side of its descriptors.
pub(crate) struct Child {
    /// The direct child: claude, or the wrapper whose exit is claude's.
    pub(crate) direct: ProcessId,
    /// Who is reported and signalled.
    pub(crate) claude: ProcessId,
    /// They are two: how claude ended is what the wrapper says of it.
    pub(crate) wrapped: bool,
    /// Readable when the direct child has ended, whoever still holds its stdout.
    pub(crate) pidfd: OwnedFd,
    pub(crate) ends: Ends,
}

/// Where claude's input goes and its output comes from. A terminal has neither `out` nor `err`.
pub(crate) struct Ends {
    /// `None` once claude takes no more.
    pub(crate) stdin: Option<Sink>,
    pub(crate) out: Option<OwnedFd>,
    pub(crate) err: Option<OwnedFd>,
    pub(crate) pty: Option<Pty>,
    /// Granted for stdout, bytes as the kernel counts them; 0 for a terminal.
    pub(crate) snd_buf: u32,
}

/// This side's end of claude's stdin.
pub(crate) enum Sink {
    Socket(OwnedFd),
    /// A second descriptor of the terminal's master.
    Terminal(OwnedFd),
}

impl Sink {
    /// Writes what fits now; never waits and raises no SIGPIPE (a terminal cannot).
    pub(crate) fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match self {
            Sink::Socket(fd) => rustix::net::send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
            Sink::Terminal(fd) => rustix::io::write(fd, bytes),
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Sink::Socket(fd) | Sink::Terminal(fd) => fd.as_fd(),
        }
    }
}

/// Starts the child; the error is what `exec` or the set-up before it said.
pub(crate) fn spawn(spec: &StartSpec) -> io::Result<Child> {
    // Otherwise a missing directory and a missing program are the same ENOENT.
    if !Path::new(&spec.cwd).is_dir() {
        let text = format!("{} is not a directory", spec.cwd);
        return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
    }
    let mut command = Command::new(&spec.argv[0]);
    command.args(&spec.argv[1..]).env_clear().envs(&spec.env).env(RUN_VARIABLE, spec.run_id.to_string());
    command.current_dir(&spec.cwd);
    let ends = match spec.pty {
        Some(size) => on_terminal(&mut command, size)?,
        None => on_sockets(&mut command)?,
    };
    sys::as_run(&mut command, ends.pty.is_some());
    let pid = command.spawn()?.id() as i32;
    // Its own ends are in `command` until here; without them end of file can be seen.
    drop(command);

    let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
    let direct = procs::identify(pid).ok_or(io::ErrorKind::NotFound)?;
    let claude = if spec.wrapped { behind(direct, &spec.argv[0]) } else { direct };
    Ok(Child { direct, claude, wrapped: spec.wrapped, pidfd, ends })
}

/// Sockets, because a tool can open `/proc/<claude>/fd/0` of a pipe and answer its own permission
/// request; opening a socket fails with ENXIO (design §3). Nothing acts on stderr: a pipe will do.
fn on_sockets(command: &mut Command) -> io::Result<Ends> {
    let (stdin, theirs_in) = pair()?;
    let (out, theirs_out) = pair()?;
    let (err, theirs_err) = pipe_with(PipeFlags::CLOEXEC)?;
    let snd_buf = grow(&theirs_out);
    grow(&stdin);
    for fd in [&stdin, &out, &err] {
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    }
    command.stdin(Stdio::from(theirs_in)).stdout(Stdio::from(theirs_out)).stderr(Stdio::from(theirs_err));
    Ok(Ends { stdin: Some(Sink::Socket(stdin)), out: Some(out), err: Some(err), pty: None, snd_buf })
}

fn on_terminal(command: &mut Command, size: castra_proto::shim::Pty) -> io::Result<Ends> {
    let pty = Pty::open(size)?;
    let stdin = Some(Sink::Terminal(pty.master.try_clone()?));
    for give in [Command::stdin, Command::stdout, Command::stderr] {
        give(command, Stdio::from(pty.slave.try_clone()?));
    }
    Ok(Ends { stdin, out: None, err: None, pty: Some(pty), snd_buf: 0 })
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn grow(socket: &OwnedFd) -> u32 {
    if set_socket_send_buffer_size_force(socket.as_fd(), SEND_BUFFER).is_err() {
        let _ = set_socket_send_buffer_size(socket.as_fd(), SEND_BUFFER);
    }
    socket_send_buffer_size(socket).map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// The first descendant of a wrapper that has another name than the wrapper: bwrap forks itself once or
/// twice (its monitor, and pid 1 of the sandbox) before claude is executed.
fn behind(wrapper: ProcessId, argv0: &str) -> ProcessId {
    let deadline = Instant::now() + WRAPPER_DEADLINE;
    let base = Path::new(argv0).file_name().map_or(argv0.as_bytes(), |n| n.as_encoded_bytes());
    // The kernel keeps 15 bytes of a name.
    let name = &base[..base.len().min(15)];
    loop {
        let below = procs::descendants(wrapper.pid);
        if let Some(found) = below.iter().find(|s| s.comm != name && s.comm != b"castra-shim" && !s.dead()) {
            return found.id;
        }
        if !procs::alive(wrapper) || Instant::now() > deadline {
            return wrapper;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
