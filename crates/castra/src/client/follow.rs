//! Events of a session or a task, history and live, across reconnects: no event twice, none left out.

use super::{Call, Client, Error, SseFrame, SseParser, escape};
use castra_proto::task::TaskEvent;
use castra_proto::{ErrorCode, Event};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The daemon sends a comment every 15 s; three of them missing mean that nobody is there.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a stream is asked for again before that is reported as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stream's durable frames hold.
pub trait Numbered: DeserializeOwned {
    /// Its place in the stream.
    fn seq(&self) -> u64;
}

impl Numbered for Event {
    fn seq(&self) -> u64 {
        self.seq
    }
}

impl Numbered for TaskEvent {
    fn seq(&self) -> u64 {
        self.seq
    }
}

#[derive(Debug)]
pub enum Item<E = Event> {
    Event(Box<E>),
    Partial(Partial),
    /// The daemon went away and is back; nothing was missed.
    Reconnected,
}

/// Text of a message that is still being written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Partial {
    pub message: String,
    pub block: u64,
    /// `text` or `thinking`.
    #[serde(default)]
    pub kind: String,
    /// Bytes of the block before `text`.
    pub offset: u64,
    pub text: String,
}

/// Reads one event stream.
pub struct Follow<E = Event> {
    client: Client,
    path: String,
    /// Everything up to here has been returned.
    last: u64,
    /// The id of the newest event, as the stream gave it.
    cursor: Option<String>,
    body: Option<Incoming>,
    /// Kept here, not in the future of `next`: who calls that in a `select!` drops it many times a second,
    /// and must not begin the connection, or a daemon's start, anew each time.
    connecting: Option<BoxFuture<'static, Result<Incoming, Error>>>,
    /// When the daemon was last heard.
    heard: Instant,
    parser: SseParser,
    ready: VecDeque<Item<E>>,
    connected_before: bool,
}

impl Client {
    /// Events after `after`, for ever; `None` from `next` when the session was removed.
    pub fn follow(&self, session: &str, after: u64) -> Follow {
        Follow::new(self, format!("/api/v1/sessions/{}/events", escape(session)), after)
    }

    /// The same of a task.
    pub fn follow_task(&self, task: &str, after: u64) -> Follow<TaskEvent> {
        Follow::new(self, format!("/api/v1/tasks/{}/events", escape(task)), after)
    }
}

impl<E: Numbered> Follow<E> {
    fn new(client: &Client, path: String, after: u64) -> Self {
        Follow {
            client: client.clone(),
            path,
            last: after,
            cursor: None,
            body: None,
            connecting: None,
            heard: Instant::now(),
            parser: SseParser::default(),
            ready: VecDeque::new(),
            connected_before: false,
        }
    }

    /// The newest event that was read.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Cancel safe: what was read is kept.
    pub async fn next(&mut self) -> Result<Option<Item<E>>, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(body) = &mut self.body else {
                let connecting = self.connecting.get_or_insert_with(|| {
                    Box::pin(connect(self.client.clone(), self.path.clone(), self.last, self.cursor.clone()))
                });
                let connected = connecting.await;
                self.connecting = None;
                match connected {
                    Ok(body) => {
                        self.body = Some(body);
                        self.parser = SseParser::default();
                        self.heard = Instant::now();
                        if std::mem::replace(&mut self.connected_before, true) {
                            self.ready.push_back(Item::Reconnected);
                        }
                        continue;
                    }
                    Err(error) if gone(&error) && self.connected_before => return Ok(None),
                    Err(error) => return Err(error),
                }
            };
            let silent = tokio::time::Instant::from_std(self.heard + SILENCE);
            match tokio::time::timeout_at(silent, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    self.heard = Instant::now();
                    if let Some(bytes) = frame.data_ref() {
                        let frames = self.parser.push(bytes).map_err(|error| self.garbled(&error))?;
                        self.take(frames)?;
                    }
                }
                // Ended, broken or silent: the next connection continues behind `last`.
                Ok(None | Some(Err(_))) | Err(_) => self.body = None,
            }
        }
    }

    fn take(&mut self, frames: Vec<SseFrame>) -> Result<(), Error> {
        for frame in frames {
            match frame.event.as_deref() {
                None | Some("message") => {
                    let event: E =
                        serde_json::from_slice(&frame.data).map_err(|error| self.garbled(&error))?;
                    if event.seq() > self.last {
                        self.last = event.seq();
                        self.cursor = frame.id;
                        self.ready.push_back(Item::Event(Box::new(event)));
                    }
                }
                Some("partial") => {
                    let partial =
                        serde_json::from_slice(&frame.data).map_err(|error| self.garbled(&error))?;
                    self.ready.push_back(Item::Partial(partial));
                }
                // Ends the stream; the next connection is told the reason as an answer of its own.
                Some("problem") => {
                    return Err(super::api::refused(&frame.data, |detail| self.garbled(&detail)));
                }
                // A newer daemon may name further states; they are not events.
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn garbled(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Answer {
            target: self.client.target().to_string(),
            status: hyper::StatusCode::OK,
            detail: error.to_string(),
        }
    }
}

async fn connect(client: Client, path: String, last: u64, cursor: Option<String>) -> Result<Incoming, Error> {
    let began = Instant::now();
    loop {
        // A number that a person gave is of whatever stream there is; an id is of its own.
        let call = match &cursor {
            None => Call::get(format!("{path}?after={last}")),
            Some(cursor) => Call::get(&path).header(HeaderName::from_static("last-event-id"), cursor)?,
        };
        let call = call.accept("text/event-stream");
        match client.answer(call).await {
            Ok(response) => return Ok(response.into_body()),
            Err(error) if error.is_connection() && began.elapsed() < PATIENCE => {
                client.recover().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn gone(error: &Error) -> bool {
    error
        .problem()
        .is_some_and(|problem| matches!(problem.code, ErrorCode::SessionNotFound | ErrorCode::NotFound))
}
