//! The turn in the fold: its messages, from delivery to answer, and its result.

use super::{Added, Effect, InFlight, View};
use castra_claude::fact::ResultFact;
use castra_proto::api::TurnResult;
use castra_proto::{ErrorCode, MessageId, OwnKind, Problem, Timestamp};
use serde_json::{Value, json};

impl View {
    pub(super) fn begin_turn(&mut self, at: Timestamp) {
        // claude says `running` again after each permission; only the first begins a turn.
        if self.busy() && self.turn.result.is_none() {
            return;
        }
        self.turn.n += 1;
        self.turn.started_at = Some(at);
        self.turn.ended_at = None;
        self.turn.result = None;
        self.turn.acted = false;
        self.nudged = 0;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.turn_began = true;
        }
    }

    pub(super) fn delivered(&mut self, message: MessageId, at: Timestamp, added: &mut Added) {
        if self.in_flight.as_ref().is_some_and(|in_flight| in_flight.message == message) {
            self.in_flight = None;
            self.turn.acted = false;
            self.turn.messages.push(message);
            self.say_delivered(message, at, added);
        }
    }

    fn say_delivered(&mut self, message: MessageId, at: Timestamp, added: &mut Added) {
        let event = added.events.len();
        added.events.push(self.event(at, OwnKind::InputDelivered, &json!({"message_id": message})));
        added.effects.push(Effect::Delivered { message, turn: self.turn.n, event });
    }

    /// claude calls a message completed and no turn ran for it: it was in the conversation already,
    /// and nobody will answer it (facts/shim.md §6).
    pub(super) fn orphaned(&mut self, message: MessageId, at: Timestamp, added: &mut Added) {
        self.delivered(message, at, added);
        if self.turn.messages.contains(&message) && self.turn.result.is_none() {
            self.turn.messages.retain(|other| *other != message);
            self.interrupted(message, None, None, at, added);
        }
    }

    /// Says that a delivered message will not be answered.
    pub(crate) fn interrupted(
        &self,
        message: MessageId,
        result: Option<Box<TurnResult>>,
        event: Option<usize>,
        at: Timestamp,
        added: &mut Added,
    ) {
        added.events.push(self.event(
            at,
            OwnKind::InputDelivered,
            &json!({"message_id": message, "outcome": "interrupted"}),
        ));
        added.effects.push(Effect::Interrupted { message, result, event });
    }

    pub(super) fn result(&mut self, fact: ResultFact, at: Timestamp, added: &mut Added) {
        self.results += 1;
        // claude's figure is the process's so far; a turn's is what it adds.
        let so_far = fact.estimated_cost_usd.map_or(fact.cost_usd, |turn| self.cost_run + turn);
        let turn_cost = (so_far - self.cost_run).max(0.0);
        self.cost_run = self.cost_run.max(so_far);
        add_usage(&mut self.usage, &fact.usage);
        self.tools_open.clear();
        self.turn.ended_at = Some(at);
        let cut_off = fact.terminal_reason.as_deref().is_some_and(|reason| reason.starts_with("aborted"));
        if let Some(limit) = limit_of(&fact.subtype) {
            added.events.push(self.event(
                at,
                OwnKind::Limit,
                &json!({"limit": limit, "detail": fact.errors}),
            ));
        }
        let event = added.events.iter().rposition(|event| event.kind.as_str() == "result");
        let result = Box::new(TurnResult { cost_usd: turn_cost, ..turn_result(fact) });
        for message in std::mem::take(&mut self.turn.messages) {
            if cut_off {
                self.interrupted(message, Some(result.clone()), event, at, added);
            } else {
                added.effects.push(Effect::Answered { message, result: result.clone(), event });
            }
        }
        self.turn.result = Some(*result);
    }

    /// claude is idle. A message that it never repeated, but after which a turn ran, was that turn's:
    /// the CLI does not replay what it handles by itself.
    pub(super) fn turn_over(&mut self, at: Timestamp, added: &mut Added) {
        self.turn.ended_at.get_or_insert(at);
        let command = self.terminal.command.as_ref().map(|open| open.message);
        let is_over = |in_flight: &mut InFlight| in_flight.turn_began && Some(in_flight.message) != command;
        let Some(in_flight) = self.in_flight.take_if(is_over) else { return };
        let message = in_flight.message;
        self.say_delivered(message, at, added);
        match self.turn.result.clone() {
            Some(result) => {
                let event = added.events.iter().rposition(|event| event.kind.as_str() == "result");
                added.effects.push(Effect::Answered { message, result: Box::new(result), event });
            }
            None => self.interrupted(message, None, None, at, added),
        }
    }
}

fn limit_of(subtype: &str) -> Option<&'static str> {
    match subtype {
        "error_max_turns" => Some("max_turns"),
        "error_max_budget_usd" => Some("max_budget_usd"),
        _ => None,
    }
}

/// Adds claude's token counts, number by number, into the session's.
fn add_usage(total: &mut Value, turn: &Value) {
    let Some(turn) = turn.as_object() else { return };
    if !total.is_object() {
        *total = json!({});
    }
    let Some(total) = total.as_object_mut() else { return };
    for (name, value) in turn {
        if let Some(count) = value.as_u64() {
            let sum = total.get(name).and_then(Value::as_u64).unwrap_or(0) + count;
            total.insert(name.clone(), sum.into());
        }
    }
}

fn turn_result(fact: ResultFact) -> TurnResult {
    let text = match fact.text {
        Some(text) if !text.is_empty() => text,
        _ => fact.errors.join("\n"),
    };
    let error = (!fact.ok).then(|| {
        let code = match (fact.subtype.as_str(), fact.api_error_status) {
            ("error_max_turns", _) => ErrorCode::MaxTurns,
            ("error_max_budget_usd", _) => ErrorCode::BudgetExceeded,
            (_, Some(401 | 403)) => ErrorCode::AuthFailed,
            (_, Some(429)) => ErrorCode::RateLimited,
            (_, Some(529 | 503)) => ErrorCode::Overloaded,
            (_, Some(413)) => ErrorCode::TooLarge,
            _ if text.starts_with("Not logged in") => ErrorCode::AuthFailed,
            (_, Some(_)) => ErrorCode::ApiError,
            // Without a status: no answer came, or it broke off.
            _ if fact.is_error && text.starts_with("API Error") => ErrorCode::ApiError,
            _ => ErrorCode::TurnFailed,
        };
        Problem::new(code, if text.is_empty() { fact.subtype.clone() } else { text.clone() })
    });
    TurnResult {
        seq: 0,
        ok: fact.ok,
        subtype: fact.subtype,
        text,
        structured_output: fact.structured_output,
        error,
        cost_usd: fact.cost_usd,
        duration_s: fact.duration_ms as f64 / 1000.0,
        num_turns: fact.num_turns,
        usage: fact.usage,
    }
}
