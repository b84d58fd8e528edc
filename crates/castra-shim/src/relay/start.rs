//! Starting a shim, outside the daemon's cgroup where systemd offers that; dialling its socket.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use castra_proto::shim::relay::RelayError;
use castra_proto::shim::relay::Root;
use castra_proto::shim::{Meta, Ready, StartError, StartSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};

use super::beneath::{DIR, failed, failed_io, open_beneath, open_root};
use super::files::mkdir;
use crate::run::SOCKET;
use crate::start::io_error;
use crate::sys;

/// A start that says nothing for so long has failed; its run directory tells what became of it.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const MAX_LINE: usize = 64 << 10;
/// A full backlog is a shim that has stopped; nobody waits for it longer.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// Makes the run directory and starts a shim in it. Returns when claude was executed.
pub(crate) fn start(home: &Path, run: &str, image: &str, spec: &StartSpec) -> Result<Meta, RelayError> {
    spec.check().map_err(|e| RelayError::Start { start: StartError::Spec(e) })?;
    if image.len() != 64 || !image.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(RelayError::BadPath { path: image.to_owned() });
    }
    let root = open_root(home, &Root::Home)?;
    mkdir(&root, run, 0o700)?;
    let shim = home.join("shims").join(image).join("castra-shim");
    let args = [OsString::from("run"), "--dir".into(), home.join(run).into()];
    let spec = serde_json::to_vec(spec).unwrap_or_default();

    if let Some(scope) = scope_runner() {
        let mut command = Command::new(scope);
        command.args(["--user", "--scope", "--quiet", "--collect", "--"]).arg(&shim).args(&args);
        command.env_clear().envs(
            std::env::vars_os()
                .filter(|(k, _)| matches!(k.to_str(), Some("XDG_RUNTIME_DIR" | "DBUS_SESSION_BUS_ADDRESS"))),
        );
        // No line at all: the scope was not made and the shim not started.
        if let Some(ready) = ready(command, &spec)? {
            return settled(ready);
        }
    }
    let mut command = Command::new(&shim);
    command.args(&args).env_clear();
    match ready(command, &spec)? {
        Some(ready) => settled(ready),
        None => {
            let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the shim said nothing");
            Err(RelayError::Start { start: io_error("start", silent) })
        }
    }
}

fn settled(ready: Ready) -> Result<Meta, RelayError> {
    match ready {
        Ready::Started(meta) => Ok(meta),
        Ready::Failed(start) => Err(RelayError::Start { start }),
    }
}

/// Runs a starter to its one line.
fn ready(mut command: Command, spec: &[u8]) -> Result<Option<Ready>, RelayError> {
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(feature = "failpoints")]
    command.envs(std::env::vars().filter(|(k, _)| k.starts_with("CASTRA_TEST_")));
    sys::as_session(&mut command);
    let mut child =
        command.spawn().map_err(|e| failed_io("start", &command.get_program().to_string_lossy(), &e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads all before it does anything; if it died instead, its silence says so.
        let _ = stdin.write_all(spec);
    }
    let mut line = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        let deadline = Instant::now() + READY_DEADLINE;
        let mut chunk = [0; 4096];
        while line.len() < MAX_LINE && !line.contains(&b'\n') && readable(&stdout, deadline) {
            match stdout.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => line.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
                Err(_) => break,
            }
        }
    }
    // The starter itself is gone as soon as it has forked the guard; a hung systemd-run is not.
    if line.is_empty() {
        let _ = child.kill();
    }
    let _ = child.wait();
    Ok(serde_json::from_slice(&line).ok())
}

fn readable(fd: &impl std::os::fd::AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else { return false };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            // The starter's own exit is a SIGCHLD to a daemon that watches its children.
            Err(rustix::io::Errno::INTR) => {}
            ready => return matches!(ready, Ok(1)),
        }
    }
}

/// `systemd-run`, when this user's manager listens. Asks nobody: two look-ups in the file system.
pub(crate) fn scope_runner() -> Option<PathBuf> {
    let runtime = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    UnixStream::connect(runtime.join("systemd/private")).ok()?;
    ["/usr/bin/systemd-run", "/bin/systemd-run"].iter().map(PathBuf::from).find(|p| p.exists())
}

/// Dials the shim through its directory's descriptor: the path is longer than a socket address.
pub(crate) fn connect(home: &Path, run: &str) -> Result<UnixStream, RelayError> {
    let no_shim = || RelayError::NoShim { run: run.to_owned() };
    let root = open_root(home, &Root::Home)?;
    let dir = match open_beneath(&root, run, DIR, Mode::empty()) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Err(no_shim()),
        other => other?,
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| failed("socket", run, e))?;
    // For a Unix socket the send timeout bounds connect too.
    let _ = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(DIAL_DEADLINE));
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    let address = SocketAddrUnix::new(path).map_err(|e| failed("connect", run, e))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {
            let _ = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None);
            Ok(UnixStream::from(socket))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED | rustix::io::Errno::AGAIN) => {
            Err(no_shim())
        }
        Err(e) => Err(failed("connect", run, e)),
    }
}
