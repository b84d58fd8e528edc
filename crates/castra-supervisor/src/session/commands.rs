//! Commands and messages: rows that the actor carries out, and what becomes of them.

use super::actor::Actor;
use super::deliver::{Choice, Now, choose};
use super::line::message_line;
use super::view::Effect;
use crate::Result;
use crate::engine::now;
use castra_claude::input;
use castra_proto::api::{IfBusy, MessageState, SendMessage};
use castra_proto::permission::PermissionAnswer;
use castra_proto::session::ExitCause;
use castra_proto::{CommandId, MessageId, OwnKind, RunState};
use castra_store::{
    Change, CommandRow, CommandState, MessageRow, MessageUpdate, NewMessage, RunUpdate, SeqAt,
};
use serde_json::{Map, Value, json};
use tracing::warn;
use uuid::Uuid;

/// Kinds of command rows.
pub(crate) const PERMISSION: &str = "permission";
pub(crate) const INTERRUPT: &str = "interrupt";
pub(crate) const CONTROL: &str = "control";
pub(crate) const STOP: &str = "stop";
pub(crate) const WITHDRAW: &str = "withdraw";
/// The result of a call of castra's own tools.
pub(crate) const TOOL_RESULT: &str = "tool_result";

/// What waits for claude, as the store has it.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Messages in the order of acceptance.
    pub waiting: Vec<MessageRow>,
    /// Commands that are not done.
    pub open: Vec<CommandRow>,
    /// Written on this connection and not yet seen in the log.
    writing: Vec<Uuid>,
    /// An interrupt was sent for a message in this turn.
    interrupting: bool,
}

impl Commands {
    pub(crate) fn is_writing(&self, id: Uuid) -> bool {
        self.writing.contains(&id)
    }
}

