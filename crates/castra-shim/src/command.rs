//! What a joined daemon asks for: hello and fencing, follow, ack, write, signal, status.

use std::io::Read;
use std::os::fd::AsFd;

use castra_proto::shim::{
    Answer, Command, ExitCause, FrameError, Hello, InputId, MAX_COMMAND, Note, Pty, Reason, Refused,
    SignalTarget, Status, Stream, highest_common, split_frame,
};
use rustix::net::sockopt::socket_peercred;

use crate::conn::Conn;
use crate::input::{Incoming, Rejected};
use crate::run::{Life, Shim};
use crate::{BUILD, peer, procs, versions};

impl Shim {
    /// Whether this peer may speak at all: our user, and no process of this run or another, which could
    /// otherwise answer its own permission requests, or those of its neighbour.
    pub(crate) fn admits(&self, socket: impl AsFd) -> bool {
        let Ok(peer) = socket_peercred(socket) else { return false };
        peer.uid == rustix::process::geteuid() && peer::is_outside(peer.pid.as_raw_nonzero().get(), self.own)
    }

    /// Carries out the whole frames that connection `index` has sent.
    pub(crate) fn commands(&mut self, index: usize) {
        let buf = std::mem::take(&mut self.conns[index].inbuf);
        let mut at = 0;
        while self.conns[index].wants_input() {
            match split_frame(&buf[at..], MAX_COMMAND) {
                Ok(Some((frame, used))) => {
                    at += used;
                    match Command::decode(frame) {
                        Ok(command) => self.command(index, command),
                        Err(FrameError::Unknown { kind }) if self.conns[index].epoch.is_some() => {
                            self.conns[index].answer(&Answer::Unsupported { kind });
                        }
                        Err(_) => self.conns[index].dismiss(Reason::BadFrame),
                    }
                }
                Ok(None) => break,
                Err(_) => self.conns[index].dismiss(Reason::BadFrame),
            }
        }
        let conn = &mut self.conns[index];
        if at < buf.len() {
            conn.inbuf = if at == 0 { buf } else { buf[at..].to_vec() };
        }
    }

    fn command(&mut self, index: usize, command: Command<'_>) {
        if let Command::Hello(hello) = command {
            return self.hello(index, &hello);
        }
        if self.conns[index].epoch.is_none() {
            return self.conns[index].dismiss(Reason::BadFrame);
        }
        match command {
            Command::Hello(_) => (),
            Command::Follow { from } => match self.log.find(from.max(1), &mut self.scratch) {
                Ok(pos) => self.conns[index].follow = Some(pos),
                Err(_) => self.conns[index].gone = true,
            },
            Command::Ack { seq } => self.acked = self.acked.max(seq.min(self.log.last())),
            Command::Write { input_id, part, last, bytes } => self.write(index, input_id, part, last, bytes),
            Command::Signal { target, signo } => self.signal(index, target, signo),
            Command::Resize { rows, cols } => self.resize(index, Pty { rows, cols }),
            // Terminals' bytes are not pruned yet; who asks may go on without.
            Command::Prune { .. } => (),
            Command::Status => {
                let status = self.status();
                self.conns[index].answer(&Answer::Status(status));
            }
        }
    }

    fn hello(&mut self, index: usize, hello: &Hello) {
        let offered = versions();
        if highest_common(&hello.versions, &offered).is_none() {
            return self.conns[index].dismiss(Reason::NoCommonVersion);
        }
        if hello.run != self.run {
            return self.conns[index].dismiss(Reason::WrongRun);
        }
        if hello.epoch < self.epoch {
            return self.conns[index].dismiss(Reason::Fenced);
        }
        self.epoch = hello.epoch;
        for (other, conn) in self.conns.iter_mut().enumerate() {
            if other != index && conn.epoch.is_some_and(|epoch| epoch < self.epoch) {
                conn.dismiss(Reason::Fenced);
            }
        }
        let answer = Hello {
            versions: offered,
            build: BUILD.to_owned(),
            run: self.run,
            epoch: self.epoch,
            boot_id: self.boot_id,
            last: self.log.last(),
        };
        let conn = &mut self.conns[index];
        conn.epoch = Some(hello.epoch);
        conn.answer(&Answer::Hello(answer));
    }

