//! The loop: one poll over everything, then each that has something gets its turn.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use castra_proto::shim::{ExitCause, MAX_RECORD, Note, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with};

use crate::pty::Drained;
use crate::run::{Life, Shim};
use crate::tail::Tail;

/// Reads of one stream per turn, so that a flood does not starve the others.
const READS: usize = 8;
/// Connections at once; daemons need one or two.
const MAX_CONNS: usize = 64;

/// Whose descriptor a poll entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Listener,
    Guard,
    Child,
    Sync,
    Stdin,
    Out,
    Err,
    Pty,
    Files,
    Conn(usize),
}

impl Shim {
    /// Runs until claude has ended and everything is acknowledged.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            self.full_tick(now);
            self.tick(now);
            self.pump_files();
            self.feed();
            self.send_all();
            if matches!(self.life, Life::Exited(_)) && (self.acked >= self.last_word || self.removed) {
                return Ok(());
            }
            for (who, events) in self.wait()? {
                self.turn(who, events);
            }
        }
    }

    fn timeout(&self) -> Duration {
        let at = self.tick_deadline();
        let at = self.full_deadline().map_or(at, |full| at.min(full));
        // A connection that stopped only because it was another's turn goes on at once.
        let end = self.log.end();
        let more =
            self.conns.iter().any(|c| !c.blocked && !c.closing && c.follow.is_some_and(|pos| pos != end));
        let files = self.tail.as_ref().filter(|_| self.reads_files());
        let at = files.and_then(Tail::deadline).map_or(at, |look| at.min(look));
        let more = more || files.is_some_and(Tail::is_behind);
        if more { Duration::ZERO } else { at.saturating_duration_since(Instant::now()) }
    }

    fn wait(&self) -> io::Result<Vec<(Who, PollFlags)>> {
        let mut whos = Vec::with_capacity(8 + self.conns.len());
        let mut fds = Vec::with_capacity(8 + self.conns.len());
        let sync = self.sync.wake_fd();
        whos.push(Who::Sync);
        fds.push(PollFd::from_borrowed_fd(sync.as_fd(), PollFlags::IN));
        let mut add = |who, fd, flags| {
            whos.push(who);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if self.conns.len() < MAX_CONNS {
            add(Who::Listener, self.listener.as_fd(), PollFlags::IN);
        }
        if let Some(guard) = &self.guard {
            add(Who::Guard, guard.as_fd(), PollFlags::IN);
        }
        if matches!(self.life, Life::Running) {
            add(Who::Child, self.child.pidfd.as_fd(), PollFlags::IN);
            if let Some(stdin) = self.child.ends.stdin.as_ref().filter(|_| self.input.pending() > 0) {
                add(Who::Stdin, stdin.as_fd(), PollFlags::OUT);
            }
        }
        if self.full.is_none() {
            for (who, fd) in [(Who::Out, &self.child.ends.out), (Who::Err, &self.child.ends.err)] {
                if let Some(fd) = fd {
                    add(who, fd.as_fd(), PollFlags::IN);
                }
            }
            if let Some(fd) = self.tail.as_ref().filter(|_| self.reads_files()).and_then(Tail::fd) {
                add(Who::Files, fd, PollFlags::IN);
            }
            if let Some(pty) = &self.child.ends.pty {
                add(Who::Pty, pty.master.as_fd(), PollFlags::IN);
            }
        }
        for (index, conn) in self.conns.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, conn.wants_input());
            flags.set(PollFlags::OUT, conn.blocked);
            add(Who::Conn(index), conn.socket.as_fd(), flags);
        }
        let timeout = Timespec::try_from(self.timeout()).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let ready = whos.into_iter().zip(fds).map(|(who, fd)| (who, fd.revents()));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn turn(&mut self, who: Who, events: PollFlags) {
        match who {
            Who::Sync => {
                for (segment, errno) in self.sync.failures() {
                    // The kernel has dropped the dirty pages: syncing again would lie. A new segment.
                    if segment == self.log.end().segment {
                        self.log.end_segment();
                    }
                    self.note(Note::SyncFailed { segment, errno });
                }
            }
            Who::Listener => {
                if let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                {
                    self.join(socket);
                }
            }
            Who::Guard => {
                self.guard = None;
                if !matches!(self.life, Life::Exited(_)) {
                    self.start_kill(ExitCause::GuardLost);
                }
            }
            Who::Child => {
                self.reap();
            }
            // The loop feeds it before every poll.
            Who::Stdin => (),
            Who::Out => self.read_some(Stream::Out),
            Who::Err => self.read_some(Stream::Err),
            Who::Pty => self.read_some(Stream::Pty),
            Who::Files => {
                if let Some(tail) = &mut self.tail {
                    tail.changes();
                }
            }
            Who::Conn(index) => {
                let conn = &mut self.conns[index];
                if events.contains(PollFlags::OUT) {
                    conn.blocked = false;
                }
                if events.contains(PollFlags::IN) {
                    conn.receive();
                    self.commands(index);
                } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                    conn.gone = true;
                }
            }
        }
    }

    pub(crate) fn read_some(&mut self, stream: Stream) {
        for _ in 0..READS {
            let more = match stream {
                Stream::Pty => self.read_terminal(),
                _ => self.read_stream(stream),
            };
            if self.full.is_some() || !more {
                return;
            }
        }
    }

    /// One record of what the terminal has; whether there may be more.
    pub(crate) fn read_terminal(&mut self) -> bool {
        let Some(pty) = &self.child.ends.pty else { return false };
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(MAX_RECORD, 0);
        let drained = pty.drain(&mut buf);
        let (Drained::More(len) | Drained::Empty(len) | Drained::Gone(len)) = drained;
        if len > 0 {
            self.append(Stream::Pty, &buf[..len]);
        }
        self.buf = buf;
        if matches!(drained, Drained::Gone(_)) {
            self.child.ends.pty = None;
        }
        matches!(drained, Drained::More(_))
    }

    /// One read of at most a record; whether there may be more.
    pub(crate) fn read_stream(&mut self, stream: Stream) -> bool {
        let slot = if stream == Stream::Out { &self.child.ends.out } else { &self.child.ends.err };
        let Some(fd) = slot else { return false };
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(MAX_RECORD, 0);
        let read = rustix::io::read(fd, &mut buf[..]);
        let more = match read {
            Ok(0) => {
                self.close_stream(stream);
                false
            }
            Ok(len) => {
                if stream == Stream::Out {
                    self.torn = buf[len - 1] != b'\n';
                }
                self.append(stream, &buf[..len]);
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::AGAIN) => false,
            Err(_) => {
                self.read_failed |= stream == Stream::Out;
                self.close_stream(stream);
                false
            }
        };
        self.buf = buf;
        more
    }

    fn close_stream(&mut self, stream: Stream) {
        match stream {
            Stream::Out => self.child.ends.out = None,
            _ => self.child.ends.err = None,
        }
    }

    /// After the `exit` note nothing follows.
    fn reads_files(&self) -> bool {
        self.full.is_none() && !matches!(self.life, Life::Exited(_))
    }

    /// Appends a turn's worth of what the tailed files have.
    pub(crate) fn pump_files(&mut self) {
        if !self.reads_files() {
            return;
        }
        let Some(tail) = &mut self.tail else { return };
        tail.tick(Instant::now());
        if tail.is_behind()
            && let Err(error) = tail.pump(&mut self.log)
        {
            self.enter_full(&error);
        }
    }

    /// Gives claude what it takes of its input.
    fn feed(&mut self) {
        let Some(stdin) = self.child.ends.stdin.as_ref().filter(|_| self.input.pending() > 0) else { return };
        match self.input.feed(&mut self.log, stdin, &mut self.scratch) {
            Ok(false) => (),
            Ok(true) | Err(_) => {
                let unsent = self.input.close();
                self.child.ends.stdin = None;
                self.note(Note::StdinClosed { unsent });
            }
        }
        if self.input.pending() == 0 {
            self.scratch = Vec::new();
        }
    }

    fn send_all(&mut self) {
        for conn in &mut self.conns {
            if conn.send(&mut self.log, &mut self.scratch).is_err() {
                conn.gone = true;
            }
        }
        self.conns.retain(|c| !c.gone && !c.closing);
    }
}
