//! A viewer of a terminal: a WebSocket of subprotocol `tty`, by hand, since the other end is what is measured.

use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
/// RFC 6455 §5.2: binary, close, ping, pong; each final.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

pub(crate) struct Seat {
    stream: BufReader<TcpStream>,
    frame: Vec<u8>,
    /// All bytes of all frames, with their headers.
    pub(crate) received: u64,
}

impl Seat {
    /// Sits down, at a window of 200 x 50. `more` are lines of the request's head.
    pub(crate) fn take(addr: SocketAddr, path: &str, more: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Any 16 bytes: nobody stands between who could mistake the answer.
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\n{more}connection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: Y2FzdHJhY2FzdHJhMTIzNA==\r\n\
             sec-websocket-protocol: tty\r\n\r\n"
        )?;
        let mut stream = BufReader::with_capacity(1 << 17, socket);
        let (mut line, mut first) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                bail!("hung up on: {first}");
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
        }
        if !first.contains(" 101 ") {
            bail!("no WebSocket: {first}");
        }
        let mut seat = Self { stream, frame: Vec::new(), received: 0 };
        seat.send(br#"{"AuthToken":"","columns":200,"rows":50}"#)?;
        Ok(seat)
    }

    /// A message; masked with zeros, as a client must and nothing demands more.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<()> {
        self.put(BINARY, message)
    }

    fn put(&mut self, kind: u8, message: &[u8]) -> Result<()> {
        let short =
            u8::try_from(message.len()).ok().filter(|length| *length < 126).context("a short message")?;
        let frame = [&[kind, 0x80 | short, 0, 0, 0, 0], message].concat();
        self.stream.get_mut().write_all(&frame)?;
        Ok(())
    }

    /// What the next message holds that is output; empty for one of another kind.
    pub(crate) fn output(&mut self) -> Result<&[u8]> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let mut more = 0;
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.stream.read_exact(&mut bytes)?;
                more = 2;
                u64::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.stream.read_exact(&mut bytes)?;
                more = 8;
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        };
        self.frame.resize(usize::try_from(length)?, 0);
        self.stream.read_exact(&mut self.frame)?;
        self.received += 2 + more + length;
        if head[0] == PING {
            let said = std::mem::take(&mut self.frame);
            self.put(PONG, &said)?;
        }
        match (head[0], self.frame.split_first()) {
            (BINARY, Some((b'0', output))) => Ok(output),
            (CLOSE, _) => bail!("the daemon closed the socket: {:?}", self.frame),
            _ => Ok(&[]),
        }
    }

    /// Whether anything comes within this time.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> Result<bool> {
        if !self.stream.buffer().is_empty() {
            return Ok(false);
        }
        let socket = self.stream.get_ref();
        socket.set_read_timeout(Some(time))?;
        let looked = socket.peek(&mut [0]);
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(looked.is_err())
    }
}
