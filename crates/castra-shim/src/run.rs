//! The shim: one run, from its socket and log to its last acknowledged record.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use castra_proto::shim::{
    DEFAULT_SEGMENT_BYTES, ExitCause, Meta, Note, ProcessId, Pty, Ready, StartError, StartSpec, StatusExit,
};
use rustix::fs::{AtFlags, Mode, chmodat, unlinkat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use uuid::Uuid;

use crate::child::{Child, spawn};
use crate::conn::Conn;
use crate::exit::{Kill, Timers};
use crate::full::Full;
use crate::input::Input;
use crate::log::{Log, LogId, Syncer};
use crate::relay::put_file;
use crate::start::{answer, io_error, null};
use crate::tail::Tail;
use crate::{BUILD, procs, sys};

/// The socket in the run directory.
pub(crate) const SOCKET: &str = "shim.sock";
/// Who the processes are, in the run directory.
pub(crate) const META: &str = "meta.json";

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// claude is reaped; its tree or its output is not done yet.
    Ending(StatusExit),
    /// The `exit` note is in the log.
    Exited(StatusExit),
}

pub(crate) struct Shim {
    pub(crate) dir: OwnedFd,
    pub(crate) listener: UnixListener,
    pub(crate) log: Log,
    pub(crate) sync: Syncer,
    pub(crate) child: Child,
    /// Readable when the guard is dead; `None` once that was seen.
    pub(crate) guard: Option<OwnedFd>,
    pub(crate) own: ProcessId,
    pub(crate) run: Uuid,
    pub(crate) boot_id: Uuid,
    pub(crate) conns: Vec<Conn>,
    pub(crate) input: Input,
    /// The highest seen.
    pub(crate) epoch: u64,
    pub(crate) acked: u64,
    pub(crate) full: Option<Full>,
    pub(crate) life: Life,
    /// Files that are tailed into the log.
    pub(crate) tail: Option<Tail>,
    pub(crate) kill: Option<Kill>,
    pub(crate) cause: ExitCause,
    /// stdout's last byte so far is no newline.
    pub(crate) torn: bool,
    pub(crate) read_failed: bool,
    /// The record of the `exit` note, once it is there. Whoever has that has all: what the disk says later (a sync
    /// that failed) must not keep the shim.
    pub(crate) last_word: u64,
    /// The run directory was removed: nobody can ask for the end of this run any more.
    pub(crate) removed: bool,
    pub(crate) timers: Timers,
    pub(crate) page: u64,
    /// For what claude says.
    pub(crate) buf: Vec<u8>,
    /// For what is read back from the log.
    pub(crate) scratch: Vec<u8>,
}

/// The shim process, from its fork to its exit code: 0 only when everything was acknowledged.
pub(crate) fn shim(dir: &OwnedFd, spec: StartSpec) -> i32 {
    let mut shim = match set_up(dir, &spec) {
        Ok(shim) => shim,
        Err(error) => {
            answer(&Ready::Failed(error));
            // The guard has nothing to kill, and no proof is needed for a run that never was.
            return 0;
        }
    };
    // The spec holds secrets: not in memory longer than needed.
    drop(spec);
    let served = shim.serve();
    shim.log.sync_now();
    let _ = unlinkat(&shim.dir, SOCKET, AtFlags::empty());
    if served.is_ok() { 0 } else { 1 }
}

