//! One viewer's conversation, from its first message to its close. Leaving never touches the session.
//!
//! One task, no queue: what the viewer does not take stays with its seat, which skips forward; what it types while
//! its own screen is stalled still arrives. A message goes out as soon as there is something.

use super::frame::{self, FromClient, Window};
use crate::http::standing::{End, Lease};
use axum::extract::ws::{CloseFrame, Message, close_code};
use bytes::{Bytes, BytesMut};
use castra_supervisor::TypeError;
use castra_supervisor::terminal::Size;
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, interval_at, sleep, timeout};

/// Until the first message.
const GREETING: Duration = Duration::from_secs(10);
/// How often a viewer is looked after. Whether anybody is there it is asked only where somebody depends on it, see
/// [`Watch`]; ttyd asks everybody every 5 s.
const LOOK: Duration = Duration::from_secs(20);
/// A viewer that owes a word or an answer for so long is gone.
const DEAD: Duration = Duration::from_secs(60);
/// Output of one message; what is larger goes out in several, so that no buffer below grows with a screen.
const CHUNK: usize = 64 << 10;
/// While claude does not read what is typed.
const RETRY: Duration = Duration::from_millis(50);
/// For a close to be answered.
const PARTING: Duration = Duration::from_secs(2);

/// A place at a terminal.
pub(in crate::http) trait Seat: Send {
    /// What is to be shown next; none when there is nothing more for now. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
    /// After `next` said none: true when the session is over, false as soon as it is worth asking again.
    fn is_over(&mut self) -> impl Future<Output = bool> + Send;
    fn type_bytes(&self, keys: Bytes) -> Result<(), TypeError>;
    fn resize(&self, rows: u16, columns: u16);
    fn pause(&self, paused: bool);
    /// What all viewers share.
    fn size(&self) -> Size;
    fn is_writable(&self) -> bool;
    /// Whether others sit at this terminal too.
    fn is_shared(&self) -> bool;
}

/// What a conversation begins with.
pub(in crate::http) struct Opening<A> {
    /// Whether the `AuthToken` lets it in.
    pub(in crate::http) admit: A,
    pub(in crate::http) title: String,
    /// Whether the size is told: subprotocol `castra.tty`.
    pub(in crate::http) sized: bool,
    /// Something stands between that tells us nothing of a viewer that is gone, and may take silence for an end.
    pub(in crate::http) proxied: bool,
}

/// Why a conversation ends; the viewer is told by the code.
#[derive(Debug, PartialEq, Eq)]
enum Parting {
    /// It left, or is gone.
    Left,
    SessionOver,
    NotAdmitted,
    Lease(End),
}

