//! What subscribers receive: events as committed, encoded once; partials as state.

use crate::Result;
use bytes::Bytes;
use castra_proto::Kind;
use std::sync::Arc;

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

/// History and live events of one session on one path.
pub struct Subscription {}

impl Subscription {
    /// The next frames, in order and without a gap, at most about 1 MiB; waits while there are none.
    /// `None` when the session was removed. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Vec<Frame>>> {
        unimplemented!()
    }

    /// Everything committed up to the call has been returned.
    pub fn is_caught_up(&self) -> bool {
        unimplemented!()
    }
}

/// The server-wide sequence (`GET /events`): JSON of `castra_proto::api::ServerEvent` with its seq.
pub struct ServerSubscription {}

impl ServerSubscription {
    pub async fn next(&mut self) -> Option<Result<Vec<(u64, Bytes)>>> {
        unimplemented!()
    }
}
