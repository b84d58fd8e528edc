//! The sync thread: fdatasync of what was appended, within 50 ms. Nobody waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

/// Appends that come within this time share one fdatasync.
const BATCH: Duration = Duration::from_millis(20);
/// Ended segments waiting for their sync. On a disk that slow the oldest is left to the kernel.
const MAX_WAITING: usize = 16;

struct State {
    dirty: VecDeque<(u32, Arc<File>)>,
    /// The log directory, when a segment was made.
    dir: Option<OwnedFd>,
    failed: Vec<(u32, i32)>,
}

struct Shared {
    // Held for a few instructions on either side, never across a system call that waits.
    state: Mutex<State>,
    work: Condvar,
    wake: OwnedFd,
}

/// The writer's handle to the thread.
#[derive(Clone)]
pub(crate) struct Syncer(Arc<Shared>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    /// Starts the thread. It lives as long as the process.
    pub(crate) fn start() -> io::Result<Syncer> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State { dirty: VecDeque::new(), dir: None, failed: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), wake });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("sync".to_owned())
            .stack_size(64 << 10)
            .spawn(move || sync_loop(&theirs))?;
        Ok(Syncer(shared))
    }

    /// Readable when [`Syncer::failures`] has something.
    pub(crate) fn wake_fd(&self) -> impl AsFd + '_ {
        self.0.wake.as_fd()
    }

    /// This segment has bytes that are not on disk; with `dir`, also a new name.
    pub(crate) fn dirty(&self, number: u32, file: &Arc<File>, dir: Option<&OwnedFd>) {
        let mut state = self.0.lock();
        if let Some(dir) = dir {
            state.dir = dir.try_clone().ok();
        }
        if state.dirty.back().is_some_and(|(n, f)| *n == number && Arc::ptr_eq(f, file)) {
            return;
        }
        if state.dirty.len() == MAX_WAITING {
            state.dirty.pop_front();
        }
        state.dirty.push_back((number, Arc::clone(file)));
        if state.dirty.len() == 1 {
            self.0.work.notify_one();
        }
    }

    /// Segments whose sync failed, with the error number.
    pub(crate) fn failures(&self) -> Vec<(u32, i32)> {
        let _ = rustix::io::read(&self.0.wake, &mut [0u8; 8]);
        std::mem::take(&mut self.0.lock().failed)
    }
}

fn sync_loop(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        while state.dirty.is_empty() {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        std::thread::sleep(BATCH);
        let mut state = shared.lock();
        let files = std::mem::take(&mut state.dirty);
        let dir = state.dir.take();
        drop(state);
        let mut failed = Vec::new();
        for (number, file) in files {
            if let Err(error) = sync(number, &file) {
                failed.push((number, error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
        if let Some(dir) = dir {
            // The names are found again by number; a directory that cannot be synced fails on its file too.
            let _ = rustix::fs::fsync(&dir);
        }
        if !failed.is_empty() {
            shared.lock().failed.extend(failed);
            let _ = rustix::io::write(&shared.wake, &1u64.to_ne_bytes());
        }
    }
}

fn sync(number: u32, file: &File) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    if std::env::var("CASTRA_TEST_SHIM_SYNC_FAILS").is_ok_and(|n| n == number.to_string()) {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    let _ = number;
    file.sync_data()
}
