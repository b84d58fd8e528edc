//! What subscribers receive: events as committed, encoded once; partials as state.

use crate::session::hub::{Head, Hub, Hubs, block_kind};
use crate::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use castra_claude::open::OpenMessage;
use castra_proto::{ErrorCode, Kind, SessionId, Timestamp};
use castra_store::{Store, StoredEvent};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes of frames that one `next` returns, about.
const BATCH_BYTES: usize = 1 << 20;
/// Events that one read of the store returns at most.
const BATCH_EVENTS: u32 = 4096;

/// A committed event, encoded as the JSON of `castra_proto::Event`.
#[derive(Debug)]
pub struct EventFrame {
    pub seq: u64,
    pub kind: Kind,
    pub json: Bytes,
}

#[derive(Clone, Debug)]
pub enum Frame {
    Event(Arc<EventFrame>),
    /// `{message, block, kind, offset, text}`: text from `offset` (bytes) of an open message's block.
    Partial(Bytes),
}

/// Bytes in pieces; the producer waits when it is not read.
pub type ByteStream = tokio::sync::mpsc::Receiver<Result<Bytes>>;

/// Puts an event's JSON together around its own bytes.
#[allow(clippy::too_many_arguments)] // One call per field of the wire type.
pub(crate) fn encode(
    seq: u64,
    session: SessionId,
    at: Timestamp,
    run: u32,
    turn: u32,
    kind: &Kind,
    data: &[u8],
    raw: Option<&[u8]>,
) -> EventFrame {
    let mut out = BytesMut::with_capacity(data.len() + raw.map_or(0, |raw| raw.len() * 4 / 3 + 12) + 192);
    // Writing into memory does not fail.
    let _ = write!(
        out,
        r#"{{"seq":{seq},"at":"{at}","session_id":"{session}","run":{run},"turn":{turn},"kind":{},"data":"#,
        json!(kind.as_str())
    );
    out.put_slice(data);
    if let Some(raw) = raw {
        let _ = write!(out, r#","raw":"{}""#, base64(raw));
    }
    out.put_u8(b'}');
    EventFrame { seq, kind: kind.clone(), json: out.freeze() }
}

pub(crate) fn encode_stored(session: SessionId, event: &StoredEvent) -> EventFrame {
    encode(
        event.seq,
        session,
        event.at,
        event.run,
        event.turn,
        &event.kind,
        &event.data,
        event.raw.as_deref(),
    )
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// History and live events of one session on one path.
///
/// It notes the head, reads what is after its own position, and waits: there is no gap between
/// history and live, and nothing is queued for it.
pub struct Subscription {
    hub: Arc<Hub>,
    store: Store,
    head: watch::Receiver<Head>,
    seq: u64,
    shown: Shown,
}

/// How much of the open message this subscriber has been sent.
#[derive(Default)]
struct Shown {
    generation: u64,
    /// Block index and bytes of its text.
    blocks: Vec<(u32, usize)>,
}

impl Subscription {
    pub(crate) fn new(hub: Arc<Hub>, store: Store, after: u64) -> Self {
        let mut head = hub.head.subscribe();
        head.mark_changed();
        Self { hub, store, head, seq: after, shown: Shown::default() }
    }

    /// The next frames, in order and without a gap, at most about 1 MiB; waits while there are none.
    /// `None` when the session was removed. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Vec<Frame>>> {
        loop {
            let head = *self.head.borrow_and_update();
            if head.removed {
                return None;
            }
            if head.seq > self.seq {
                return Some(self.read().await);
            }
            let partials = self.partials();
            if !partials.is_empty() {
                return Some(Ok(partials));
            }
            self.head.changed().await.ok()?;
        }
    }

    /// See [`crate::Supervisor::mark`].
    pub fn mark(&self) -> Option<String> {
        self.store.mark()
    }

    /// Everything committed up to the call has been returned.
    pub fn is_caught_up(&self) -> bool {
        self.head.borrow().seq <= self.seq
    }

    async fn read(&mut self) -> Result<Vec<Frame>> {
        let frames = match self.hub.tail_after(self.seq, BATCH_BYTES) {
            Some(frames) => frames,
            None => {
                let events = self.store.events(self.hub.id, self.seq, BATCH_EVENTS, BATCH_BYTES).await?;
                // Each row goes as its frame is made.
                events.into_iter().map(|event| Arc::new(encode_stored(self.hub.id, &event))).collect()
            }
        };
        match frames.last() {
            Some(last) => self.seq = last.seq,
            // The head says there is more and the store has none: the rows are gone.
            None => return Err(Error::new(ErrorCode::Gone, "the session's events are gone")),
        }
        Ok(frames.into_iter().map(Frame::Event).collect())
    }

    fn partials(&mut self) -> Vec<Frame> {
        let shown = &mut self.shown;
        self.hub.with_open(|open| shown.advance(open)).into_iter().map(Frame::Partial).collect()
    }
}

impl Shown {
    fn advance(&mut self, open: &OpenMessage) -> Vec<Bytes> {
        if self.generation != open.generation {
            self.generation = open.generation;
            self.blocks.clear();
        }
        let mut out = Vec::new();
        for block in &open.blocks {
            let position = match self.blocks.iter().position(|(index, _)| *index == block.index) {
                Some(position) => position,
                None => {
                    self.blocks.push((block.index, 0));
                    self.blocks.len() - 1
                }
            };
            let offset = &mut self.blocks[position].1;
            if let Some(text) = block.text.get(*offset..).filter(|text| !text.is_empty()) {
                let partial = json!({
                    "message": open.message_id,
                    "block": block.index,
                    "kind": block_kind(block.kind),
                    "offset": *offset,
                    "text": text,
                });
                out.push(Bytes::from(partial.to_string()));
                *offset = block.text.len();
            }
        }
        out
    }
}

/// The server-wide sequence (`GET /events`): JSON of `castra_proto::api::ServerEvent` with its seq.
pub struct ServerSubscription {
    store: Store,
    head: watch::Receiver<u64>,
    seq: u64,
}

impl ServerSubscription {
    pub(crate) fn new(hubs: &Hubs, store: Store, after: u64) -> Self {
        let mut head = hubs.server.subscribe();
        head.mark_changed();
        Self { store, head, seq: after }
    }

    /// See [`crate::Supervisor::mark`].
    pub fn mark(&self) -> Option<String> {
        self.store.mark()
    }

    /// The next entries, in order; waits while there are none. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Vec<(u64, Bytes)>>> {
        loop {
            if *self.head.borrow_and_update() > self.seq {
                let events = match self.store.server_events(self.seq, BATCH_EVENTS).await {
                    Ok(events) => events,
                    Err(error) => return Some(Err(error.into())),
                };
                if let Some(last) = events.last() {
                    self.seq = last.seq;
                    return Some(Ok(events
                        .iter()
                        .map(|event| (event.seq, Bytes::from(json!(event).to_string())))
                        .collect()));
                }
            }
            self.head.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_claude::open::{BlockKind, OpenBlock};
    use castra_proto::Event;

    #[test]
    fn an_encoded_event_is_the_wire_type_and_keeps_its_bytes() {
        let session = SessionId::now();
        let frame =
            encode(7, session, Timestamp(1), 2, 3, &Kind::parse("assistant"), b"{\"a\": 1.0}", Some(b"\xff"));
        let event: Event = serde_json::from_slice(&frame.json).unwrap();
        assert_eq!((event.seq, event.run, event.turn, event.data.get()), (7, 2, 3, "{\"a\": 1.0}"));
        assert_eq!(serde_json::to_string(&event).unwrap().as_bytes(), &frame.json[..]);
    }

    #[test]
    fn a_partial_is_sent_once_from_where_the_subscriber_is() {
        let block = |text: &str| OpenBlock { index: 0, kind: BlockKind::Text, text: text.into() };
        let mut open = OpenMessage { message_id: Some("m".into()), generation: 1, blocks: vec![block("he")] };
        let mut shown = Shown::default();
        let text = |frames: Vec<Bytes>| -> Vec<(u64, String)> {
            frames
                .iter()
                .map(|frame| {
                    let value: serde_json::Value = serde_json::from_slice(frame).unwrap();
                    (value["offset"].as_u64().unwrap(), value["text"].as_str().unwrap().to_owned())
                })
                .collect()
        };
        assert_eq!(text(shown.advance(&open)), [(0, "he".into())]);
        assert_eq!(text(shown.advance(&open)), []);
        open.blocks = vec![block("hello")];
        assert_eq!(text(shown.advance(&open)), [(2, "llo".into())]);
        open = OpenMessage { message_id: Some("n".into()), generation: 2, blocks: vec![block("x")] };
        assert_eq!(text(shown.advance(&open)), [(0, "x".into())]);
    }
}
