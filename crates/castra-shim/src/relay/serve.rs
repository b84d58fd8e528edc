//! The relay over a pipe: requests, answers and joined shims as frames on stdin and stdout.
//!
//! One poll loop moves bytes; each request runs in a thread of its own, at most [`MAX_RUNNING`]. A stream
//! has at most a window of bytes in flight each way, so that one that nobody reads delays no other.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use castra_proto::shim::relay::{
    HEADER, MAGIC, MAX_CHUNK, MAX_FRAME, RelayError, Reply, Request, WINDOW, kind, pack, put_frame,
    read_header, unpack,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::Relay;
use crate::sys;

/// Requests at once; more are answered `busy`.
const MAX_RUNNING: usize = 32;
/// Bytes waiting for the daemon above which nothing more is taken from shims and threads.
const MAX_OUT: usize = 4 << 20;
/// A credit is given back when this much was passed on.
const CREDIT_STEP: usize = WINDOW / 4;
/// How long a cancelled program may take to die when the daemon has gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a request's thread hands to the loop.
enum Outcome {
    Frame { kind: u8, id: u32, payload: Vec<u8>, last: bool },
    Joined { id: u32, socket: OwnedFd },
}

/// One joined shim.
struct Stream {
    socket: OwnedFd,
    /// From the daemon, at most a window.
    to_shim: Vec<u8>,
    /// Passed on to the shim and not yet given back as credit.
    passed: usize,
    /// What the daemon still takes.
    credit: usize,
    blocked: bool,
    over: bool,
}

struct Server {
    relay: Arc<Relay>,
    inbuf: Vec<u8>,
    out: Vec<u8>,
    out_blocked: bool,
    streams: HashMap<u32, Stream>,
    running: HashMap<u32, Arc<AtomicBool>>,
    outcomes: Receiver<Outcome>,
    sender: SyncSender<Outcome>,
    wake: Arc<OwnedFd>,
}

