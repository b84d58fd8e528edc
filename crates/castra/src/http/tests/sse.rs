//! What goes out on an event stream, and when.

use super::*;
use crate::http::standing::Standing;
use castra_proto::{ErrorCode, Kind};
use castra_supervisor::EventFrame;
use futures::StreamExt;
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::mpsc;

fn event(seq: u64, json: &str) -> Frame {
    Frame::Event(Arc::new(EventFrame {
        seq,
        kind: Kind::parse("assistant"),
        json: Bytes::copy_from_slice(json.as_bytes()),
    }))
}

type Batch = castra_supervisor::Result<Vec<Frame>>;

/// A subscription whose batches are sent by the test.
struct Sent(mpsc::Receiver<Batch>);

impl Feed for Sent {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        let mut batch = self.0.recv().await?;
        // Like a subscription: all that is there.
        while let (Ok(frames), Ok(more)) = (&mut batch, self.0.try_recv()) {
            match more {
                Ok(more) => frames.extend(more),
                Err(error) => batch = Err(error),
            }
        }
        Some(batch.map(|frames| put_frames(out, &frames, None)))
    }

    fn is_caught_up(&self) -> bool {
        true
    }
}

fn stream(standing: &Standing) -> (mpsc::Sender<Batch>, Body) {
    let (sender, receiver) = mpsc::channel(64);
    (sender, respond(Sent(receiver), standing.until_stop()).unwrap().into_body())
}

