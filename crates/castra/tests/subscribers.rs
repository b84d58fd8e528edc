//! Whoever listens, listens badly or not at all: the session does not notice, the daemon does not grow, and nobody
//! is given a gap.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::{Message, MessageState};
use castra_testkit::{DEADLINE, Daemon, World, fake_claude, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = "[[rule]]\nreply.text = \"never asked\"\n";
/// For what moves a hundred megabytes on a machine that others use too.
const LONG: Duration = Duration::from_secs(300);

fn world() -> World {
    World::new(CASTRA, fake_claude(), SCRIPT)
}

fn token(world: &World) -> String {
    world.cli(["token", "create", "--scope", "read"]).ok().trim().to_owned()
}

/// A subscriber that reads when it is told to, and not before.
struct Viewer {
    socket: TcpStream,
    /// The start of a line whose end was not read yet.
    rest: Vec<u8>,
    seen: Vec<u64>,
}

impl Viewer {
    fn open(addr: SocketAddr, token: &str, path: &str) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // Of version 1.0, so that the body comes as it is, without chunks.
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        Self { socket, rest: Vec::new(), seen: Vec::new() }
    }

    fn last(&self) -> u64 {
        self.seen.last().copied().unwrap_or(0)
    }

    /// Reads until the event `seq` has begun, and then nothing more.
    fn read_to(&mut self, seq: u64) {
        let mut piece = vec![0; 1 << 16];
        while self.last() < seq {
            let read = self.socket.read(&mut piece).expect("the stream goes on");
            assert_ne!(read, 0, "the stream ended after {} events: {:?}", self.seen.len(), self.last());
            self.rest.extend_from_slice(&piece[..read]);
            let Some(end) = memchr::memrchr(b'\n', &self.rest) else { continue };
            let lines: Vec<u8> = self.rest.drain(..=end).collect();
            for line in lines.split(|byte| *byte == b'\n') {
                if let Some(id) = line.strip_prefix(b"id: ") {
                    self.seen.push(std::str::from_utf8(id).unwrap().parse().unwrap());
                }
            }
        }
    }
}

#[test]
fn viewers_that_stop_reading_cost_nothing_and_miss_nothing() {
    const SAID: u64 = 1600;
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("echo before"), "before");
    let token = token(&world);
    let open = || Viewer::open(daemon.addr(), &token, &session.path("/events"));
    let mut stalled: Vec<Viewer> = (0..4).map(|_| open()).collect();
    stalled.iter_mut().for_each(|viewer| viewer.read_to(3));

    // 100 MB, and nobody who reads any of it.
    let before = daemon.process().rss_kib();
    let message = session.send(&format!("flood {SAID} 64kB"));
    let path = session.path(&format!("/messages/{}", message.message_id));
    let mut most = 0;
    let over = || {
        most = most.max(daemon.process().rss_kib());
        session.http.get(&path).expect::<Message>(200).state == MessageState::Answered
    };
    wait_until("the end of a flood that nobody reads", over, LONG);
    let grown = most.saturating_sub(before) >> 10;
    assert!(grown < 80, "the daemon grew by {grown} MiB: it keeps what a stalled viewer does not read");

    let head = session.wait_idle().head_seq;
    assert!(head > SAID, "{head}");
    assert!(stalled.iter().all(|viewer| viewer.last() < head / 2), "nobody has read it yet");
    let whole: Vec<u64> = (1..=head).collect();
    let mut come_back = stalled.split_off(2);
    for viewer in &mut stalled {
        viewer.read_to(head);
        assert_eq!(viewer.seen, whole, "whoever reads on is given everything, once, in order");
    }
    for viewer in &mut come_back {
        let events = session.follow(viewer.last());
        viewer.socket.shutdown(std::net::Shutdown::Both).unwrap();
        events.until("what the viewer missed", |seen| (seen.events.last()?.seq == head).then_some(()));
        viewer.seen.extend(events.events().iter().map(|event| event.seq));
        assert_eq!(viewer.seen, whole, "whoever comes back goes on behind Last-Event-ID");
        let said: Vec<u64> = events
            .events()
            .iter()
            .filter(|event| event.kind.as_str() == "assistant")
            .filter_map(|event| {
                let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
                data["message"]["content"][0]["text"].as_str()?.split_once(':')?.0.parse().ok()
            })
            .collect();
        assert!(said.len() as u64 > SAID / 2, "{}", said.len());
        assert!(said.windows(2).all(|two| two[1] == two[0] + 1) && said.last() == Some(&(SAID - 1)));
    }
    assert_eq!(session.ask("echo after"), "after");
}

/// Soft limit of this process, which a daemon that it starts inherits.
fn limit_descriptors(soft: Option<u64>) -> Option<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: soft.or(maximum), maximum }).unwrap();
    maximum
}

/// A daemon that inherited few descriptors, and a test that has many.
fn frugal(world: &World) -> Daemon<'_> {
    limit_descriptors(Some(256));
    let daemon = world.daemon();
    let hard = limit_descriptors(None);
    assert!(
        hard.is_none_or(|hard| hard >= 4096),
        "this test needs 4096 descriptors; the hard limit is {hard:?}"
    );
    daemon
}

#[test]
fn a_thousand_subscribers_of_one_session_all_get_every_event() {
    let world = world();
    let daemon = frugal(&world);
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("echo before"), "before");
    let mut subscribers = Vec::new();
    for _ in 0..10 {
        let some: Vec<_> = (0..100).map(|_| session.follow(0)).collect();
        some.iter()
            .for_each(|one| one.until("a subscription", |seen| (!seen.events.is_empty()).then_some(())));
        subscribers.extend(some);
    }
    // Others are served beside them.
    assert_eq!(session.ask("flood 300 100"), "300 said");
    let head = session.wait_idle().head_seq;
    let whole: Vec<u64> = (1..=head).collect();
    let stored: Vec<String> = session.events().iter().map(|event| event.data.get().to_owned()).collect();
    assert_eq!(stored.len(), whole.len());
    for (n, one) in subscribers.iter().enumerate() {
        one.until("all events", |seen| (seen.events.last()?.seq >= head).then_some(()));
        let seen = one.seen();
        assert_eq!(seen.events.iter().map(|event| event.seq).collect::<Vec<_>>(), whole, "subscriber {n}");
        assert!(seen.events.iter().map(|event| event.data.get()).eq(&stored), "subscriber {n}");
        assert_eq!((seen.connections, seen.problems.len()), (1, 0), "subscriber {n} was never cut off");
    }
}
