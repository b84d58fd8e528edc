//! Messages of this terminal whose turn is still to come: as long as there are any, no line is asked for. Pure.

use castra_proto::{Event, MessageId, OwnKind};
use std::collections::HashSet;

#[derive(Debug, Default)]
pub(super) struct Awaited {
    waiting: HashSet<String>,
    delivered: HashSet<String>,
    /// A turn has run since the newest of them was accepted.
    ran: bool,
}

impl Awaited {
    /// `busy`: a turn runs, which the message may join.
    pub(super) fn accepted(&mut self, message: MessageId, busy: bool) {
        self.waiting.insert(message.to_string());
        self.ran = busy;
    }

    /// `busy`, `over`: the session after this event.
    pub(super) fn event(&mut self, event: &Event, busy: bool, over: bool) {
        if self.waiting.is_empty() {
            return;
        }
        if event.kind.is(OwnKind::InputDelivered)
            && let Ok(data) = serde_json::from_str::<serde_json::Value>(event.data.get())
            && let Some(id) = data["message_id"].as_str()
        {
            self.delivered.insert(id.to_owned());
        }
        self.ran |= busy;
        if over {
            self.waiting.clear();
        } else if self.ran && !busy {
            // claude may say that it has a message before it says that it runs, or when it is idle again.
            self.waiting.retain(|id| !self.delivered.contains(id));
        }
        if self.waiting.is_empty() {
            self.delivered.clear();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::{Kind, SessionId, Timestamp};
    use serde_json::{json, value::to_raw_value};

    fn event(kind: &str, message: MessageId) -> Event {
        Event {
            seq: 1,
            at: Timestamp(0),
            session_id: SessionId::now(),
            run: 1,
            turn: 1,
            kind: Kind::parse(kind),
            data: to_raw_value(&json!({"message_id": message})).unwrap(),
            raw: None,
        }
    }

    #[test]
    fn a_line_is_asked_for_when_the_turns_of_all_are_over() {
        const DELIVERED: &str = "input_delivered";
        // Busy when it was sent; then events, each with busy and over behind it; whether all is over then.
        type Case = (bool, &'static [(&'static str, bool, bool)], bool);
        let table: [Case; 9] = [
            (false, &[], false),
            (false, &[("state", true, false)], false),
            (false, &[("state", true, false), (DELIVERED, true, false)], false),
            (false, &[("state", true, false), (DELIVERED, true, false), ("state", false, false)], true),
            (false, &[(DELIVERED, false, false)], false),
            (false, &[(DELIVERED, false, false), ("state", true, false), ("state", false, false)], true),
            (false, &[("state", true, false), ("state", false, false), (DELIVERED, false, false)], true),
            // Queued behind a turn that ends without it.
            (true, &[("state", false, false)], false),
            (false, &[("state", false, true)], true),
        ];
        for (busy, events, expected) in table {
            let (mut awaited, message) = (Awaited::default(), MessageId::now());
            awaited.accepted(message, busy);
            for (kind, busy, over) in events {
                awaited.event(&event(kind, message), *busy, *over);
            }
            assert_eq!(awaited.is_empty(), expected, "{busy} {events:?}");
        }
    }

    #[test]
    fn messages_of_others_are_not_waited_for() {
        let (mut awaited, message) = (Awaited::default(), MessageId::now());
        awaited.event(&event("input_delivered", MessageId::now()), true, false);
        assert!(awaited.is_empty());
        awaited.accepted(message, false);
        awaited.event(&event("input_delivered", MessageId::now()), true, false);
        awaited.event(&event("state", message), false, false);
        assert!(!awaited.is_empty());
    }
}