fn set_up(dir: &OwnedFd, spec: &StartSpec) -> Result<Shim, StartError> {
    let own = procs::own_id();
    let boot_id = procs::boot_id();
    let (guard, guard_id) = watch_guard()?;
    let mut meta = Meta {
        run_id: spec.run_id,
        session_id: spec.session_id.clone(),
        run: spec.run,
        boot_id,
        guard: guard_id,
        shim: own,
        claude: None,
        build: BUILD.to_owned(),
    };
    let id = LogId { run: spec.run_id, boot_id, wall_ns: procs::wall_ns(), boot_ns: procs::boot_ns() };
    let sync = Syncer::start().map_err(|e| io_error("sync thread", e))?;
    let limit = spec.segment_bytes.unwrap_or(DEFAULT_SEGMENT_BYTES);
    let mut log = Log::create(dir, id, limit, sync.clone()).map_err(|e| io_error("log", e))?;
    let listener = listen(dir).map_err(|e| io_error("socket", e))?;
    // Once before claude exists, so that a daemon which comes at any moment finds whom to ask.
    write_meta(dir, &meta, false)?;

    // What is there before claude must be told from what claude writes.
    let mut tail = Tail::open(&spec.files).map_err(|e| io_error("tailed directory", e))?;
    let child = match spawn(spec) {
        Ok(child) => child,
        Err(error) => return Err(not_spawned(dir, &mut log, &error)),
    };
    meta.claude = Some(child.claude);
    if let Some(tail) = &mut tail {
        tail.claude_is(procs::numbers(child.claude.pid));
    }
    let started = Note::Started {
        claude: child.claude,
        shim: own,
        guard: guard_id,
        boot_id,
        wall_ns: id.wall_ns,
        boot_ns: id.boot_ns,
        snd_buf: child.ends.snd_buf,
        epoch: spec.epoch,
    };
    let recorded = log
        .note(&started)
        .and_then(|()| match spec.pty {
            // A replay needs the size before the first byte.
            Some(Pty { rows, cols }) => log.note(&Note::Resized { rows, cols }),
            None => Ok(()),
        })
        .map_err(|e| io_error("log", e))
        .and_then(|()| write_meta(dir, &meta, true));
    if let Err(error) = recorded {
        while procs::kill_below(own.pid) {
            while let procs::Ended::Child(..) = procs::reap() {}
        }
        return Err(error);
    }
    answer(&Ready::Started(meta));
    let _ = null().and_then(|null| Ok(rustix::stdio::dup2_stdout(&null)?));

    Ok(Shim {
        dir: dir.try_clone().map_err(|e| io_error("run directory", e))?,
        listener,
        log,
        sync,
        child,
        guard: Some(guard),
        own,
        run: spec.run_id,
        boot_id,
        conns: Vec::new(),
        input: Input::default(),
        epoch: spec.epoch,
        acked: 0,
        full: None,
        life: Life::Running,
        tail,
        kill: None,
        cause: ExitCause::Own,
        torn: false,
        read_failed: false,
        last_word: 0,
        removed: false,
        timers: Timers::new(spec.memory_bytes),
        page: sys::page_size(),
        buf: Vec::new(),
        scratch: Vec::new(),
    })
}

/// The guard is the parent; if it died meanwhile, the parent is another and so is the answer.
fn watch_guard() -> Result<(OwnedFd, ProcessId), StartError> {
    let parent = rustix::process::getppid().unwrap_or(Pid::INIT);
    let fd = pidfd_open(parent, PidfdFlags::empty()).map_err(|e| io_error("guard", e))?;
    let id = procs::identify(parent.as_raw_nonzero().get());
    match id {
        Some(id) if rustix::process::getppid() == Some(parent) => Ok((fd, id)),
        _ => Err(io_error("guard", io::Error::from_raw_os_error(libc::ESRCH))),
    }
}

/// Bound through the directory's descriptor: the path of a run is longer than a socket address.
fn listen(dir: &OwnedFd) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    chmodat(dir, SOCKET, Mode::from(0o600), AtFlags::empty())?;
    Ok(listener)
}

fn write_meta(dir: &OwnedFd, meta: &Meta, sync: bool) -> Result<(), StartError> {
    let text = serde_json::to_vec(meta).unwrap_or_default();
    put_file(dir.as_fd(), META, 0o600, sync, &text).map_err(|e| io_error(META, e))
}

fn not_spawned(dir: &OwnedFd, log: &mut Log, error: &io::Error) -> StartError {
    let (errno, message) = (error.raw_os_error().unwrap_or(0), error.to_string());
    let _ = log.note(&Note::SpawnFailed { errno, message: message.clone() });
    log.sync_now();
    let _ = unlinkat(dir, SOCKET, AtFlags::empty());
    StartError::Spawn { errno, message }
}