    fn write(&mut self, index: usize, id: InputId, part: u32, last: bool, bytes: &[u8]) {
        let conn = &mut self.conns[index];
        if part == 0 {
            conn.incoming = None;
            if last {
                let len = bytes.len() as u64;
                return self.accept(index, id, len, &mut { bytes });
            }
            conn.incoming = Some(Incoming::begin(&self.dir, id));
        }
        let Some(incoming) = conn.incoming.as_mut().filter(|i| i.id == id && i.next == part) else {
            return conn.dismiss(Reason::BadFrame);
        };
        incoming.push(bytes);
        if last && let Some(incoming) = conn.incoming.take() {
            let len = incoming.len;
            match incoming.finish() {
                Ok(mut file) => self.accept(index, id, len, &mut file),
                Err(reason) => self.refuse_input(index, id, reason),
            }
        }
    }

    fn accept(&mut self, index: usize, id: InputId, len: u64, source: &mut dyn Read) {
        if self.input.has_seen(id) {
            return self.conns[index].answer(&Answer::Written { input_id: id, duplicate: true });
        }
        if !matches!(self.life, Life::Running) {
            return self.refuse_input(index, id, Reason::Exited);
        }
        if self.input.closed {
            return self.refuse_input(index, id, Reason::StdinClosed);
        }
        if self.full.is_some() {
            return self.refuse_input(index, id, Reason::Full);
        }
        match self.input.accept(&mut self.log, id, self.epoch, len, source) {
            Ok(()) => self.conns[index].answer(&Answer::Written { input_id: id, duplicate: false }),
            Err(Rejected::Refused(reason)) => self.refuse_input(index, id, reason),
            Err(Rejected::Log(error)) => {
                self.enter_full(&error);
                self.refuse_input(index, id, Reason::Full);
            }
        }
    }

    fn refuse_input(&mut self, index: usize, id: InputId, reason: Reason) {
        let refused = Refused { reason, input_id: Some(id) };
        self.conns[index].answer(&Answer::Refused(refused));
    }

    /// The note stands between what was drawn for the old size and what may be drawn for the new one. Of the same
    /// size too: the kernel signals nobody then, and a daemon that needs to know how late it is has a record that says so.
    fn resize(&mut self, index: usize, size: Pty) {
        if !matches!(self.life, Life::Running) {
            return self.conns[index].refuse(Reason::Exited);
        }
        if self.full.is_some() {
            return self.conns[index].refuse(Reason::Full);
        }
        self.read_some(Stream::Pty);
        if self.child.ends.pty.is_none() {
            return self.conns[index].refuse(Reason::Unsupported);
        }
        if size.rows == 0 || size.cols == 0 {
            return self.conns[index].refuse(Reason::Unsupported);
        }
        self.note(Note::Resized { rows: size.rows, cols: size.cols });
        if let Some(pty) = &mut self.child.ends.pty
            && pty.resize(size).is_err()
        {
            self.conns[index].refuse(Reason::Unsupported);
        }
    }

    fn signal(&mut self, index: usize, target: SignalTarget, signo: i32) {
        if !matches!(self.life, Life::Running) {
            return self.conns[index].refuse(Reason::Exited);
        }
        let signo = if target == SignalTarget::Tree { libc::SIGKILL } else { signo };
        // Before it is sent, so that an exit in the log has its cause in front of it.
        self.note(Note::Signal { target, signo, epoch: self.epoch });
        match target {
            SignalTarget::Tree => self.start_kill(ExitCause::Asked),
            SignalTarget::Claude => {
                let sent = procs::signal(self.child.claude, signo);
                if sent && ends(signo) && self.cause == ExitCause::Own {
                    self.cause = ExitCause::Asked;
                }
                if !sent {
                    self.conns[index].refuse(Reason::Unsupported);
                }
            }
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            epoch: self.epoch,
            last: self.log.last(),
            acked: self.acked,
            claude: matches!(self.life, Life::Running).then_some(self.child.claude),
            pending_input: self.input.pending(),
            degraded: self.full.as_ref().map(|f| f.since),
            exit: match self.life {
                Life::Running => None,
                Life::Ending(exit) | Life::Exited(exit) => Some(exit),
            },
        }
    }

    /// Takes a connection that the listener has for us.
    pub(crate) fn join(&mut self, socket: std::os::fd::OwnedFd) {
        let admitted = self.admits(&socket);
        let mut conn = Conn::new(socket);
        if !admitted {
            conn.dismiss(Reason::NotAllowed);
        }
        self.conns.push(conn);
    }
}

/// Signals that are sent to end claude.
fn ends(signo: i32) -> bool {
    matches!(signo, libc::SIGTERM | libc::SIGKILL | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}
