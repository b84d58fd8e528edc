//! A viewer for tests: ttyd's protocol as its client speaks it, and a screen as a terminal would show it.
#![allow(dead_code, reason = "each test program uses a part")]

use castra_supervisor::terminal::{Scrollback, Size, Terminal};
use castra_testkit::DEADLINE;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

/// One seat at a terminal.
pub(crate) struct Tty {
    socket: WebSocket<TcpStream>,
    pub(crate) terminal: Terminal,
    /// Titles and settings, as they came.
    pub(crate) titles: Vec<String>,
    pub(crate) settings: Vec<Value>,
    /// What `castra.tty` says of the size.
    pub(crate) sizes: Vec<Value>,
    pub(crate) output: usize,
    /// The code that it was closed with; 0 without one.
    pub(crate) closed: Option<u16>,
    pub(crate) protocol: Option<String>,
}

/// The status of an answer that is no WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u16);

impl Tty {
    /// Connects; says nothing yet.
    pub(crate) fn open(
        addr: SocketAddr,
        path: &str,
        protocols: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        // A viewer that does not read is one soon, not when the kernel has taken megabytes for it.
        set_socket_recv_buffer_size(&stream, 64 << 10).unwrap();
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        let set = request.headers_mut();
        set.insert("sec-websocket-protocol", protocols.parse().unwrap());
        for (name, value) in headers {
            set.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let (socket, response) = match client::client(request, stream) {
            Ok(both) => both,
            Err(HandshakeError::Failure(Error::Http(response))) => {
                return Err(Refused(response.status().as_u16()));
            }
            Err(error) => panic!("{path}: {error}"),
        };
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let chosen = response.headers().get("sec-websocket-protocol");
        let protocol = chosen.map(|value| value.to_str().unwrap().to_owned());
        Ok(Self {
            socket,
            terminal: Terminal::new(Size::new(50, 200), Scrollback::default()),
            titles: Vec::new(),
            settings: Vec::new(),
            sizes: Vec::new(),
            output: 0,
            closed: None,
            protocol,
        })
    }

    pub(crate) fn join(&mut self, ticket: &str, columns: u16, rows: u16) {
        if self.protocol.as_deref() == Some("tty") {
            self.terminal.resize(Size::new(rows, columns));
        }
        self.say(&json!({"AuthToken": ticket, "columns": columns, "rows": rows}).to_string());
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.socket.send(Message::Binary(text.as_bytes().to_vec().into())).unwrap();
    }

    /// Its window has another size.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        if self.protocol.as_deref() == Some("tty") {
            self.terminal.resize(Size::new(rows, columns));
        }
        self.say(&format!("1{}", json!({"columns": columns, "rows": rows})));
    }

    /// The other side may hang up in the middle.
    pub(crate) fn try_say(&mut self, text: &str) {
        let _ = self.socket.send(Message::Binary(text.as_bytes().to_vec().into()));
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.say(&format!("0{keys}"));
    }

    /// Types a line as a person does: an Enter in one piece with its text may be taken for part of a paste, and is lost.
    #[track_caller]
    pub(crate) fn enter(&mut self, line: &str) {
        self.type_keys(line);
        self.until_shown(line);
        self.type_keys("\r");
    }

    /// Takes what is there; false when the connection is over.
    pub(crate) fn take(&mut self) -> bool {
        if self.closed.is_some() {
            return false;
        }
        loop {
            match self.socket.read() {
                Ok(Message::Binary(message)) => self.message(&message),
                Ok(Message::Close(frame)) => self.closed = Some(frame.map_or(0, |frame| frame.code.into())),
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return self.closed.is_none();
                }
                Err(_) => {
                    self.closed.get_or_insert(0);
                    return false;
                }
            }
        }
    }

    fn message(&mut self, message: &[u8]) {
        let text = || String::from_utf8(message[1..].to_vec()).unwrap();
        match message[0] {
            b'0' => {
                self.output += message.len() - 1;
                self.terminal.feed(&message[1..]);
            }
            b'1' => self.titles.push(text()),
            b'2' => self.settings.push(serde_json::from_str(&text()).unwrap()),
            b'3' => {
                let size: Value = serde_json::from_str(&text()).unwrap();
                let number = |name: &str| u16::try_from(size[name].as_u64().unwrap()).unwrap();
                self.terminal.resize(Size::new(number("rows"), number("columns")));
                self.sizes.push(size);
            }
            other => panic!("a message {other}"),
        }
    }

    pub(crate) fn screen(&self) -> String {
        self.terminal.screen_text().join("\n").trim_end().to_owned()
    }

    /// Takes until it is so.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let open = self.take();
            if is_so(self) {
                return;
            }
            assert!(open && Instant::now() < deadline, "{what}: {:?}\n{}", self.closed, self.screen());
        }
    }

    #[track_caller]
    pub(crate) fn until_shown(&mut self, text: &str) {
        self.until(text, |tty| tty.screen().contains(text));
    }

    /// Takes until it is closed; the code.
    #[track_caller]
    pub(crate) fn until_closed(&mut self) -> u16 {
        let deadline = Instant::now() + DEADLINE;
        while self.take() {
            assert!(Instant::now() < deadline, "it stays open:\n{}", self.screen());
        }
        self.closed.unwrap_or_default()
    }
}
