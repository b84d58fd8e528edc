//! A log that cannot be written: stop reading, after a second stop claude, go on when there is room.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use castra_proto::shim::{Answer, Note, Stream};

use crate::log::is_full;
use crate::procs;
use crate::run::Shim;

/// How long claude's own buffer takes what nobody reads before claude is stopped (design §6).
const STOP_AFTER: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
/// Notes kept for later; there is no cause for as many.
const MAX_NOTES: usize = 64;

/// Since when, and what is waiting for room.
pub(crate) struct Full {
    /// Boot-time ns.
    pub(crate) since: u64,
    errno: i32,
    stop_at: Instant,
    stopped: bool,
    retry_at: Instant,
    noted: bool,
    /// Read from claude and not in the log: one chunk per stream at most, as reading has stopped.
    held: VecDeque<(Stream, Vec<u8>)>,
    notes: VecDeque<Note>,
}

impl Shim {
    /// Appends what claude said, or holds it until there is room.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        if self.full.is_none() {
            match self.log.append(stream, bytes) {
                Ok(()) => return,
                Err(error) => self.enter_full(&error),
            }
        }
        if let Some(full) = &mut self.full {
            full.held.push_back((stream, bytes.to_vec()));
        }
    }

    /// Appends a note, or keeps it until there is room.
    pub(crate) fn note(&mut self, note: Note) {
        if self.full.is_none() {
            match self.log.note(&note) {
                Ok(()) => return,
                Err(error) => self.enter_full(&error),
            }
        }
        if let Some(full) = &mut self.full
            && full.notes.len() < MAX_NOTES
        {
            full.notes.push_back(note);
        }
    }

    pub(crate) fn enter_full(&mut self, error: &io::Error) {
        if self.full.is_some() {
            return;
        }
        if !is_full(error) {
            // EIO and its like: that file is not to be trusted again.
            self.log.end_segment();
        }
        let now = Instant::now();
        self.full = Some(Full {
            since: procs::boot_ns(),
            errno: error.raw_os_error().unwrap_or(0),
            stop_at: now + STOP_AFTER,
            stopped: false,
            retry_at: now + RETRY,
            noted: false,
            held: VecDeque::new(),
            notes: VecDeque::new(),
        });
        self.tell_status();
    }

    /// When this has something to do.
    pub(crate) fn full_deadline(&self) -> Option<Instant> {
        let full = self.full.as_ref()?;
        Some(if full.stopped { full.retry_at } else { full.retry_at.min(full.stop_at) })
    }

    pub(crate) fn full_tick(&mut self, now: Instant) {
        let Some(mut full) = self.full.take() else { return };
        if now >= full.retry_at {
            full.retry_at = now + RETRY;
            match self.write_waiting(&mut full) {
                Ok(()) => {
                    if full.stopped {
                        self.signal_tree(libc::SIGCONT);
                    }
                    self.tell_status();
                    return;
                }
                Err(error) if !is_full(&error) => self.log.end_segment(),
                Err(_) => (),
            }
        }
        if !full.stopped && now >= full.stop_at {
            full.stopped = true;
            self.signal_tree(libc::SIGSTOP);
        }
        self.full = Some(full);
    }

    fn write_waiting(&mut self, full: &mut Full) -> io::Result<()> {
        if !full.noted {
            self.log.note(&Note::Degraded { since: full.since, errno: full.errno })?;
            full.noted = true;
        }
        while let Some((stream, bytes)) = full.held.front() {
            self.log.append(*stream, bytes)?;
            full.held.pop_front();
        }
        while let Some(note) = full.notes.front() {
            self.log.note(note)?;
            full.notes.pop_front();
        }
        self.log.note(&Note::Recovered { stopped: full.stopped })
    }

    fn signal_tree(&self, signo: i32) {
        for stat in procs::descendants(self.own.pid) {
            procs::signal(stat.id, signo);
        }
    }

    /// Everyone who follows learns of it unasked.
    fn tell_status(&mut self) {
        let status = self.status();
        for conn in self.conns.iter_mut().filter(|c| c.epoch.is_some() && !c.closing) {
            conn.answer(&Answer::Status(status.clone()));
        }
    }
}
