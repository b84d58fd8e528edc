//! A viewer's conversation over channels: what is sent when, and how it ends.

use super::*;
use crate::http::auth::Grant;
use crate::http::standing::Standing;
use castra_proto::TokenId;
use castra_proto::api::Scope;
use castra_supervisor::Caller;
use futures::channel::mpsc as futures_mpsc;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a seat was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Typed(Bytes),
    Size(u16, u16),
    Paused(bool),
}

struct Shared {
    done: Vec<Done>,
    size: Size,
    full: bool,
    others: bool,
}

struct Fake {
    output: mpsc::Receiver<Option<Bytes>>,
    over: mpsc::Receiver<bool>,
    shared: Arc<Mutex<Shared>>,
    writable: bool,
}

impl Seat for Fake {
    async fn next(&mut self) -> Option<Bytes> {
        match self.output.recv().await {
            Some(output) => output,
            None => std::future::pending().await,
        }
    }

    async fn is_over(&mut self) -> bool {
        match self.over.recv().await {
            Some(over) => over,
            None => std::future::pending().await,
        }
    }

    fn type_bytes(&self, keys: Bytes) -> Result<(), TypeError> {
        let mut shared = self.shared.lock().unwrap();
        match (self.writable, shared.full) {
            (false, _) => return Err(TypeError::ReadOnly),
            (true, true) => return Err(TypeError::Full),
            (true, false) => shared.done.push(Done::Typed(keys)),
        }
        Ok(())
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.shared.lock().unwrap().done.push(Done::Size(rows, columns));
    }

    fn pause(&self, paused: bool) {
        self.shared.lock().unwrap().done.push(Done::Paused(paused));
    }

    fn size(&self) -> Size {
        self.shared.lock().unwrap().size
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_shared(&self) -> bool {
        self.shared.lock().unwrap().others
    }
}

/// Both directions of a socket; what is sent waits for a reader as a full socket does.
struct Socket {
    from: mpsc::Receiver<Message>,
    to: futures_mpsc::Sender<Message>,
}

impl Stream for Socket {
    type Item = Result<Message, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from.poll_recv(cx).map(|message| message.map(Ok))
    }
}

impl Sink<Message> for Socket {
    type Error = axum::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        self.to.poll_ready_unpin(cx).map_err(axum::Error::new)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), axum::Error> {
        self.to.start_send_unpin(message).map_err(axum::Error::new)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        // Taken, not merely put down.
        self.to.poll_ready_unpin(cx).map_err(axum::Error::new)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Poll::Ready(Ok(()))
    }
}

struct Viewer {
    output: mpsc::Sender<Option<Bytes>>,
    over: mpsc::Sender<bool>,
    shared: Arc<Mutex<Shared>>,
    send: mpsc::Sender<Message>,
    received: futures_mpsc::Receiver<Message>,
    standing: Standing,
    token: TokenId,
    ended: JoinHandle<()>,
}

impl Viewer {
    fn start(sized: bool, writable: bool) -> Self {
        Self::start_behind(false, sized, writable)
    }

    fn start_behind(proxied: bool, sized: bool, writable: bool) -> Self {
        let (output, outputs) = mpsc::channel(64);
        let (over, overs) = mpsc::channel(64);
        let (send, from) = mpsc::channel(64);
        let (to, received) = futures_mpsc::channel(0);
        let shared = Arc::new(Mutex::new(Shared {
            done: Vec::new(),
            size: Size { rows: 50, cols: 200 },
            full: false,
            others: false,
        }));
        let seat = Fake { output: outputs, over: overs, shared: shared.clone(), writable };
        let (standing, token) = (Standing::new(), TokenId::now());
        let caller = Caller { by: "t".into(), scope: Scope::Read };
        let lease = standing.lease(&Grant {
            caller,
            only: None,
            token: Some(token),
            expires: None,
            cookie: None,
            hook: None,
        });
        let opening = Opening { admit: |token: &str| token == "good", title: "tui".into(), sized, proxied };
        let ended = tokio::spawn(serve(Socket { from, to }, seat, opening, lease));
        Self { output, over, shared, send, received, standing, token, ended }
    }

    /// Let in, and past the greeting.
    async fn joined(sized: bool, writable: bool) -> Self {
        Self::start(sized, writable).greeted().await
    }