/// The next write, as text.
async fn write(body: &mut Body) -> Option<String> {
    let bytes = body.frame().await?.unwrap().into_data().unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn frames_are_framed() {
    let mut out = BytesMut::new();
    put_frames(
        &mut out,
        &[event(7, r#"{"a":1}"#), Frame::Partial(Bytes::from_static(br#"{"text":"x"}"#)), event(8, "{}")],
        None,
    );
    assert_eq!(
        out,
        "id: 7\ndata: {\"a\":1}\n\nevent: partial\ndata: {\"text\":\"x\"}\n\nid: 8\ndata: {}\n\n"
    );
}

#[test]
fn ids_of_a_restored_stream_bear_its_mark() {
    let mut out = BytesMut::new();
    put_frames(&mut out, &[event(7, "{}"), event(8, "{}")], Some("3f2a91c0"));
    assert_eq!(out, "id: 7.3f2a91c0\ndata: {}\n\nid: 8.3f2a91c0\ndata: {}\n\n");
}

#[test]
fn line_ends_between_tokens_do_not_break_an_event() {
    for (json, expected) in [
        ("{\"a\":1}\r", "id: 1\ndata: {\"a\":1}\ndata: \n\n"),
        ("{\r\"a\":\n1}", "id: 1\ndata: {\ndata: \"a\":\ndata: 1}\n\n"),
        ("{\"a\":\"\\r\\n\u{2028}\"}", "id: 1\ndata: {\"a\":\"\\r\\n\u{2028}\"}\n\n"),
    ] {
        let mut out = BytesMut::new();
        put_frames(&mut out, &[event(1, json)], None);
        assert_eq!(out, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_opens_at_once_coalesces_and_keeps_alive() {
    let standing = Standing::new();
    let (sender, mut body) = stream(&standing);
    assert_eq!(write(&mut body).await.unwrap(), "retry: 1000\n: castra\n\n");
    sender.try_send(Ok(vec![event(1, "1"), event(2, "2")])).unwrap();
    assert_eq!(write(&mut body).await.unwrap(), "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n");
    let quiet = Instant::now();
    assert_eq!(write(&mut body).await.unwrap(), ": keep-alive\n\n");
    assert_eq!(quiet.elapsed().as_secs(), 15);
    // A batch in which nothing was for this reader writes nothing.
    sender.try_send(Ok(vec![])).unwrap();
    sender.try_send(Ok(vec![event(3, "3")])).unwrap();
    assert_eq!(write(&mut body).await.unwrap(), "id: 3\ndata: 3\n\n");
    drop(sender);
    assert_eq!(write(&mut body).await, None);
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_says_why_and_ends() {
    let standing = Standing::new();
    let (sender, mut body) = stream(&standing);
    write(&mut body).await.unwrap();
    sender.try_send(Err(castra_supervisor::Error::new(ErrorCode::Gone, "another stream"))).unwrap();
    let last = write(&mut body).await.unwrap();
    let problem = last.strip_prefix("event: problem\ndata: ").unwrap();
    let problem: castra_proto::Problem = serde_json::from_str(problem).unwrap();
    assert_eq!((problem.code, problem.detail.as_str()), (ErrorCode::Gone, "another stream"));
    assert_eq!(write(&mut body).await, None);
}

#[tokio::test]
async fn a_stream_ends_with_its_lease() {
    let standing = Standing::new();
    let (_sender, mut body) = stream(&standing);
    write(&mut body).await.unwrap();
    standing.stop();
    assert_eq!(write(&mut body).await, None);
}

/// When each of `count` events, `gap` apart, is written after it came.
async fn delays(count: u64, gap: Duration) -> Vec<Duration> {
    let standing = Standing::new();
    let (sender, mut body) = stream(&standing);
    write(&mut body).await.unwrap();
    let start = Instant::now();
    tokio::spawn(async move {
        for seq in 0..count {
            tokio::time::sleep_until(start + gap * seq as u32).await;
            sender.send(Ok(vec![event(seq, "0")])).await.unwrap();
        }
    });
    let mut delays = Vec::new();
    while let Some(text) = write(&mut body).await {
        for line in text.lines().filter_map(|line| line.strip_prefix("id: ")) {
            let came = start + gap * line.parse::<u32>().unwrap();
            delays.push(came.elapsed());
        }
    }
    delays
}

#[tokio::test(start_paused = true)]
async fn lone_events_never_wait_and_under_load_none_waits_long() {
    let calm = delays(100, Duration::from_millis(10)).await;
    assert_eq!(calm, vec![Duration::ZERO; 100]);
    let load = delays(1000, Duration::from_millis(1)).await;
    assert_eq!(load.len(), 1000);
    assert!(load[..16].iter().all(Duration::is_zero), "{:?}", &load[..20]);
    assert!(load.iter().any(|delay| !delay.is_zero()), "the load was never paced");
    assert!(load.iter().all(|delay| *delay <= 2 * Pace::TICK), "{:?}", load.iter().max());
}

#[test]
fn history_is_never_held_back() {
    let mut pace = Pace::default();
    let mut now = Instant::now();
    for _ in 0..100 {
        pace.wrote(now);
        now += Duration::from_micros(100);
    }
    assert_eq!(pace.hold(false), None);
    assert!(pace.hold(true).is_some());
    pace.wrote(now + Duration::from_secs(1));
    assert_eq!(pace.hold(true), None, "the load is over");
}

/// The same frames for ever, as fast as they are taken: what a subscription gives from its tail.
struct Flood {
    frames: Vec<Frame>,
    batches: u32,
}

impl Feed for Flood {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        self.batches = self.batches.checked_sub(1)?;
        put_frames(out, &self.frames, None);
        Some(Ok(()))
    }

    fn is_caught_up(&self) -> bool {
        false
    }
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p castra --lib -- --ignored --nocapture sse"]
async fn what_a_delivered_message_costs() {
    const VIEWERS: u32 = 100;
    let json = format!("{{\"seq\":1,\"data\":\"{}\"}}", "x".repeat(400));
    for (size, batches) in [(1_usize, 20_000_u32), (16, 2_000), (256, 200)] {
        let frames: Vec<_> = (0..size as u64).map(|seq| event(seq, &json)).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reader = std::thread::spawn(move || {
            let readers: Vec<_> =
                (0..VIEWERS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let threads: Vec<_> = readers
                .into_iter()
                .map(|mut stream| {
                    std::thread::spawn(move || {
                        use std::io::Read;
                        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                        let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
                        loop {
                            match stream.read(&mut buffer).unwrap() {
                                0 => return total,
                                read => total += read,
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let before = cpu();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let standing = Standing::new();
        let mut viewers = futures::stream::FuturesUnordered::new();
        for _ in 0..VIEWERS {
            let (socket, _) = listener.accept().await.unwrap();
            let (frames, standing) = (frames.clone(), standing.clone());
            let service = hyper::service::service_fn(move |_| {
                let feed = Flood { frames: frames.clone(), batches };
                let answer = respond(feed, standing.until_stop());
                async move { answer.map_err(|_| std::io::Error::other("refused")) }
            });
            let io = hyper_util::rt::TokioIo::new(socket);
            viewers
                .push(tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service)));
        }
        while viewers.next().await.is_some() {}
        let spent = cpu();
        let nanos = (spent.tv_sec - before.tv_sec) * 1_000_000_000 + spent.tv_nsec - before.tv_nsec;
        let delivered = u64::from(VIEWERS) * u64::from(batches) * size as u64;
        let bytes = reader.join().unwrap();
        println!(
            "batches of {size}: {:.3} µs a message, {delivered} messages, {bytes} bytes",
            nanos as f64 / delivered as f64 / 1e3
        );
    }
}
