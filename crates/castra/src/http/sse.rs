//! Server-sent events: framing, coalescing, keep-alives. Pulled by the connection, so there is no queue.
//!
//! A stalled reader stalls its own subscription and nothing else. All that a subscription returned goes out in
//! one write; only under sustained load a write waits a few milliseconds for company.

use super::refusal::{Answer, Refusal};
use super::standing::Lease;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use castra_proto::SessionId;
use castra_supervisor::{Frame, ServerSubscription, Subscription};
use serde::Deserialize;
use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Sent at once: a client sees that the stream is open, and comes back after a second when it breaks.
const OPENING: &[u8] = b"retry: 1000\n: castra\n\n";

/// What a stream is made of.
pub(super) trait Feed: Send + 'static {
    /// Appends the next frames to `out`; `None` at the end. Cancel safe.
    fn next(
        &mut self,
        out: &mut BytesMut,
    ) -> impl Future<Output = Option<castra_supervisor::Result<()>>> + Send;
    /// Whether the reader is at the head, where pacing may apply.
    fn is_caught_up(&self) -> bool;
}

impl Feed for Subscription {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        let mark = self.mark();
        Some(Subscription::next(self).await?.map(|frames| put_frames(out, &frames, mark.as_deref())))
    }

    fn is_caught_up(&self) -> bool {
        Subscription::is_caught_up(self)
    }
}

/// The server-wide sequence, as far as one caller may see it.
pub(super) struct ServerFeed {
    pub(super) events: ServerSubscription,
    pub(super) only: Option<SessionId>,
}

impl Feed for ServerFeed {
    async fn next(&mut self, out: &mut BytesMut) -> Option<castra_supervisor::Result<()>> {
        let mark = self.events.mark();
        Some(self.events.next().await?.map(|events| {
            for (seq, json) in
                events.iter().filter(|(_, json)| self.only.is_none_or(|only| concerns(json, only)))
            {
                put_event(out, *seq, mark.as_deref(), json);
            }
        }))
    }

    fn is_caught_up(&self) -> bool {
        true
    }
}

fn concerns(json: &[u8], session: SessionId) -> bool {
    #[derive(Deserialize)]
    struct Of {
        session_id: SessionId,
    }
    serde_json::from_slice::<Of>(json).is_ok_and(|of| of.session_id == session)
}

/// Frames as they go out: durable events with `id`, so that a reader can come back to them; partials without.
pub(super) fn put_frames(out: &mut BytesMut, frames: &[Frame], mark: Option<&str>) {
    let json = |frame: &Frame| match frame {
        Frame::Event(event) => event.json.len(),
        Frame::Partial(json) => json.len(),
    };
    out.reserve(frames.iter().map(|frame| json(frame) + 64).sum());
    for frame in frames {
        match frame {
            Frame::Event(event) => put_event(out, event.seq, mark, &event.json),
            Frame::Partial(json) => put_named(out, "partial", json),
        }
    }
}

pub(super) fn put_event(out: &mut BytesMut, seq: u64, mark: Option<&str>, json: &[u8]) {
    // Into memory; cannot fail.
    let _ = match mark {
        None => writeln!(out.writer(), "id: {seq}"),
        Some(mark) => writeln!(out.writer(), "id: {seq}.{mark}"),
    };
    put_data(out, json);
}

pub(super) fn put_named(out: &mut BytesMut, name: &str, json: &[u8]) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_u8(b'\n');
    put_data(out, json);
}

/// JSON in one line. claude's own lines are passed on as they are and may hold a CR between tokens, which would
/// end an SSE line: each then gets a `data:` of its own, and the reader sees a line feed there.
fn put_data(out: &mut BytesMut, json: &[u8]) {
    let mut from = 0;
    for end in memchr::memchr2_iter(b'\r', b'\n', json).chain([json.len()]) {
        out.put_slice(b"data: ");
        out.put_slice(&json[from..end]);
        out.put_u8(b'\n');
        from = end + 1;
    }
    out.put_u8(b'\n');
}

/// The answer that streams a feed until it ends, its reader leaves or its lease is over.
pub(super) fn respond(feed: impl Feed, lease: Lease) -> Answer {
    let stream = futures::stream::unfold(Stream::new(feed, lease), async |stream| {
        stream.step().await.map(|(bytes, stream)| (Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would hold events back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

struct Stream<F> {
    feed: F,
    lease: Lease,
    pace: Pace,
    buffer: BytesMut,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Opening,
    Open,
    Over,
}

impl<F: Feed> Stream<F> {
    fn new(feed: F, lease: Lease) -> Self {
        Self { feed, lease, pace: Pace::default(), buffer: BytesMut::new(), stage: Stage::Opening }
    }

    /// The next write.
    async fn step(mut self) -> Option<(Bytes, Self)> {
        match self.stage {
            Stage::Opening => {
                self.stage = Stage::Open;
                return Some((Bytes::from_static(OPENING), self));
            }
            Stage::Open => {}
            Stage::Over => return None,
        }
        if let Some(until) = self.pace.hold(self.feed.is_caught_up()) {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = self.lease.over() => return None,
            }
        }
        loop {
            let next = tokio::select! {
                biased;
                _ = self.lease.over() => return None,
                next = self.feed.next(&mut self.buffer) => next?,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    return Some((Bytes::from_static(b": keep-alive\n\n"), self));
                }
            };
            if let Err(error) = next {
                let refusal = Refusal::from(error);
                let problem = serde_json::to_vec(refusal.problem()).unwrap_or_default();
                put_named(&mut self.buffer, "problem", &problem);
                self.stage = Stage::Over;
            }
            if !self.buffer.is_empty() {
                self.pace.wrote(Instant::now());
                return Some((self.buffer.split().freeze(), self));
            }
        }
    }
}

/// When writes follow each other closely for a while, each waits for the tick: a wake-up and a write cost more
/// than the events in it (6 µs for each reader, facts/performance.md §3). A lone event never waits.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    close: u32,
}

impl Pace {
    const TICK: Duration = Duration::from_millis(8);
    /// Close writes in a row that make a load.
    const LOAD: u32 = 16;

    fn hold(&self, caught_up: bool) -> Option<Instant> {
        let loaded = caught_up && self.close >= Self::LOAD;
        self.last.filter(|_| loaded).map(|last| last + Self::TICK)
    }

    fn wrote(&mut self, now: Instant) {
        // A load is 250 writes a second, and is over when even ticks find nothing to send.
        let near = if self.close < Self::LOAD { Self::TICK / 2 } else { Self::TICK * 3 / 2 };
        let close = self.last.is_some_and(|last| now - last < near);
        self.close = if close { self.close + 1 } else { 0 };
        self.last = Some(now);
    }
}

#[cfg(test)]
#[path = "tests/sse.rs"]
mod tests;
