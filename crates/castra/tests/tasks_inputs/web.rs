//! A web server on loopback that breaks off, stalls, redirects and changes its mind; each request is kept.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) struct Web {
    addr: SocketAddr,
    inside: Arc<Inside>,
}

struct Inside {
    content: String,
    asked: Mutex<Vec<String>>,
    /// Answers that are broken off in the middle.
    breaks: AtomicUsize,
    changes: AtomicBool,
    /// Answers stop in the middle until this is false.
    stalls: AtomicBool,
    over: AtomicBool,
}

impl Web {
    pub(crate) fn serve(content: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            content: content.to_owned(),
            asked: Mutex::default(),
            breaks: AtomicUsize::new(0),
            changes: AtomicBool::new(false),
            stalls: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let theirs = inside.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if theirs.over.load(Ordering::SeqCst) {
                    return;
                }
                let theirs = theirs.clone();
                // Whoever hangs up is not the server's business.
                std::thread::spawn(move || -> std::io::Result<()> { theirs.answer(socket?) });
            }
        });
        Self { addr, inside }
    }

    pub(crate) fn breaking_off(self, times: usize) -> Self {
        self.inside.breaks.store(times, Ordering::SeqCst);
        self
    }

    pub(crate) fn then_changing(self) -> Self {
        self.inside.changes.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn stalling(self) -> Self {
        self.inside.stalls.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn go_on(&self) {
        self.inside.stalls.store(false, Ordering::SeqCst);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The requests, heads and all.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.inside.asked.lock().unwrap().clone()
    }

    /// Of each request `Range` and `If-Range`.
    pub(crate) fn ranges(&self) -> Vec<Option<(String, String)>> {
        let asked = self.asked();
        asked.iter().map(|head| Some((field(head, "range")?, field(head, "if-range")?))).collect()
    }

    pub(crate) fn changed(&self) -> String {
        self.inside.content.to_uppercase() + "changed"
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.inside.over.store(true, Ordering::SeqCst);
        // Wakes the one who accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

impl Inside {
    fn answer(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut lines = BufReader::new(socket.try_clone()?).lines();
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            head.push_str(&line);
            head.push('\n');
        }
        let first = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(head.clone());
            asked.len() == 1
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let page = "a page about that, which is not the file";
        let found = |to: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: {}\r\n\r\n{page}", page.len())
        };
        match path.as_str() {
            "/missing" => {
                write!(socket, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{page}", page.len())
            }
            "/hop" => write!(socket, "{}", found("/file")),
            "/loop" => write!(socket, "{}", found("/loop")),
            "/to-file" => write!(socket, "{}", found("file:///etc/passwd")),
            _ => self.file(&mut socket, &head, first),
        }
    }

    fn file(&self, socket: &mut TcpStream, head: &str, first: bool) -> std::io::Result<()> {
        let changed = self.changes.load(Ordering::SeqCst) && !first;
        let (content, tag) = match changed {
            true => (self.content.to_uppercase() + "changed", "\"v2\""),
            false => (self.content.clone(), "\"v1\""),
        };
        let from = field(head, "range").and_then(|range| {
            field(head, "if-range").filter(|mark| mark == tag)?;
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let (status, rest) = match from {
            Some(from) => ("206 Partial Content", &content[from..]),
            None => ("200 OK", &content[..]),
        };
        write!(socket, "HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\n", rest.len())?;
        if let Some(from) = from {
            write!(socket, "Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len())?;
        }
        write!(socket, "\r\n")?;
        let breaks =
            self.breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let (some, more) = rest.split_at(rest.len() / 2);
        socket.write_all(some.as_bytes())?;
        if breaks {
            return Ok(());
        }
        while self.stalls.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        socket.write_all(more.as_bytes())
    }
}
