//! One task, as an API client drives it.

use crate::http::{Http, Reply};
use crate::session::Session;
use crate::wait::{DEADLINE, wait_for};
use castra_proto::api::Page;
use castra_proto::task::{TaskEvent, TaskEventKind};
use castra_proto::{Task as Shown, TaskState};
use serde_json::{Value, json};

/// A handle; nothing is done to the task when it goes.
#[derive(Clone, Debug)]
pub struct Task {
    pub http: Http,
    pub id: String,
}

impl Task {
    #[track_caller]
    pub fn create(http: Http, spec: &Value) -> Self {
        let shown: Shown = http.post("/api/v1/tasks", spec).expect(201);
        Self::of(&http, shown.id)
    }

    /// One that is there; its name does as well.
    pub fn of(http: &Http, id: impl ToString) -> Self {
        Self { http: http.clone(), id: id.to_string() }
    }

    pub fn path(&self, below: &str) -> String {
        format!("/api/v1/tasks/{}{below}", self.id)
    }

    #[track_caller]
    pub fn show(&self) -> Shown {
        self.http.get(&self.path("")).expect(200)
    }

    /// Over, whatever came of it.
    #[track_caller]
    pub fn wait(&self) -> Shown {
        let path = self.path(&format!("?wait={}", DEADLINE.as_secs()));
        let shown: Shown = self.http.get(&path).expect(200);
        assert!(shown.state.is_final(), "the task is not over: {shown:?}\n{}", self.log().join("\n"));
        shown
    }

    #[track_caller]
    pub fn wait_state(&self, state: TaskState) -> Shown {
        wait_for(
            &format!("task {} to be {state}", self.id),
            || Some(self.show()).filter(|shown| shown.state == state),
            DEADLINE,
        )
    }

    pub fn act(&self, verb: &str) -> Reply {
        self.http.post(&self.path(&format!("/{verb}")), &Value::Null)
    }

    #[track_caller]
    pub fn cancel(&self) -> Shown {
        self.http.post(&self.path("/cancel"), &json!({"grace_s": 1})).expect(200)
    }

    /// The session of its newest attempt.
    #[track_caller]
    pub fn session(&self) -> Session {
        let id = wait_for("a session", || self.show().session_id, DEADLINE);
        Session::of(self.http.clone(), id.to_string())
    }

    #[track_caller]
    pub fn events(&self) -> Vec<TaskEvent> {
        let mut events: Vec<TaskEvent> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let page: Page<TaskEvent> =
                self.http.get(&self.path(&format!("/events?after={after}&limit=1000"))).expect(200);
            if page.items.is_empty() {
                return events;
            }
            events.extend(page.items);
        }
    }

    /// Messages of the events of one kind, in order.
    #[track_caller]
    pub fn said(&self, kind: TaskEventKind) -> Vec<String> {
        let events = self.events().into_iter();
        events.filter(|event| event.kind == kind).map(|event| event.message).collect()
    }

    /// Waits for an event of this kind; its message.
    #[track_caller]
    pub fn wait_said(&self, kind: TaskEventKind) -> String {
        wait_for(&format!("an event {kind}"), || self.said(kind).pop(), DEADLINE)
    }

    /// For failures: all that happened.
    pub fn log(&self) -> Vec<String> {
        let line =
            |event: TaskEvent| format!("{} {} {}: {}", event.seq, event.attempt, event.kind, event.message);
        self.events().into_iter().map(line).collect()
    }
}
