//! ttyd's protocol: what a WebSocket of subprotocol `tty` carries, and one viewer's conversation in it. Refuses to
//! know who may look or type.
//!
//! Frames as ttyd 1.7 has them (tsl0922/ttyd, src/protocol.c and html/src/components/terminal/xterm/index.ts): the
//! first byte says what a message is, the rest is its content; the client begins with JSON. The subprotocol
//! [`SIZED`] is the same and one message more: ttyd's terminal has the size of its only viewer, castra's one that all
//! viewers share, and a page that is to show it must know it.

mod frame;
mod serve;

pub(super) use frame::{PLAIN, SIZED};
pub(super) use serve::{Opening, Seat, serve};

/// Feeds `data` to the reader of clients' messages: whatever is sent, it is read or passed over.
///
/// # Panics
/// When what was read as keys is not what was sent.
#[doc(hidden)]
pub fn fuzz_tty(data: &[u8]) {
    let message = frame::read(bytes::Bytes::copy_from_slice(data));
    match message {
        frame::FromClient::Input(keys) => assert!(data[0] == b'0' && keys == data[1..]),
        frame::FromClient::Join { .. } => assert_eq!(data[0], b'{'),
        frame::FromClient::Resize(_) => assert_eq!(data[0], b'1'),
        frame::FromClient::Pause(_) | frame::FromClient::Other => {}
    }
}