/// `castra-shim relay --home DIR`: serves until stdin ends.
pub fn serve_main(home: &Path) -> ExitCode {
    sys::close_inherited();
    let served = Relay::new(home).map_err(|e| io::Error::other(e.to_string())).and_then(|relay| {
        let mut server = Server::new(relay)?;
        server.serve()?;
        server.abandon();
        Ok(())
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ =
                io::Write::write_all(&mut io::stderr(), format!("castra-shim relay: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

impl Server {
    fn new(relay: Relay) -> io::Result<Server> {
        let (sender, outcomes) = sync_channel(64);
        for fd in [rustix::stdio::stdin(), rustix::stdio::stdout()] {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Server {
            relay: Arc::new(relay),
            inbuf: Vec::new(),
            out: MAGIC.to_vec(),
            out_blocked: false,
            streams: HashMap::new(),
            running: HashMap::new(),
            outcomes,
            sender,
            wake: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.take_outcomes();
            self.pump_streams();
            self.flush()?;
            if self.wait()? && !self.read_daemon()? {
                return Ok(());
            }
        }
    }

    /// The daemon has gone: programs that it waited for end, sessions of course do not.
    fn abandon(&mut self) {
        for cancel in self.running.values() {
            cancel.store(true, Ordering::Relaxed);
        }
        let deadline = Instant::now() + LAST_WORDS;
        while !self.running.is_empty() {
            match self.outcomes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Outcome::Frame { id, last: true, .. } | Outcome::Joined { id, .. }) => {
                    self.running.remove(&id);
                }
                Ok(Outcome::Frame { .. }) => (),
                Err(_) => return,
            }
        }
    }

    /// Waits for anything; whether the daemon has something to say.
    fn wait(&mut self) -> io::Result<bool> {
        let room = self.out.len() < MAX_OUT;
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let mut fds = vec![PollFd::from_borrowed_fd(stdin, PollFlags::IN)];
        // Without interest in it, a closed stdout would still wake the loop for ever.
        let writing = if self.out_blocked { PollFlags::OUT } else { PollFlags::empty() };
        fds.push(PollFd::from_borrowed_fd(stdout, writing));
        let wake = if room { PollFlags::IN } else { PollFlags::empty() };
        fds.push(PollFd::from_borrowed_fd(self.wake.as_fd(), wake));
        let mut ids = Vec::with_capacity(self.streams.len());
        for (id, stream) in &self.streams {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, room && stream.credit > 0);
            flags.set(PollFlags::OUT, stream.blocked);
            // One without interest would still report its hang-up, again and again.
            if !flags.is_empty() {
                ids.push(*id);
                fds.push(PollFd::from_borrowed_fd(stream.socket.as_fd(), flags));
            }
        }
        // What shims said while there was no room or credit is asked for again at the latest now.
        match poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if !events[1].is_empty() {
            self.out_blocked = false;
        }
        if events[1].intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for (id, events) in ids.iter().zip(&events[3..]) {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            if events.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
                stream.blocked = false;
            }
            if events.contains(PollFlags::IN) {
                read_shim(*id, stream, &mut self.out);
            } else if events.intersects(PollFlags::HUP | PollFlags::ERR) && stream.credit > 0 && room {
                stream.over = true;
            }
        }
        Ok(!events[0].is_empty())
    }

    /// False at the end of stdin.
    fn read_daemon(&mut self) -> io::Result<bool> {
        let have = self.inbuf.len();
        self.inbuf.resize(have + MAX_CHUNK, 0);
        let read = rustix::io::read(rustix::stdio::stdin(), &mut self.inbuf[have..]);
        self.inbuf.truncate(have + read.unwrap_or(0));
        match read {
            Ok(0) => return Ok(false),
            Ok(_) => (),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let buf = std::mem::take(&mut self.inbuf);
        let mut at = 0;
        while let Some(header) = buf[at..].first_chunk::<HEADER>() {
            let (len, kind, id) = read_header(header).map_err(|e| io::Error::other(e.to_string()))?;
            let Some(payload) = buf.get(at + HEADER..at + HEADER + len) else { break };
            self.frame(kind, id, payload);
            at += HEADER + len;
        }
        self.inbuf = buf[at..].to_vec();
        Ok(true)
    }

    fn frame(&mut self, kind: u8, id: u32, payload: &[u8]) {
        match kind {
            kind::REQUEST => match unpack::<Request>(payload) {
                Ok((request, data)) => self.request(id, request, data.to_vec()),
                Err(error) => self.error(id, &error),
            },
            kind::CANCEL => {
                if let Some(cancel) = self.running.get(&id) {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
            kind::DATA => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.to_shim.extend_from_slice(payload);
                    // More than was allowed: this stream cannot be trusted to be whole.
                    stream.over |= stream.to_shim.len() + stream.passed > WINDOW;
                }
            }
            kind::CREDIT => {
                if let (Some(stream), Some(n)) = (self.streams.get_mut(&id), payload.first_chunk::<4>()) {
                    stream.credit = stream.credit.saturating_add(u32::from_le_bytes(*n) as usize).min(WINDOW);
                }
            }
            kind::CLOSE => {
                if let Some(mut stream) = self.streams.remove(&id) {
                    write_shim(&mut stream);
                }
            }
            // A newer daemon's: it will see no answer and has asked for nothing it needs.
            _ => (),
        }
    }

    fn error(&mut self, id: u32, error: &RelayError) {
        put_frame(&mut self.out, kind::ERROR, id, &pack(error, &[]));
    }

    fn request(&mut self, id: u32, request: Request, data: Vec<u8>) {
        if self.running.len() >= MAX_RUNNING {
            return self.error(id, &RelayError::Busy);
        }
        let cancel = Arc::new(AtomicBool::new(false));
        let (relay, sender, wake) = (Arc::clone(&self.relay), self.sender.clone(), Arc::clone(&self.wake));
        let theirs = Arc::clone(&cancel);
        let thread = std::thread::Builder::new().name("request".to_owned()).stack_size(2 << 20);
        let spawned = thread.spawn(move || {
            let send = |outcome| {
                // The loop ends only with the process.
                let _ = sender.send(outcome);
                let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
            };
            let on_line = |stderr: bool, line: &[u8]| {
                let mut payload = vec![if stderr { 2 } else { 1 }];
                payload.extend_from_slice(line);
                send(Outcome::Frame { kind: kind::LINE, id, payload, last: false });
            };
            let result = match request {
                Request::Connect { run } => match relay.connect(&run) {
                    Ok(socket) => return send(Outcome::Joined { id, socket: socket.into() }),
                    Err(error) => Err(error),
                },
                request => relay.handle(request, &data, &on_line, &theirs),
            };
            send(answer(id, result));
        });
        match spawned {
            Ok(_) => {
                self.running.insert(id, cancel);
            }
            Err(_) => self.error(id, &RelayError::Busy),
        }
    }

    fn take_outcomes(&mut self) {
        let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
        while self.out.len() < MAX_OUT
            && let Ok(outcome) = self.outcomes.try_recv()
        {
            match outcome {
                Outcome::Frame { kind, id, payload, last } => {
                    if last {
                        self.running.remove(&id);
                    }
                    put_frame(&mut self.out, kind, id, &payload);
                }
                Outcome::Joined { id, socket } => {
                    self.running.remove(&id);
                    let stream = Stream {
                        socket,
                        to_shim: Vec::new(),
                        passed: 0,
                        credit: WINDOW,
                        blocked: false,
                        over: false,
                    };
                    self.streams.insert(id, stream);
                    put_frame(&mut self.out, kind::REPLY, id, &pack(&Reply::Connected, &[]));
                }
            }
        }
        if self.out.len() >= MAX_OUT {
            // Rung again, so that what was left is not forgotten when there is room.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }

    fn pump_streams(&mut self) {
        for (id, stream) in &mut self.streams {
            write_shim(stream);
            if stream.passed >= CREDIT_STEP || (stream.passed > 0 && stream.to_shim.is_empty()) {
                put_frame(&mut self.out, kind::CREDIT, *id, &(stream.passed as u32).to_le_bytes());
                stream.passed = 0;
            }
            if stream.over {
                put_frame(&mut self.out, kind::CLOSE, *id, &[]);
            }
        }
        self.streams.retain(|_, stream| !stream.over);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() && !self.out_blocked {
            match rustix::io::write(rustix::stdio::stdout(), &self.out[sent..]) {
                Ok(n) => sent += n,
                Err(Errno::AGAIN) => self.out_blocked = true,
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}

fn answer(id: u32, result: Result<(Reply, Vec<u8>), RelayError>) -> Outcome {
    let frame = |kind, payload| Outcome::Frame { kind, id, payload, last: true };
    match result {
        Ok((reply, data)) => {
            let payload = pack(&reply, &data);
            if payload.len() <= MAX_FRAME {
                return frame(kind::REPLY, payload);
            }
            let limit = MAX_FRAME as u64;
            frame(kind::ERROR, pack(&RelayError::TooMany { path: String::new(), limit }, &[]))
        }
        Err(error) => frame(kind::ERROR, pack(&error, &[])),
    }
}

/// One read of what the shim says, within the credit, straight into a frame.
fn read_shim(id: u32, stream: &mut Stream, out: &mut Vec<u8>) {
    let start = out.len();
    let want = stream.credit.min(MAX_CHUNK);
    put_frame(out, kind::DATA, id, &[]);
    out.resize(start + HEADER + want, 0);
    let read = rustix::io::read(&stream.socket, &mut out[start + HEADER..]);
    let len = read.unwrap_or(0);
    if len == 0 {
        out.truncate(start);
        stream.over = !matches!(read, Err(Errno::AGAIN | Errno::INTR));
        return;
    }
    out.truncate(start + HEADER + len);
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    stream.credit -= len;
}

fn write_shim(stream: &mut Stream) {
    let mut sent = 0;
    while sent < stream.to_shim.len() && !stream.blocked && !stream.over {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&stream.socket, &stream.to_shim[sent..], flags) {
            Ok(n) => sent += n,
            Err(Errno::AGAIN | Errno::NOBUFS) => stream.blocked = true,
            Err(Errno::INTR) => (),
            // It may have said why before it hung up: reading finds the end.
            Err(_) => sent = stream.to_shim.len(),
        }
    }
    stream.to_shim.drain(..sent);
    stream.passed += sent;
}
