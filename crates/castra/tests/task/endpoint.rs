//! A webhook's other end: writes down what it is asked, answers what the test says, and may be down.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

type Answer = dyn Fn(&Asked) -> (u16, String) + Send + Sync;

pub(crate) struct Endpoint {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Answer>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) raw: Vec<u8>,
    pub(crate) body: Value,
}

impl Asked {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).expect(name)
    }

    /// As a receiver checks it, by <https://www.standardwebhooks.com>; `key` in Base64.
    pub(crate) fn is_signed(&self, key: &str) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key).unwrap()).unwrap();
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.raw);
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl Endpoint {
    pub(crate) fn new(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut endpoint = Self { addr, asked: Arc::default(), answer: Arc::new(answer), running: None };
        endpoint.up();
        endpoint
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.addr)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn up(&mut self) {
        let listener = TcpListener::bind(self.addr).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (asked, answer, ends) = (self.asked.clone(), self.answer.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                // Broken off: whoever asked is dead.
                let _ = stream.ok().and_then(|stream| serve(&stream, &*answer, &asked));
            }
        });
        self.running = Some((over, thread));
    }

    pub(crate) fn down(&mut self) {
        if let Some((over, thread)) = self.running.take() {
            over.store(true, Ordering::Release);
            let _ = TcpStream::connect(self.addr);
            thread.join().unwrap();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.down();
    }
}

/// What was asked is written down before it is answered: whoever has the answer may look.
fn serve(mut stream: &TcpStream, answer: &Answer, noted: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut headers, mut line) = (Vec::new(), String::new());
    reader.read_line(&mut line).ok()?;
    assert_eq!(line, "POST /hooks HTTP/1.1\r\n");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut raw = vec![0; length];
    reader.read_exact(&mut raw).ok()?;
    let body = serde_json::from_slice(&raw).ok()?;
    let asked = Asked { headers, raw, body };
    let (status, text) = answer(&asked);
    noted.lock().unwrap().push(asked);
    let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).ok()
}
