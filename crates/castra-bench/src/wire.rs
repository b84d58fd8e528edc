//! HTTP as the daemon speaks it, over one connection that stays open, and a viewer that checks what it reads.
//! Raw sockets: the other end is what is measured.

use anyhow::{Context as _, Result, bail};
use memchr::memchr;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For whatever should take seconds on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where the daemon is, and the right to ask it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    pub(crate) token: String,
}

impl Door {
    fn connect(&self) -> Result<TcpStream> {
        let socket = TcpStream::connect(self.addr).context("the daemon's port")?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n{more}\r\n",
            self.addr, self.token
        )
    }
}

/// One connection, one request after the other.
pub(crate) struct Client {
    door: Door,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(door: &Door) -> Result<Self> {
        let socket = door.connect()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { door: door.clone(), socket, buffer: Vec::new() })
    }

    /// Says something and returns the answer of the API when its turn is over.
    pub(crate) fn turn(&mut self, session: &str, text: &str) -> Result<serde_json::Value> {
        let body = serde_json::json!({ "text": text }).to_string();
        let path = format!("/api/v1/sessions/{session}/messages?wait=600");
        let (status, answer) = self.post(&path, &body)?;
        if status != 200 || answer["state"] != "answered" {
            bail!("{text}: {status} {answer}");
        }
        Ok(answer)
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<(u16, serde_json::Value)> {
        let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let request = format!("{}{body}", self.door.head("POST", path, &more));
        self.socket.write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(u16, serde_json::Value)> {
        self.buffer.clear();
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.more()?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).context("a length")?;
        while self.buffer.len() < head + length {
            self.more()?;
        }
        Ok((status, serde_json::from_slice(&self.buffer[head..head + length])?))
    }

    fn more(&mut self) -> Result<()> {
        let from = self.buffer.len();
        self.buffer.resize(from + (64 << 10), 0);
        let read = self.socket.read(&mut self.buffer[from..])?;
        self.buffer.truncate(from + read);
        if read == 0 {
            bail!("the daemon hung up");
        }
        Ok(())
    }
}

/// What a viewer has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) last: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) partials: AtomicU64,
    /// Ids that did not follow the one before.
    pub(crate) gaps: AtomicU64,
}

/// A reader of one session's stream. Ends when it is dropped.
pub(crate) struct Viewer {
    pub(crate) seen: Arc<Seen>,
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Viewer {
    pub(crate) fn open(door: &Door, session: &str, after: u64) -> Result<Self> {
        let mut socket = subscribe(door, session, after)?;
        let seen = Arc::new(Seen { last: AtomicU64::new(after), ..Seen::default() });
        let (theirs, reading) = (Arc::clone(&seen), socket.try_clone()?);
        let mut reader = reading;
        let thread =
            std::thread::Builder::new().stack_size(256 << 10).spawn(move || read(&mut reader, &theirs))?;
        socket.flush()?;
        Ok(Self { seen, socket, thread: Some(thread) })
    }

    pub(crate) fn until(&self, seq: u64) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.seen.last.load(Ordering::Acquire) < seq {
            if Instant::now() > end {
                bail!("the viewer is at {:?} and not at {seq}", self.seen);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.seen.gaps.load(Ordering::Acquire) == 0
    }

    pub(crate) fn events(&self) -> u64 {
        self.seen.events.load(Ordering::Acquire)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks for the stream; nothing of it has been read.
pub(crate) fn subscribe(door: &Door, session: &str, after: u64) -> Result<TcpStream> {
    let mut socket = door.connect()?;
    let more = format!("accept: text/event-stream\r\nlast-event-id: {after}\r\n");
    let path = format!("/api/v1/sessions/{session}/events");
    socket.write_all(door.head("GET", &path, &more).as_bytes())?;
    Ok(socket)
}

/// Line by line; the chunks' own lines are none of ours, and each of them holds whole frames.
fn read(socket: &mut TcpStream, seen: &Seen) {
    let mut buffer = vec![0; 256 << 10];
    let (mut filled, mut looked) = (0, 0);
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        match socket.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        let mut from = 0;
        while let Some(length) = memchr(b'\n', &buffer[looked..filled]) {
            line(&buffer[from..looked + length], seen);
            from = looked + length + 1;
            looked = from;
        }
        looked = filled - from;
        buffer.copy_within(from..filled, 0);
        filled -= from;
    }
}

fn line(line: &[u8], seen: &Seen) {
    if let Some(id) = line.strip_prefix(b"id: ") {
        let id = std::str::from_utf8(id).ok().and_then(|id| id.trim().parse::<u64>().ok()).unwrap_or(0);
        if id != seen.last.load(Ordering::Relaxed) + 1 {
            seen.gaps.fetch_add(1, Ordering::Relaxed);
        }
        seen.events.fetch_add(1, Ordering::Relaxed);
        seen.last.store(id, Ordering::Release);
    } else if line.starts_with(b"event: partial") {
        seen.partials.fetch_add(1, Ordering::Relaxed);
    }
}
