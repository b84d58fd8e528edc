//! A subscriber that pieces together a session's events: history, live, and again after each cut, from the
//! last id that it was given.

use crate::http::Http;
use crate::wait::{DEADLINE, wait_for};
use bytes::Bytes;
use castra_proto::Event;
use http_body_util::BodyExt as _;
use hyper::Method;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A running subscription; it ends when this is dropped.
pub struct Events {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What came so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Each event with its id: what one would store.
    pub events: Vec<Event>,
    /// The `data` of `event: partial`.
    pub partials: Vec<serde_json::Value>,
    /// How often the stream was opened.
    pub connections: usize,
    /// `event: problem`.
    pub problems: Vec<String>,
}

impl Events {
    /// Follows `path` (`/api/v1/sessions/{id}/events`) behind `after`.
    pub(crate) fn follow(http: Http, path: String, after: u64) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let runtime = http.runtime.clone();
        let task = runtime.spawn(run(http, path, after, Arc::clone(&seen)));
        Self { seen, task }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    pub fn events(&self) -> Vec<Event> {
        self.seen().events.clone()
    }

    /// The first thing that `look` finds in what came so far.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        wait_for(what, || look(&self.seen()), DEADLINE)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(http: Http, path: String, after: u64, seen: Arc<Mutex<Seen>>) {
    let mut last = after;
    loop {
        let id = last.to_string();
        let headers = [("accept", "text/event-stream"), ("last-event-id", id.as_str())];
        if let Ok(response) = http.open(Method::GET, &path, &headers, Bytes::new()).await
            && response.status().is_success()
        {
            lock(&seen).connections += 1;
            let mut body = response.into_body();
            let mut parser = Parser::default();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                for message in parser.feed(&data) {
                    take(message, &mut last, &mut lock(&seen));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn take(message: Message, last: &mut u64, seen: &mut Seen) {
    match message.event.as_str() {
        "" => {
            let event: Event = serde_json::from_str(&message.data)
                .unwrap_or_else(|error| panic!("{error}: {}", message.data));
            *last = message.id.and_then(|id| id.parse().ok()).expect("an event has its seq as id");
            assert_eq!(*last, event.seq);
            seen.events.push(event);
        }
        "partial" => {
            assert_eq!(message.id, None, "partials have no id");
            seen.partials.push(serde_json::from_str(&message.data).expect("a partial"));
        }
        "problem" => seen.problems.push(message.data),
        other => panic!("unknown event {other}: {}", message.data),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    event: String,
    data: String,
}

/// The lines of the HTML standard, as far as castra sends them.
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    open: Message,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(bytes);
        let mut done = Vec::new();
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(self.rest[from..from + length].to_vec()).expect("UTF-8");
            from += length + 1;
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    let message = std::mem::take(&mut self.open);
                    done.extend((!message.data.is_empty()).then_some(message));
                }
                "id" => self.open.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.open.event),
                "data" if self.open.data.is_empty() => value.clone_into(&mut self.open.data),
                "data" => self.open.data.push_str(&format!("\n{value}")),
                // Comments and `retry`.
                _ => {}
            }
        }
        self.rest.drain(..from);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let stream =
            "retry: 1000\n: castra\n\nid: 7\ndata: {\"a\":1}\n\nevent: partial\ndata: x\ndata: y\n\n: c\n\n";
        let expected = [
            Message { id: Some("7".into()), event: String::new(), data: "{\"a\":1}".into() },
            Message { id: None, event: "partial".into(), data: "x\ny".into() },
        ];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let found: Vec<_> = stream.as_bytes().chunks(size).flat_map(|part| parser.feed(part)).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }
}