    async fn greeted(self) -> Self {
        let mut viewer = self;
        viewer.say(r#"{"AuthToken":"good","columns":80,"rows":24}"#);
        assert_eq!(viewer.hear().await, "1tui");
        assert_eq!(viewer.hear().await, r#"2{"disableLeaveAlert":true}"#);
        viewer
    }

    fn say(&self, text: &'static str) {
        self.send.try_send(Message::Binary(Bytes::from_static(text.as_bytes()))).unwrap();
    }

    fn put(&self, bytes: impl Into<Bytes>) {
        self.output.try_send(Some(bytes.into())).unwrap();
    }

    async fn hear(&mut self) -> Bytes {
        match self.received.next().await {
            Some(Message::Binary(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The code that it is closed with, after what was on its way; then it is gone.
    async fn closed(mut self) -> u16 {
        loop {
            match self.received.next().await.unwrap() {
                Message::Close(Some(frame)) => {
                    drop(self.send);
                    self.ended.await.unwrap();
                    return frame.code;
                }
                Message::Close(None) => panic!("a close without a code"),
                _ => {}
            }
        }
    }

    fn done(&self) -> Vec<Done> {
        self.shared.lock().unwrap().done.clone()
    }

    async fn done_until(&self, what: &str, is_so: impl Fn(&[Done]) -> bool) {
        let so = async {
            while !is_so(&self.done()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), so).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.done()));
    }
}

#[tokio::test]
async fn a_viewer_gets_title_settings_and_then_the_screen() {
    let mut viewer = Viewer::joined(false, true).await;
    viewer.put("screen");
    assert_eq!(viewer.hear().await, "0screen");
    viewer.put("live");
    assert_eq!(viewer.hear().await, "0live");
    assert_eq!(viewer.done(), [Done::Size(24, 80)]);
}

#[tokio::test]
async fn the_shared_size_comes_before_what_is_drawn_for_it() {
    let mut viewer = Viewer::joined(true, false).await;
    viewer.put("screen");
    assert_eq!(viewer.hear().await, r#"3{"columns":200,"rows":50,"writable":false}"#);
    assert_eq!(viewer.hear().await, "0screen");
    viewer.put("live");
    assert_eq!(viewer.hear().await, "0live");
    viewer.shared.lock().unwrap().size = Size { rows: 24, cols: 80 };
    viewer.put("smaller");
    assert_eq!(viewer.hear().await, r#"3{"columns":80,"rows":24,"writable":false}"#);
    assert_eq!(viewer.hear().await, "0smaller");
}

#[tokio::test]
async fn what_a_viewer_does_reaches_its_seat() {
    let viewer = Viewer::joined(false, true).await;
    for message in ["0ls", "9?", r#"1{"columns":100,"rows":30}"#, "2", "3", r#"{"AuthToken":"x"}"#, "0\r"] {
        viewer.say(message);
    }
    viewer.send.try_send(Message::Text("0text".into())).unwrap();
    let expected = [
        Done::Size(24, 80),
        Done::Typed("ls".into()),
        Done::Size(30, 100),
        Done::Paused(true),
        Done::Paused(false),
        Done::Typed("\r".into()),
        Done::Typed("text".into()),
    ];
    viewer.done_until("all of it", |done| done == expected).await;
}

#[tokio::test]
async fn who_only_looks_types_nothing() {
    let mut viewer = Viewer::joined(false, false).await;
    viewer.say("0rm -rf /");
    viewer.say("2");
    viewer.done_until("the pause behind it", |done| done == [Done::Size(24, 80), Done::Paused(true)]).await;
    viewer.put("still there");
    assert_eq!(viewer.hear().await, "0still there");
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_in_without_the_ticket() {
    for first in [r#"{"AuthToken":"bad"}"#, r#"{"columns":1}"#, "0ls", "", "{"] {
        let viewer = Viewer::start(false, true);
        viewer.say(first);
        viewer.put("secret");
        assert_eq!((viewer.done(), viewer.closed().await), (vec![], 1008), "{first}");
    }
    // Nor by waiting.
    let viewer = Viewer::start(false, true);
    assert_eq!(viewer.closed().await, 1008);
}

#[tokio::test]
async fn a_session_that_ends_shows_its_last_screen_and_closes() {
    let mut viewer = Viewer::joined(false, true).await;
    viewer.put("last");
    viewer.output.try_send(None).unwrap();
    // Another run begins first: the viewer stays.
    viewer.over.try_send(false).unwrap();
    assert_eq!(viewer.hear().await, "0last");
    viewer.put("again");
    viewer.output.try_send(None).unwrap();
    viewer.over.try_send(true).unwrap();
    assert_eq!(viewer.hear().await, "0again");
    assert_eq!(viewer.closed().await, 1000);
}

#[tokio::test]
async fn the_daemons_end_and_the_tokens_are_told_apart() {
    let viewer = Viewer::joined(false, true).await;
    viewer.standing.stop();
    assert_eq!(viewer.closed().await, 1001);
    let viewer = Viewer::joined(false, true).await;
    viewer.standing.revoke(viewer.token);
    assert_eq!(viewer.closed().await, 1008);
}

#[tokio::test]
async fn a_viewer_that_stalls_can_still_type() {
    let mut viewer = Viewer::joined(false, true).await;
    let screen = Bytes::from(vec![b'x'; 3 * CHUNK + 5]);
    viewer.put(screen.clone());
    viewer.say("0\u{3}");
    viewer.done_until("the key", |done| done.contains(&Done::Typed("\u{3}".into()))).await;
    // And then it gets all of it, in pieces.
    let mut got = Vec::new();
    while got.len() < screen.len() {
        let message = viewer.hear().await;
        assert!(message[0] == b'0' && message.len() <= CHUNK + 1);
        got.extend_from_slice(&message[1..]);
    }
    assert_eq!(got, screen);
}

#[tokio::test(start_paused = true)]
async fn keys_that_claude_does_not_read_wait_and_are_not_lost() {
    let mut viewer = Viewer::joined(false, true).await;
    viewer.shared.lock().unwrap().full = true;
    viewer.say("0one");
    viewer.say("0two");
    viewer.put("meanwhile");
    assert_eq!(viewer.hear().await, "0meanwhile");
    tokio::time::sleep(DEAD * 2).await;
    assert_eq!(viewer.done(), [Done::Size(24, 80)]);
    viewer.shared.lock().unwrap().full = false;
    let expected = [Done::Size(24, 80), Done::Typed("one".into()), Done::Typed("two".into())];
    viewer.done_until("both, in order", |done| done == expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_costs_its_only_viewer_no_byte() {
    let mut viewer = Viewer::joined(false, true).await;
    viewer.put("screen");
    assert_eq!(viewer.hear().await, "0screen");
    let said = timeout(DEAD * 10, viewer.received.next()).await;
    assert!(said.is_err(), "{said:?}");
    viewer.put("after hours");
    assert_eq!(viewer.hear().await, "0after hours");
}

#[tokio::test(start_paused = true)]
async fn behind_a_proxy_silence_is_broken() {
    let mut viewer = Viewer::start_behind(true, false, true).greeted().await;
    for _ in 0..10 {
        assert!(matches!(viewer.received.next().await, Some(Message::Ping(_))));
        viewer.send.try_send(Message::Pong(Bytes::new())).unwrap();
    }
    viewer.put("still there");
    assert_eq!(viewer.hear().await, "0still there");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_takes_nothing_is_gone() {
    let viewer = Viewer::joined(false, true).await;
    viewer.put(vec![b'x'; 3 * CHUNK]);
    let Viewer { ended, received, output, over, send, .. } = viewer;
    ended.await.unwrap();
    drop((received, output, over, send));
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_was_slow_is_asked_and_stays() {
    let mut viewer = Viewer::joined(false, true).await;
    viewer.put(vec![b'x'; 3 * CHUNK]);
    tokio::time::sleep(LOOK * 3 / 2).await;
    for _ in 0..3 {
        assert_eq!(viewer.hear().await.len(), CHUNK + 1);
    }
    assert!(matches!(viewer.received.next().await, Some(Message::Ping(_))));
    viewer.send.try_send(Message::Pong(Bytes::new())).unwrap();
    let said = timeout(DEAD * 3, viewer.received.next()).await;
    assert!(said.is_err(), "asked once: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_others_depend_on_and_that_does_not_answer_is_gone() {
    let mut viewer = Viewer::joined(false, true).await;
    tokio::time::sleep(DEAD * 2).await;
    viewer.shared.lock().unwrap().others = true;
    for _ in 0..2 {
        assert!(matches!(viewer.received.next().await, Some(Message::Ping(_))));
    }
    viewer.send.try_send(Message::Pong(Bytes::new())).unwrap();
    let mut pings = 0;
    while let Some(message) = viewer.received.next().await {
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    assert_eq!(pings, 3, "asked until a question was open for a minute");
    viewer.ended.await.unwrap();
}