/// Serves a viewer until it leaves, its lease or the session is over.
pub(in crate::http) async fn serve<S, A>(
    socket: impl Stream<Item = Result<Message, axum::Error>> + Sink<Message, Error = axum::Error> + Send,
    seat: S,
    opening: Opening<A>,
    mut lease: Lease,
) where
    S: Seat,
    A: FnOnce(&str) -> bool + Send,
{
    let (sink, stream) = socket.split();
    let (mut sink, mut stream) = (pin!(sink), pin!(stream));
    let parting = converse(&mut sink, &mut stream, seat, opening, &mut lease).await;
    let (code, reason) = match parting {
        Parting::Left => return,
        Parting::SessionOver => (close_code::NORMAL, "the session has ended"),
        Parting::NotAdmitted => (close_code::POLICY, "the ticket is not known, or was used"),
        Parting::Lease(End::Stopping) => (close_code::AWAY, "the daemon stops"),
        Parting::Lease(End::Revoked) => (close_code::POLICY, "the token has ended"),
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let goodbye = async {
        sink.send(close).await?;
        // Until it has answered: an end with something unread would take the close back.
        while stream.next().await.is_some_and(|message| message.is_ok()) {}
        Ok::<_, axum::Error>(())
    };
    let _ = timeout(PARTING, goodbye).await;
}

async fn converse<S, A>(
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    mut seat: S,
    opening: Opening<A>,
    lease: &mut Lease,
) -> Parting
where
    S: Seat,
    A: FnOnce(&str) -> bool,
{
    let first = tokio::select! {
        first = timeout(GREETING, greeting(stream)) => first,
        end = lease.over() => return Parting::Lease(end),
    };
    match first {
        Ok(Some(FromClient::Join { token, window })) if (opening.admit)(&token) => resize(&seat, window),
        Ok(None) => return Parting::Left,
        _ => return Parting::NotAdmitted,
    }
    let mut out = Out::new(opening.sized);
    out.small.extend([frame::title(&opening.title), frame::preferences()].map(Message::Binary));
    let mut keys: Option<Bytes> = None;
    let mut watch = Watch { proxied: opening.proxied, owing: None };
    let mut look_after = interval_at(Instant::now() + LOOK, LOOK);
    // The seat has nothing more, and it is asked whether that is all.
    let mut drained = false;
    loop {
        if !out.flushing
            && let Some(message) = out.next()
        {
            if sink.feed(message).await.is_err() {
                return Parting::Left;
            }
            out.flushing = true;
        }
        tokio::select! {
            end = lease.over() => return Parting::Lease(end),
            flushed = sink.flush(), if out.flushing => match flushed {
                Ok(()) => out.flushing = false,
                Err(_) => return Parting::Left,
            },
            found = look(&mut seat, drained), if !out.flushing => match found {
                Look::Bytes(bytes) => drained = out.show(bytes, &mut seat),
                Look::Drained => drained = true,
                Look::Again => drained = false,
                Look::Over => return Parting::SessionOver,
            },
            message = stream.next(), if keys.is_none() => {
                watch.owing = None;
                match message {
                    Some(Ok(Message::Binary(message))) => keys = obey(&seat, message),
                    Some(Ok(Message::Text(message))) => keys = obey(&seat, message.into()),
                    // Pings are answered below us.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Parting::Left,
                }
            }
            () = sleep(RETRY), if keys.is_some() => {
                watch.owing = None;
                keys = keys.take().and_then(|held| type_or_keep(&seat, held));
            }
            _ = look_after.tick() => match watch.look(out.flushing, seat.is_shared()) {
                Verdict::Fine => {}
                Verdict::Ask => out.small.push_back(Message::Ping(Bytes::new())),
                Verdict::Gone => return Parting::Left,
            }
        }
    }
}

/// The first message; none when it left before.
async fn greeting(
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
) -> Option<FromClient> {
    loop {
        return match stream.next().await?.ok()? {
            Message::Binary(message) => Some(frame::read(message)),
            Message::Text(message) => Some(frame::read(message.into())),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => None,
        };
    }
}

/// Whether the viewer is still there. One that is alone and takes what it is sent is not asked, so that a session at
/// which nothing happens costs no byte: the kernel's keepalive notices a machine that is gone, and until then nobody
/// minds the place. With others at the terminal its window counts, and a proxy would answer the keepalive itself.
struct Watch {
    proxied: bool,
    /// Since when a question is open, or what was sent is not taken.
    owing: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Ask,
    Gone,
}

impl Watch {
    /// `stuck`: something is on its way and not taken.
    fn look(&mut self, stuck: bool, shared: bool) -> Verdict {
        if self.owing.is_some_and(|since| since.elapsed() >= DEAD) {
            return Verdict::Gone;
        }
        // One that was stuck and moves again is asked once, since what it takes now says nothing of then.
        let ask = !stuck && (shared || self.proxied || self.owing.is_some());
        if stuck || ask {
            self.owing.get_or_insert_with(Instant::now);
        }
        if ask { Verdict::Ask } else { Verdict::Fine }
    }
}

enum Look {
    Bytes(Bytes),
    Drained,
    Again,
    Over,
}

/// One future for both questions, since both want the seat.
async fn look(seat: &mut impl Seat, drained: bool) -> Look {
    if drained {
        return if seat.is_over().await { Look::Over } else { Look::Again };
    }
    seat.next().await.map_or(Look::Drained, Look::Bytes)
}

/// What goes out: one message at a time.
struct Out {
    flushing: bool,
    /// Before any output.
    small: VecDeque<Message>,
    output: Bytes,
    sized: bool,
    told: Option<(Size, bool)>,
}

impl Out {
    fn new(sized: bool) -> Self {
        Self { flushing: false, small: VecDeque::new(), output: Bytes::new(), sized, told: None }
    }

    fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.small.pop_front() {
            return Some(message);
        }
        let chunk = self.output.split_to(self.output.len().min(CHUNK));
        (!chunk.is_empty()).then(|| Message::Binary(frame::output(&chunk)))
    }

    /// Takes bytes and all that is there besides, up to a message's worth; the size they are drawn for goes first.
    /// True when the seat has nothing more.
    fn show(&mut self, bytes: Bytes, seat: &mut impl Seat) -> bool {
        let mut drained = false;
        let mut more = BytesMut::from(bytes);
        while more.len() < CHUNK {
            match seat.next().now_or_never() {
                Some(Some(bytes)) => more.extend_from_slice(&bytes),
                Some(None) => {
                    drained = true;
                    break;
                }
                None => break,
            }
        }
        self.output = more.freeze();
        if self.sized {
            let now = (seat.size(), seat.is_writable());
            if self.told.replace(now) != Some(now) {
                self.small.push_back(Message::Binary(frame::size(now.0, now.1)));
            }
        }
        drained
    }
}

/// Does what a message says. Keys that nobody takes yet come back.
fn obey(seat: &impl Seat, message: Bytes) -> Option<Bytes> {
    match frame::read(message) {
        FromClient::Input(keys) => return type_or_keep(seat, keys),
        FromClient::Resize(window) => resize(seat, window),
        FromClient::Pause(paused) => seat.pause(paused),
        FromClient::Join { .. } | FromClient::Other => {}
    }
    None
}

/// Keys of who only looks, and for a claude that is no more, fall to the ground, as in ttyd.
fn type_or_keep(seat: &impl Seat, keys: Bytes) -> Option<Bytes> {
    match seat.type_bytes(keys.clone()) {
        Err(TypeError::Full) => Some(keys),
        Ok(()) | Err(TypeError::ReadOnly | TypeError::NoTerminal) => None,
    }
}

fn resize(seat: &impl Seat, window: Window) {
    seat.resize(window.rows, window.columns);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
