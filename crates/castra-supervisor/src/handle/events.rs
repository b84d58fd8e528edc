//! What a session said, one piece at a time: events as they are stored, and claude's own among them.

use crate::frame::{Frame, Subscription};
use crate::{Error, Result};
use castra_claude::message::{Message, Stdout};
use castra_proto::{ErrorCode, Event, Kind};
use std::collections::VecDeque;
use tokio::sync::watch;

/// A session's events, from [`Session::events`](super::Session::events). Reading slowly slows nobody else: nothing
/// is queued for it but the batch it has begun, about 1 MiB.
pub struct Events {
    subscription: Subscription,
    batch: VecDeque<Frame>,
    closing: watch::Receiver<bool>,
}

impl Events {
    pub(super) fn new(subscription: Subscription, closing: watch::Receiver<bool>) -> Self {
        Self { subscription, batch: VecDeque::new(), closing }
    }

    /// The next event, over all runs of the session; waits while there is none. `None` when the session was removed
    /// or the supervisor closed. Cancel safe.
    ///
    /// Errors: those of the store. Reading on is allowed.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            while let Some(frame) = self.batch.pop_front() {
                if let Frame::Event(frame) = frame {
                    let seq = frame.seq;
                    return Some(serde_json::from_slice(&frame.json).map_err(|error| {
                        Error::new(ErrorCode::Internal, format!("event {seq} cannot be read: {error}"))
                    }));
                }
            }
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return None,
                batch = self.subscription.next() => match batch? {
                    Ok(frames) => self.batch.extend(frames),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

/// What claude said, from [`Session::messages`](super::Session::messages).
pub struct Messages {
    events: Events,
}

impl Messages {
    pub(super) fn new(events: Events) -> Self {
        Self { events }
    }

    /// The next message, as [`Events::next`]. Turns are told apart by their result:
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/setup.in"));
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let home = tempfile::tempdir()?;
    /// # let supervisor = castra_supervisor::Supervisor::open(demo_config(home.path()).await?).await?;
    /// # let session = supervisor.start(demo_spec()).await?;
    /// let mut messages = session.messages(0).await?;
    /// session.send("think about doors").await?;
    /// let mut seen = Vec::new();
    /// while let Some(message) = messages.next().await.transpose()? {
    ///     let Some(view) = message.view() else { continue };
    ///     if view.is_assistant() {
    ///         seen.extend(view.texts().into_iter().map(str::to_owned));
    ///     }
    ///     if view.is_result() {
    ///         assert!(view.truly_succeeded());
    ///         break;
    ///     }
    /// }
    /// assert!(seen.concat().starts_with("I thought about it: doors"));
    /// # session.close().await?;
    /// # supervisor.close().await;
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<Result<Spoken>> {
        loop {
            match self.events.next().await? {
                Ok(event) if matches!(event.kind, Kind::Claude(_)) => return Some(Ok(Spoken { event })),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// One message of claude's, with its place in the session.
#[derive(Clone, Debug)]
pub struct Spoken {
    pub event: Event,
}

impl Spoken {
    /// The line as claude wrote it, byte for byte.
    pub fn line(&self) -> &str {
        self.event.data.get()
    }

    /// It, as its users ask about it: texts, tools, cost, whether it truly succeeded. `None`: the line is JSON, but
    /// no object.
    pub fn view(&self) -> Option<Message<'_>> {
        Message::parse(self.line().as_bytes())
    }

    /// Its typed form, to match on; what this version does not know is `Unknown`. `None`: no JSON object.
    pub fn typed(&self) -> Option<Stdout> {
        Stdout::parse(self.line().as_bytes())
    }
}
