//! The only `unsafe` of castra: fork, the moment before exec, inherited descriptors, file locks.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which side of a fork this is.
pub(crate) enum Forked {
    Parent { child: i32 },
    Child,
}

/// Closes every descriptor from 3 up: whatever the starter forgot to mark close-on-exec.
///
/// Call first thing in `main`, before anything has been opened.
pub(crate) fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor above 2 yet. Failure (an old kernel's ENOSYS)
    // leaves them open, which is what the caller had before.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Gives buffers back to the system when they are freed: glibc would otherwise raise its threshold to the
/// largest buffer ever freed and keep megabytes per shim.
pub(crate) fn thrifty_malloc() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives large blocks back to the system when they are freed, in a process that reads whole lines of claude's: glibc
/// would otherwise take the largest block ever freed for what is usual, and keep twice as much.
pub(crate) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Forks a process that has one thread; refuses when there are more, whose locks the child would inherit.
pub(crate) fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork with several threads"));
    }
    // SAFETY: single-threaded, checked above, so the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent { child }),
    }
}

/// Makes the command's process a session of its own that dies with this one, with fresh signals.
///
/// A session of its own, so that a `kill(0)` of the agent reaches neither shim nor guard. With `terminal`
/// its stdin becomes the session's controlling terminal.
pub(crate) fn as_run(command: &mut Command, terminal: bool) {
    let parent = std::process::id() as libc::pid_t;
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            fresh_signals();
            if libc::setsid() == -1 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            if terminal && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the prctl took hold.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Makes the command's process a session of its own with fresh signals, so that it can be killed as a
/// group and outlives a terminal.
pub(crate) fn as_session(command: &mut Command) {
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            fresh_signals();
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Default dispositions and an empty mask: `nohup castra up` must not make agents immune to SIGHUP.
fn fresh_signals() {
    // SAFETY: signal, sigemptyset and sigprocmask are async-signal-safe; `set` is a local out-value.
    unsafe {
        for signo in 1..=64 {
            libc::signal(signo, libc::SIG_DFL);
        }
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Locks a whole file for this open file description, which forked children share; false when another
/// has it. Unlike flock, who asks with [`is_locked`] does not disturb who is about to lock.
pub(crate) fn lock(file: impl AsFd) -> io::Result<bool> {
    let lock = whole_file();
    // SAFETY: `lock` is a valid flock and outlives the call.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        -1 => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            e => Err(e),
        },
        _ => Ok(true),
    }
}

/// Whether some other open file description holds [`lock`].
pub(crate) fn is_locked(file: impl AsFd) -> io::Result<bool> {
    let mut lock = whole_file();
    // SAFETY: `lock` is a valid flock and outlives the call, which writes into it.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
    }
}

fn whole_file() -> libc::flock {
    // SAFETY: flock is plain data for which all zeros is valid (and `l_pid` must be 0 here).
    let mut lock = unsafe { std::mem::zeroed::<libc::flock>() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Bytes per page of resident memory in `/proc/<pid>/stat`.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
