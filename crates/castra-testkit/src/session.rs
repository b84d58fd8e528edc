//! One session, as an API client drives it.

use crate::events::Events;
use crate::http::{Http, Reply};
use crate::wait::{DEADLINE, wait_for};
use castra_proto::api::{Message, MessageAccepted, MessageState, Page};
use castra_proto::permission::PermissionRequest;
use castra_proto::{Event, RunState, Session as Shown};
use serde_json::{Value, json};

/// A handle; nothing is done to the session when it goes.
#[derive(Clone, Debug)]
pub struct Session {
    pub http: Http,
    pub id: String,
}

impl Session {
    #[track_caller]
    pub fn create(http: Http, spec: &Value) -> Self {
        let shown: Shown = http.post("/api/v1/sessions", spec).expect(201);
        Self { http, id: shown.id.to_string() }
    }

    /// One that exists.
    pub fn of(http: Http, id: impl Into<String>) -> Self {
        Self { http, id: id.into() }
    }

    pub fn path(&self, below: &str) -> String {
        format!("/api/v1/sessions/{}{below}", self.id)
    }

    #[track_caller]
    pub fn show(&self) -> Shown {
        self.http.get(&self.path("")).expect(200)
    }

    /// Accepted and on disk.
    #[track_caller]
    pub fn send(&self, text: &str) -> MessageAccepted {
        self.http.post(&self.path("/messages"), &json!({ "text": text })).expect(202)
    }

    pub fn try_send(&self, body: &Value) -> Reply {
        self.http.post(&self.path("/messages"), body)
    }

    /// What became of a message, when its turn is over.
    #[track_caller]
    pub fn answer_to(&self, message: &MessageAccepted) -> Message {
        let path = self.path(&format!("/messages/{}?wait={}", message.message_id, DEADLINE.as_secs()));
        self.http.get(&path).expect(200)
    }

    /// Says it and returns the text of the turn's result, which must be a success.
    #[track_caller]
    pub fn ask(&self, text: &str) -> String {
        let message = self.answer_to(&self.send(text));
        assert_eq!(message.state, MessageState::Answered, "{message:?}");
        let result = message.result.unwrap_or_else(|| panic!("{text}: answered without a result"));
        assert!(result.ok, "{result:?}");
        result.text
    }

    #[track_caller]
    pub fn act(&self, verb: &str) -> Shown {
        self.http.post(&self.path(&format!("/{verb}")), &Value::Null).expect(200)
    }

    #[track_caller]
    pub fn wait_state(&self, state: RunState) -> Shown {
        wait_for(
            &format!("session {} to be {state}", self.id),
            || Some(self.show()).filter(|shown| shown.state == state),
            DEADLINE,
        )
    }

    /// Idle, with nothing queued.
    #[track_caller]
    pub fn wait_idle(&self) -> Shown {
        wait_for(
            &format!("session {} to have nothing left to do", self.id),
            || Some(self.show()).filter(|shown| shown.state == RunState::Idle && shown.queued == 0),
            DEADLINE,
        )
    }

    #[track_caller]
    pub fn wait_permission(&self) -> PermissionRequest {
        wait_for(
            "a permission request",
            || {
                let page: Page<PermissionRequest> = self.http.get(&self.path("/permissions")).expect(200);
                page.items.into_iter().next()
            },
            DEADLINE,
        )
    }

    pub fn answer(&self, request: &PermissionRequest, answer: &Value) -> Reply {
        self.http.post(&self.path(&format!("/permissions/{}", request.request_id)), answer)
    }

    /// All events that are stored now.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let page: Page<Event> =
                self.http.get(&self.path(&format!("/events?after={after}&limit=1000"))).expect(200);
            if page.items.is_empty() {
                return events;
            }
            events.extend(page.items);
        }
    }

    #[track_caller]
    pub fn events_of(&self, kind: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.kind.as_str() == kind).collect()
    }

    /// The stored events, when `look` finds something in them.
    #[track_caller]
    pub fn wait_events<T>(&self, what: &str, mut look: impl FnMut(&[Event]) -> Option<T>) -> T {
        wait_for(what, || look(&self.events()), DEADLINE)
    }

    /// Subscribes to what comes behind `after`.
    pub fn follow(&self, after: u64) -> Events {
        Events::follow(self.http.clone(), self.path("/events"), after)
    }
}
