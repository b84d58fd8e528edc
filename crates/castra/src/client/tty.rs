//! A session's terminal over a WebSocket: ttyd's messages, and castra's own that tells the size all viewers share.
//! One connection; whoever wants the terminal for longer opens it again.

use super::{Call, Client, Error, escape};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use hyper::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// ttyd's protocol, and message `3` with the size that is shared.
const PROTOCOL: &str = "castra.tty";
/// One message from the daemon, which sends a screen in pieces.
const MESSAGE: usize = 4 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A window, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub rows: u16,
    pub columns: u16,
}

/// What the terminal is like for this viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Seat {
    /// Of the terminal; all that is drawn is drawn for it.
    pub rows: u16,
    pub columns: u16,
    /// Whether this viewer's keys are taken.
    pub writable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Bytes for a terminal.
    Output(Bytes),
    Seat(Seat),
    /// What a terminal of one's own has no use for.
    Other,
    End(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The session's run is over.
    Over,
    /// The daemon stops or is gone: it may come back, and the terminal with it.
    Away,
    /// The viewer is not let in any more; why.
    Refused(String),
}

/// What comes from the terminal.
pub struct Screen(SplitStream<Socket>);

/// What goes to it.
pub struct Keyboard(SplitSink<Socket, Message>);

impl Client {
    /// Sits down at a session's terminal. Without the scope `approve` the seat is for looking, as with `readonly`.
    pub async fn terminal(
        &self,
        session: &str,
        readonly: bool,
        window: Window,
    ) -> Result<(Screen, Keyboard), Error> {
        let key = generate_key();
        let path = format!("/api/v1/sessions/{}/terminal/ws?readonly={readonly}", escape(session));
        let call = Call::get(path)
            .constant(CONNECTION, "Upgrade")
            .constant(UPGRADE, "websocket")
            .constant(SEC_WEBSOCKET_VERSION, "13")
            .constant(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
            .header(SEC_WEBSOCKET_KEY, &key)?;
        let response = self.once(&call).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        let said = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let accepted = said(SEC_WEBSOCKET_ACCEPT) == Some(derive_accept_key(key.as_bytes()).as_str());
        if !accepted || said(SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL) {
            let (target, status) = (self.target().to_string(), response.status());
            return Err(Error::Answer { target, status, detail: "this is no terminal of castra's".into() });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|source| self.lost(source))?;
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
        let (sink, stream) = socket.split();
        let mut keyboard = Keyboard(sink);
        // The token went in a header; who ends here is told by the stream.
        keyboard.send(join(window)).await;
        Ok((Screen(stream), keyboard))
    }
}

impl Screen {
    /// Cancel safe.
    pub async fn next(&mut self) -> Shown {
        match self.0.next().await {
            Some(Ok(Message::Binary(message))) => shown(message),
            Some(Ok(Message::Text(message))) => shown(message.into()),
            Some(Ok(Message::Close(close))) => Shown::End(match close {
                Some(close) if close.code == CloseCode::Normal => End::Over,
                Some(close) if close.code == CloseCode::Policy => End::Refused(close.reason.to_string()),
                _ => End::Away,
            }),
            Some(Ok(_)) => Shown::Other,
            Some(Err(_)) | None => Shown::End(End::Away),
        }
    }
}

impl Keyboard {
    /// Returns when the daemon's socket has it. An error is the connection's end, which `Screen::next` tells.
    pub async fn send(&mut self, message: Bytes) {
        let _ = self.0.send(Message::Binary(message)).await;
    }
}

fn shown(message: Bytes) -> Shown {
    match message.first() {
        Some(b'0') => Shown::Output(message.slice(1..)),
        Some(b'3') => serde_json::from_slice(&message[1..]).map_or(Shown::Other, Shown::Seat),
        _ => Shown::Other,
    }
}

/// The first message.
fn join(window: Window) -> Bytes {
    json!({ "AuthToken": "", "columns": window.columns, "rows": window.rows }).to_string().into()
}

/// Keys, as a terminal sends them.
pub fn input(keys: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(keys.len() + 1);
    message.put_u8(b'0');
    message.put_slice(keys);
    message.freeze()
}

pub fn resize(window: Window) -> Bytes {
    format!("1{}", json!({ "columns": window.columns, "rows": window.rows })).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_ttyds() {
        let window = Window { rows: 24, columns: 80 };
        assert_eq!(join(window), r#"{"AuthToken":"","columns":80,"rows":24}"#);
        assert_eq!(resize(window), r#"1{"columns":80,"rows":24}"#);
        assert_eq!(input(b"a\x1b"), "0a\x1b");
        let seat = Seat { rows: 50, columns: 200, writable: true };
        let table = [
            ("0\x1b[H", Shown::Output("\x1b[H".into())),
            ("0", Shown::Output(Bytes::new())),
            (r#"3{"columns":200,"rows":50,"writable":true,"later":1}"#, Shown::Seat(seat)),
            ("3{", Shown::Other),
            ("1title", Shown::Other),
            ("2{}", Shown::Other),
            ("", Shown::Other),
        ];
        for (message, expected) in table {
            assert_eq!(shown(message.into()), expected, "{message}");
        }
    }
}