impl Actor<'_> {
    pub(crate) async fn load_commands(&mut self) -> Result<()> {
        let store = &self.engine.store;
        let queued = [MessageState::Queued];
        // A message waits for both: side by side, since each is a trip to a thread of SQLite's.
        let (waiting, open) =
            tokio::try_join!(store.messages(self.id, &queued), store.open_commands(self.id))?;
        self.commands.waiting = waiting;
        self.commands.open = open;
        if let Some(in_flight) = &self.view.in_flight {
            self.commands.waiting.retain(|message| message.id != in_flight.message);
        }
        Ok(())
    }

    /// A new connection: whatever was written on the last one is written again, and the shim drops doubles.
    pub(crate) async fn kick(&mut self) -> Result<()> {
        self.commands.writing.clear();
        self.commands.interrupting = false;
        self.stop_again().await?;
        if !self.view.ready && self.tty.is_none() {
            let line = self.initialize_line().await?;
            self.write(Uuid::new_v5(&self.run.id.0, b"initialize"), &line).await?;
        }
        self.act().await
    }

    /// Writes what may be written now: commands, then the next message.
    pub(crate) async fn pump(&mut self) -> Result<()> {
        if self.writer.is_none() || self.behind.is_some() || self.ending.is_some() {
            return Ok(());
        }
        for command in self.commands.open.clone() {
            if !self.commands.is_writing(command.id.0) && command.state == CommandState::Accepted {
                self.execute(&command).await?;
            }
        }
        let busy = self.view.busy();
        if !busy {
            self.commands.interrupting = false;
        }
        let state = Now {
            open: self.view.ready && self.view.stop.is_none(),
            busy,
            in_flight: self.view.in_flight.is_some()
                || self.commands.waiting.iter().any(|message| self.commands.is_writing(message.id.0)),
            interrupting: self.commands.interrupting,
            closed: self.tty.is_some(),
        };
        let waiting: Vec<_> =
            self.commands.waiting.iter().map(|message| (message.id, message.if_busy)).collect();
        match choose(state, &waiting) {
            Choice::Write(id) if self.tty.is_some() => self.tty_deliver(id).await?,
            Choice::Write(id) => self.deliver(id).await?,
            Choice::Interrupt => {
                self.commands.interrupting = true;
                let id = Uuid::new_v4();
                self.write(id, &self.interrupt_bytes(id)).await?;
            }
            Choice::Wait => {}
        }
        if !self.added.events.is_empty() {
            self.commit().await?;
        } else if !self.changes.is_empty() {
            self.touch();
        }
        Ok(())
    }

    async fn deliver(&mut self, id: MessageId) -> Result<()> {
        let Some(row) = self.commands.waiting.iter().find(|message| message.id == id) else { return Ok(()) };
        let line = match serde_json::from_str::<SendMessage>(&row.body) {
            Ok(body) => message_line(id, body),
            Err(error) => {
                warn!(session = %self.id, message = %id, %error, "a stored message cannot be read");
                return Ok(());
            }
        };
        crate::failpoint::failpoint!("write.before");
        self.write(id.0, &line).await?;
        crate::failpoint::failpoint!("write.after");
        Ok(())
    }

    pub(crate) async fn write(&mut self, id: Uuid, line: &[u8]) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write(id, line).await?;
            self.commands.writing.push(id);
        }
        Ok(())
    }

    async fn execute(&mut self, command: &CommandRow) -> Result<()> {
        if self.tty.is_some() && self.tty_execute(command).await? {
            return Ok(());
        }
        let request_id = command.id.to_string();
        match command.kind.as_str() {
            PERMISSION => {
                let pending = self
                    .view
                    .pending
                    .iter()
                    .find(|pending| Some(&pending.request_id) == command.subject.as_ref());
                let answer = serde_json::from_value::<PermissionAnswer>(command.args.clone());
                match (pending, answer) {
                    (Some(pending), Ok(answer)) => {
                        let line = self
                            .call_answered(&pending.request_id, &answer)
                            .unwrap_or_else(|| input::permission(pending, &answer));
                        self.write(command.id.0, &line).await?;
                        crate::failpoint::failpoint!("answer.written");
                    }
                    // claude took it back before the answer was written.
                    _ => self.command_done(command.id, CommandState::Superseded, None),
                }
            }
            INTERRUPT => self.write(command.id.0, &input::interrupt(&request_id)).await?,
            CONTROL => {
                let mut fields: Map<String, Value> = command.args.as_object().cloned().unwrap_or_default();
                let subtype = fields.remove("subtype");
                let subtype = subtype.as_ref().and_then(Value::as_str).unwrap_or_default();
                self.write(command.id.0, &input::control(&request_id, subtype, &fields)).await?;
            }
            TOOL_RESULT => {
                let subject = command.subject.as_deref().unwrap_or_default();
                match self.call_result(subject, &command.args) {
                    Some(line) => self.write(command.id.0, &line).await?,
                    // Of a run that is over: nobody waits for it.
                    None => self.command_done(command.id, CommandState::Superseded, None),
                }
            }
            STOP => self.begin_stop(ExitCause::Stopped).await?,
            WITHDRAW => self.withdraw(command).await?,
            other => {
                warn!(session = %self.id, kind = other, "no such command");
                self.command_done(command.id, CommandState::Superseded, None);
            }
        }
        Ok(())
    }

    async fn withdraw(&mut self, command: &CommandRow) -> Result<()> {
        let message = command.subject.as_deref().and_then(|id| id.parse::<MessageId>().ok());
        let Some(message) = message else {
            self.command_done(command.id, CommandState::Superseded, None);
            return Ok(());
        };
        let inside = self.view.in_flight.as_ref().is_some_and(|in_flight| in_flight.message == message);
        if inside || self.commands.is_writing(message.0) {
            let line = input::cancel_async_message(&command.id.to_string(), message.0);
            return self.write(command.id.0, &line).await;
        }
        let waits = self.commands.waiting.iter().any(|waiting| waiting.id == message);
        if waits {
            self.withdrawn(message);
        }
        self.command_done(command.id, CommandState::Done, Some(json!({"withdrawn": waits})));
        Ok(())
    }

    fn withdrawn(&mut self, message: MessageId) {
        self.commands.waiting.retain(|waiting| waiting.id != message);
        self.view.in_flight.take_if(|in_flight| in_flight.message == message);
        self.change_message(MessageUpdate {
            state: Some(MessageState::Withdrawn),
            ..MessageUpdate::new(message)
        });
        let event = self.view.event(now(), OwnKind::Queued, &json!({"withdrawn": message}));
        self.added.events.push(event);
    }

    pub(crate) fn command_done(&mut self, id: CommandId, state: CommandState, result: Option<Value>) {
        self.commands.open.retain(|open| open.id != id);
        self.changes.push(Change::Command { id, state, result });
    }

    /// The shim's log says that this input is journalled: claude will read it, whatever happens here.
    pub(crate) fn input_journalled(&mut self, id: Uuid) {
        self.commands.writing.retain(|writing| *writing != id);
        self.owed_journalled(id);
        let message = MessageId(id);
        if self.commands.waiting.iter().any(|waiting| waiting.id == message) {
            if let Some(at) = self.commands.waiting.iter().position(|waiting| waiting.id == message) {
                let row = self.commands.waiting.remove(at);
                self.entered(message, &row.body);
            }
            self.view.in_flight = Some(super::view::InFlight { message, turn_began: false });
            self.change_message(MessageUpdate {
                state: Some(MessageState::Written),
                run: Some(self.run.n),
                ..MessageUpdate::new(message)
            });
            return;
        }
        let Some(command) = self.commands.open.iter_mut().find(|open| open.id.0 == id) else { return };
        if command.kind == PERMISSION {
            let (id, subject) = (command.id, command.subject.clone().unwrap_or_default());
            let at = now();
            let asked = self.view.pending.iter().find(|pending| pending.request_id == subject);
            if let (Some(asked), Ok(answer)) = (asked, serde_json::from_value(command.args.clone())) {
                let set = castra_claude::permission::granted(asked, &answer);
                for update in set {
                    if !self.view.remembered.contains(&update) {
                        self.view.remembered.push(update);
                    }
                }
            }
            self.view.settle(&subject, at, &mut self.added);
            self.call_is_over(&subject);
            self.command_done(id, CommandState::Done, None);
        } else if command.kind == TOOL_RESULT {
            let (id, subject) = (command.id, command.subject.clone().unwrap_or_default());
            self.call_is_over(&subject);
            self.command_done(id, CommandState::Done, None);
        } else {
            command.state = CommandState::Written;
        }
    }

    /// The shim has no room now: written again with the next change.
    pub(crate) fn write_later(&mut self, id: Uuid) {
        self.commands.writing.retain(|writing| *writing != id);
        self.deadlines.retry();
    }

    /// claude will never take this: the message is given back.
    pub(crate) fn undeliverable(&mut self, id: Uuid, reason: castra_proto::shim::Reason) {
        warn!(session = %self.id, input = %id, ?reason, "an input cannot be written");
        self.commands.writing.retain(|writing| *writing != id);
        self.withdrawn(MessageId(id));
    }

    /// Before the commit: what the fold means for messages and commands becomes part of it.
    pub(crate) fn settle_effects(&mut self) {
        for effect in std::mem::take(&mut self.added.effects) {
            match effect {
                Effect::Delivered { message, turn, event } => {
                    self.change_message(MessageUpdate {
                        state: Some(MessageState::Delivered),
                        run: Some(self.run.n),
                        turn: Some(turn),
                        delivered: Some(SeqAt::Event(event)),
                        ..MessageUpdate::new(message)
                    });
                }
                Effect::Answered { message, result, event } => {
                    self.message_result(message, MessageState::Answered, Some(&*result), event);
                }
                Effect::Interrupted { message, result, event } => {
                    self.message_result(message, MessageState::Interrupted, result.as_deref(), event);
                }
                Effect::Ready(response) => self.became_ready(response),
                Effect::InitFailed(reason) => {
                    warn!(session = %self.id, reason, "claude refused initialize");
                    self.deadlines.start_now();
                }
                Effect::Control { request_id, result } => self.control_answered(&request_id, result),
                Effect::Withdrawn { request_id } => {
                    let open = self.commands.open.iter().find(|open| {
                        open.kind == PERMISSION && open.subject.as_deref() == Some(request_id.as_str())
                    });
                    if let Some(id) = open.map(|open| open.id) {
                        self.command_done(id, CommandState::Superseded, None);
                    }
                }
                Effect::HostRequest { request_id, subtype, request } => {
                    self.host_request(request_id, subtype, &request);
                }
                Effect::Asked { .. } => {}
            }
        }
    }

    /// What a fold says of one message is one statement: delivered and answered often come together.
    pub(crate) fn change_message(&mut self, update: MessageUpdate) {
        let held = self.changes.iter_mut().find_map(|change| match change {
            Change::Message(held)
                if held.id == update.id && held.from.is_empty() && update.from.is_empty() =>
            {
                Some(held)
            }
            _ => None,
        });
        let Some(held) = held else { return self.changes.push(Change::Message(update)) };
        held.state = update.state.or(held.state);
        held.run = update.run.or(held.run);
        held.turn = update.turn.or(held.turn);
        held.delivered = update.delivered.or(held.delivered);
        held.result = update.result.or(held.result.take());
        held.result_at = update.result_at.or(held.result_at);
    }

    fn message_result(
        &mut self,
        message: MessageId,
        state: MessageState,
        result: Option<&castra_proto::api::TurnResult>,
        event: Option<usize>,
    ) {
        self.change_message(MessageUpdate {
            state: Some(state),
            result: result.map(|result| json!(result)),
            result_at: event.map(SeqAt::Event),
            ..MessageUpdate::new(message)
        });
    }

    fn became_ready(&mut self, response: Value) {
        self.permit = None;
        self.deadlines.started();
        if let Some(meta) = self.run.meta.as_object_mut() {
            meta.insert("initialize".into(), response);
        }
        self.changes.push(Change::Run(RunUpdate {
            n: self.run.n,
            meta: Some(self.run.meta.clone()),
            ..RunUpdate::default()
        }));
    }

    pub(crate) fn control_answered(&mut self, request_id: &str, result: Result<Value, String>) {
        let Some(command) = self.commands.open.iter().find(|open| open.id.to_string() == request_id).cloned()
        else {
            return;
        };
        if let Ok(response) = &result {
            self.obeyed(&command, response);
        }
        let result = match result {
            Ok(response) => json!({"ok": true, "response": response}),
            Err(error) => json!({"ok": false, "error": error}),
        };
        self.command_done(command.id, CommandState::Done, Some(result));
    }

    /// A control request worked: what it changed is shown.
    fn obeyed(&mut self, command: &CommandRow, response: &Value) {
        let text = |name: &str| command.args.get(name).and_then(Value::as_str).map(str::to_owned);
        match (command.kind.as_str(), text("subtype").as_deref()) {
            (WITHDRAW, _) => {
                let message = command.subject.as_deref().and_then(|id| id.parse::<MessageId>().ok());
                if let (Some(message), Some(true)) =
                    (message, response.get("cancelled").and_then(Value::as_bool))
                {
                    self.withdrawn(message);
                }
            }
            (_, Some("set_model")) => self.view.model = text("model").or(self.view.model.take()),
            (_, Some("set_permission_mode")) => self.view.permission_mode = text("mode"),
            (_, Some("apply_flag_settings")) => {
                let effort = command.args.pointer("/settings/effortLevel").and_then(Value::as_str);
                self.view.effort = effort.map(str::to_owned).or(self.view.effort.take());
            }
            _ => {}
        }
        self.added.changed = true;
    }

    /// After the commit: what only castra can say, then whatever may go next.
    pub(crate) async fn act(&mut self) -> Result<()> {
        if self.behind.is_some() {
            return Ok(());
        }
        self.write_owed().await?;
        if self.view.carry_on && self.view.ready && self.view.state == RunState::Idle {
            crate::failpoint::failpoint!("carry_on.before");
            self.view.carry_on = false;
            self.say("Continue from where you left off.", "carry on").await?;
            crate::failpoint::failpoint!("carry_on.after");
        }
        self.pump().await
    }

    /// Queues a message of castra's own, before those that wait for the turn's end, in one
    /// transaction with what led to it; with the same `key` once in a run, however often a daemon dies over it.
    pub(crate) async fn say(&mut self, text: &str, key: &str) -> Result<()> {
        let id = MessageId(Uuid::new_v5(&self.run.id.0, key.as_bytes()));
        if self.engine.store.message(self.id, id).await?.is_some() {
            return self.load_commands().await;
        }
        let body = SendMessage { text: Some(text.into()), ..SendMessage::default() };
        let accepted = SeqAt::Event(self.added.events.len());
        let event = self.view.event(
            now(),
            OwnKind::InputAccepted,
            &json!({"message_id": id, "text": text, "if_busy": IfBusy::Steer, "by": "castra"}),
        );
        self.added.events.push(event);
        self.changes.push(Change::AddMessage(NewMessage {
            id,
            body: serde_json::to_string(&body).unwrap_or_default(),
            if_busy: IfBusy::Steer,
            priority: None,
            accepted,
        }));
        self.commit().await?;
        self.load_commands().await
    }
}
