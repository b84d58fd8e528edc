//! inotify on directories: one watch each, none on files.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::Place;

/// Directories of one run.
const MAX_DIRS: usize = 512;
/// Changes taken at once; the rest is told at the next turn.
const MAX_CHANGES: usize = 512;

/// What happened.
pub(crate) enum Change {
    In {
        places: Vec<Place>,
        name: String,
        is_dir: bool,
    },
    /// More than the kernel could keep.
    Unknown,
}

pub(crate) struct Watch {
    /// `None` where the user has no instance left (128 by default).
    inotify: Option<OwnedFd>,
    places: HashMap<i32, Vec<Place>>,
    /// Some directory has no watch.
    blind: bool,
}

impl Watch {
    pub(crate) fn open() -> Watch {
        #[cfg(feature = "failpoints")]
        if std::env::var_os("CASTRA_TEST_SHIM_NO_INOTIFY").is_some() {
            return Watch { inotify: None, places: HashMap::new(), blind: false };
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Watch { inotify, places: HashMap::new(), blind: false }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Not everything is told.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.inotify.is_none() || self.blind
    }

    /// Watches an open directory; false when there are too many.
    pub(crate) fn add(&mut self, dir: &OwnedFd, place: &Place) -> bool {
        let Some(inotify) = &self.inotify else { return true };
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        // Through the descriptor: the path may lead elsewhere by now.
        match inotify::add_watch(inotify, format!("/proc/self/fd/{}", dir.as_raw_fd()), flags) {
            Ok(wd) => {
                let count = self.places.len();
                let places = self.places.entry(wd).or_default();
                if places.is_empty() && count >= MAX_DIRS {
                    self.places.remove(&wd);
                    let _ = inotify::remove_watch(inotify, wd);
                    return false;
                }
                if !places.contains(place) {
                    places.push(place.clone());
                }
            }
            Err(_) => self.blind = true,
        }
        true
    }

    /// What was told since.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut buf = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buf);
        let (mut changes, mut moved) = (Vec::new(), Vec::new());
        // An error is an empty queue.
        while changes.len() < MAX_CHANGES || !reader.is_buffer_empty() {
            let Ok(event) = reader.next() else { break };
            let (wd, flags) = (event.wd(), event.events());
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Change::Unknown);
            } else if flags.contains(ReadFlags::IGNORED) {
                self.places.remove(&wd);
            } else if flags.contains(ReadFlags::MOVE_SELF) {
                // Under its new name it is another place, if it is one at all.
                self.places.remove(&wd);
                moved.push(wd);
            } else if let (Some(places), Some(name)) = (self.places.get(&wd), event.file_name())
                && let Ok(name) = name.to_str()
            {
                let is_dir = flags.contains(ReadFlags::ISDIR);
                changes.push(Change::In { places: places.clone(), name: name.to_owned(), is_dir });
            }
        }
        for wd in moved {
            let _ = inotify::remove_watch(inotify, wd);
            changes.push(Change::Unknown);
        }
        changes
    }
}
