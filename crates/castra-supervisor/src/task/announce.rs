//! What the server-wide sequence hears of a task: its states, and what its agent wants of a person. Pure.

use castra_proto::TaskSpec;
use castra_proto::task::TaskEventKind;
use castra_store::{NewServerEvent, NewTaskEvent};
use serde_json::{Value, json};

pub(crate) fn announced(spec: &TaskSpec, events: &[NewTaskEvent]) -> Vec<NewServerEvent> {
    let one = |event: &NewTaskEvent| {
        let kind = match event.kind {
            TaskEventKind::State if event.data["from"].is_null() => "task_created",
            TaskEventKind::State => "task_state",
            TaskEventKind::Attention => "task_attention",
            TaskEventKind::Browser => "task_browser",
            TaskEventKind::ClientMessage => "task_client_message",
            _ => return None,
        };
        let mut data = event.data.clone();
        if let (Value::Object(data), Some(client), true) =
            (&mut data, &spec.client_id, event.kind != TaskEventKind::State)
        {
            data.insert("client_id".into(), json!(client));
        }
        Some(NewServerEvent { kind: kind.into(), data })
    };
    events.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::Timestamp;
    use castra_proto::task::Level;

    #[test]
    fn states_and_what_needs_a_person_are_heard_of() {
        let event = |kind, data| NewTaskEvent {
            at: Timestamp(1),
            attempt: 1,
            kind,
            level: Level::Info,
            message: "m".into(),
            data,
        };
        let events = [
            event(TaskEventKind::State, json!({"from": null, "to": "queued"})),
            event(TaskEventKind::State, json!({"from": "queued", "to": "starting"})),
            event(TaskEventKind::Progress, json!({"percent": 1})),
            event(TaskEventKind::Browser, json!({"url": "http://x"})),
            event(TaskEventKind::Attention, json!({"reason": "r"})),
            event(TaskEventKind::ClientMessage, json!({"name": "n", "data": 1})),
            event(TaskEventKind::CallerMessage, json!({"name": "n", "data": 1})),
        ];
        let heard = |client: Option<&str>| -> Vec<(String, Value)> {
            let spec = TaskSpec { client_id: client.map(str::to_owned), ..TaskSpec::default() };
            announced(&spec, &events).into_iter().map(|event| (event.kind, event.data)).collect()
        };
        let states = [
            ("task_created".to_owned(), json!({"from": null, "to": "queued"})),
            ("task_state".to_owned(), json!({"from": "queued", "to": "starting"})),
        ];
        assert_eq!(heard(None)[..2], states);
        assert_eq!(heard(None)[2], ("task_browser".to_owned(), json!({"url": "http://x"})));
        assert_eq!(heard(Some("tab-1"))[..2], states);
        assert_eq!(
            heard(Some("tab-1"))[2..],
            [
                ("task_browser".to_owned(), json!({"url": "http://x", "client_id": "tab-1"})),
                ("task_attention".to_owned(), json!({"reason": "r", "client_id": "tab-1"})),
                ("task_client_message".to_owned(), json!({"name": "n", "data": 1, "client_id": "tab-1"})),
            ]
        );
    }
}
