//! One joined daemon: bytes in, bytes out, nothing waits for it.
//!
//! Records come from the log file when the socket has room, so that a slow reader costs one buffer of at
//! most 256 KiB and no queue. A peer that does not read its answers is not read either.

use std::io;
use std::os::fd::OwnedFd;

use castra_proto::shim::{Answer, FRAME_HEADER, MAX_RECORDS, Reason, Refused};
use rustix::net::SendFlags;

use crate::input::Incoming;
use crate::log::{Log, Pos};

/// Answers waiting for a peer, bytes; above it its commands wait too.
const MAX_ANSWERS: usize = 64 << 10;
/// Bytes per read of commands.
const READ: usize = 64 << 10;
/// `records` frames for one connection per turn of the loop.
const BURST: usize = 4;

pub(crate) struct Conn {
    pub(crate) socket: OwnedFd,
    pub(crate) inbuf: Vec<u8>,
    /// On its way: whole frames, `sent` bytes of them gone.
    out: Vec<u8>,
    sent: usize,
    /// Whole frames that go next, before any more records.
    answers: Vec<u8>,
    /// The peer's socket is full: wait until poll says otherwise.
    pub(crate) blocked: bool,
    /// The peer does not listen any more; what it said before is still read.
    deaf: bool,
    /// Set by hello.
    pub(crate) epoch: Option<u64>,
    pub(crate) follow: Option<Pos>,
    pub(crate) incoming: Option<Incoming>,
    /// To be dropped after one more attempt to send.
    pub(crate) closing: bool,
    /// To be dropped at once.
    pub(crate) gone: bool,
}

impl Conn {
    pub(crate) fn new(socket: OwnedFd) -> Conn {
        Conn {
            socket,
            inbuf: Vec::new(),
            out: Vec::new(),
            sent: 0,
            answers: Vec::new(),
            blocked: false,
            deaf: false,
            epoch: None,
            follow: None,
            incoming: None,
            closing: false,
            gone: false,
        }
    }

    pub(crate) fn answer(&mut self, answer: &Answer<'_>) {
        answer.encode(&mut self.answers);
    }

    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.answer(&Answer::Refused(Refused { reason, input_id: None }));
    }

    /// Says why and ends the connection.
    pub(crate) fn dismiss(&mut self, reason: Reason) {
        self.refuse(reason);
        self.closing = true;
    }

    /// Whether commands may be read now. Records on their way do not count: a peer that writes a long
    /// message before it reads on must not wait for itself.
    pub(crate) fn wants_input(&self) -> bool {
        !self.closing && !self.gone && self.answers.len() < MAX_ANSWERS
    }

    /// Reads once what is there into `inbuf`.
    pub(crate) fn receive(&mut self) {
        let have = self.inbuf.len();
        self.inbuf.resize(have + READ, 0);
        let read = rustix::io::read(&self.socket, &mut self.inbuf[have..]);
        self.inbuf.truncate(have + read.unwrap_or(0));
        match read {
            Ok(0) => self.gone = true,
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => (),
            Err(_) => self.gone = true,
        }
    }

    /// Sends answers, then records, until the socket is full, the log is at its end, or it is another's turn.
    pub(crate) fn send(&mut self, log: &mut Log, scratch: &mut Vec<u8>) -> io::Result<()> {
        for _ in 0..BURST {
            self.flush();
            if self.blocked || self.gone || self.closing {
                return Ok(());
            }
            let Some(pos) = &mut self.follow else { return Ok(()) };
            log.read_records(pos, MAX_RECORDS, scratch)?;
            if scratch.is_empty() {
                return Ok(());
            }
            self.out.reserve_exact(FRAME_HEADER + scratch.len());
            self.out.extend_from_slice(&Answer::records_header(scratch.len()));
            self.out.extend_from_slice(scratch);
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        if self.deaf {
            self.answers.clear();
            return;
        }
        while !self.blocked && !self.gone {
            if self.sent == self.out.len() {
                self.sent = 0;
                self.out.clear();
                // An idle connection costs nothing.
                if self.out.capacity() > MAX_ANSWERS {
                    self.out = Vec::new();
                }
                std::mem::swap(&mut self.out, &mut self.answers);
            }
            if self.out.is_empty() {
                return;
            }
            match rustix::net::send(
                &self.socket,
                &self.out[self.sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => self.sent += sent,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => self.blocked = true,
                Err(rustix::io::Errno::INTR) => (),
                Err(_) => {
                    self.deaf = true;
                    self.follow = None;
                    self.out = Vec::new();
                    self.answers = Vec::new();
                    self.sent = 0;
                    return;
                }
            }
        }
    }
}
