//! From `castra-shim run --dir DIR` to a guard and a shim: the spec from stdin, one line back on stdout.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use castra_proto::shim::{MAX_SPEC, Ready, SpecError, StartError, StartSpec};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{set_child_subreaper, setsid};

use crate::sys::{Forked, close_inherited, fork, thrifty_malloc};
use crate::{guard, run, sys};

/// Held by starter, guard and shim, so that a run directory has one of them at most and a daemon can
/// see a start that is under way.
pub(crate) const LOCK: &str = "lock";

/// The starter: returns at once with 0 when the guard is forked. Readiness is the line on stdout.
pub fn run_main(dir: &Path) -> ExitCode {
    close_inherited();
    thrifty_malloc();
    let started = prepare(dir).and_then(|(dir, lock, spec)| split(&dir, lock, spec));
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            answer(&Ready::Failed(error));
            ExitCode::FAILURE
        }
    }
}

/// Writes the one line. A starter that has gone away is no reason to stop.
pub(crate) fn answer(ready: &Ready) {
    let mut line = serde_json::to_vec(ready).unwrap_or_default();
    line.push(b'\n');
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
}

pub(crate) fn io_error(what: &str, error: impl Into<io::Error>) -> StartError {
    let error = error.into();
    StartError::Io {
        what: what.to_owned(),
        errno: error.raw_os_error().unwrap_or(0),
        message: error.to_string(),
    }
}

fn prepare(dir: &Path) -> Result<(OwnedFd, OwnedFd, StartSpec), StartError> {
    let mut text = Vec::new();
    io::stdin().take(MAX_SPEC as u64 + 1).read_to_end(&mut text).map_err(|e| io_error("spec", e))?;
    let unreadable = |reason: String| StartError::Spec(SpecError::Unreadable { reason });
    if text.len() > MAX_SPEC {
        return Err(unreadable(format!("over {MAX_SPEC} bytes")));
    }
    let spec: StartSpec = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
    spec.check().map_err(StartError::Spec)?;

    let dir = open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
        .map_err(|e| io_error("run directory", e))?;
    let lock =
        openat(&dir, LOCK, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, 0o600.into())
            .map_err(|e| io_error("lock", e))?;
    if !sys::lock(&lock).map_err(|e| io_error("lock", e))? {
        return Err(StartError::Busy);
    }
    Ok((dir, lock, spec))
}

/// Starter → guard → shim. `lock` is inherited by both and lives as long as either.
fn split(dir: &OwnedFd, lock: OwnedFd, spec: StartSpec) -> Result<(), StartError> {
    match fork().map_err(|e| io_error("fork", e))? {
        Forked::Parent { .. } => return Ok(()),
        Forked::Child => (),
    }
    if let Err(error) = be_guard(dir, spec) {
        answer(&Ready::Failed(error));
        quit(1);
    }
    drop(lock);
    quit(0);
}

fn be_guard(dir: &OwnedFd, spec: StartSpec) -> Result<(), StartError> {
    setsid().map_err(|e| io_error("setsid", e))?;
    become_reaper()?;
    quiet(dir).map_err(|e| io_error("stdio", e))?;
    match fork().map_err(|e| io_error("fork", e))? {
        Forked::Parent { child } => {
            name("castra-guard");
            // The starter's stdout must close when the shim closes its own.
            let _ = null().and_then(|null| Ok(rustix::stdio::dup2_stdout(&null)?));
            drop(spec);
            guard::guard(child, dir);
            Ok(())
        }
        Forked::Child => {
            name("castra-shim");
            become_reaper()?;
            quit(run::shim(dir, spec));
        }
    }
}

/// Orphans below come to this process. Any non-null argument says "on".
fn become_reaper() -> Result<(), StartError> {
    set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(|e| io_error("subreaper", e))
}

/// The starter's stdin and stderr are not ours to keep: a panic goes into the run directory.
fn quiet(dir: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null()?)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let stderr = openat(dir.as_fd(), "shim.err", flags, 0o600.into())?;
    Ok(rustix::stdio::dup2_stderr(&stderr)?)
}

pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// What `ps` shows.
fn name(name: &str) {
    let _ = std::fs::write("/proc/self/comm", name);
}

fn quit(code: i32) -> ! {
    std::process::exit(code)
}
