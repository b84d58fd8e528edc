//! Messages: accepted on disk, waited for, withdrawn.

use super::start::hash;
use super::{Caller, Supervisor};
use crate::engine::{json_text, now};
use crate::session::commands::WITHDRAW;
use crate::session::tty::typed;
use crate::{Error, Result, shown};
use castra_claude::terminal::typing::type_command;
use castra_proto::api::{IfBusy, Message, MessageAccepted, MessageState, SendMessage, TurnResult};
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, MessageId, OwnKind, SessionId};
use castra_store::{Change, Commit, Guard, Idempotency, MessageRow, NewMessage, SeqAt};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// The longest message; the shim's bound is 80 MiB with claude's envelope around it. Bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// Text that an `input_accepted` event repeats; the whole is in the conversation. Bytes.
const EVENT_TEXT: usize = 16 << 10;

impl Supervisor {
    /// The message is on disk when this returns, and will be delivered. With a key, a retry is the same
    /// message.
    ///
    /// Errors: `session_ended`, `session_lost`, `session_busy` (with `if_busy: reject`), `overloaded`.
    pub async fn send(
        &self,
        id: SessionId,
        message: SendMessage,
        key: Option<&str>,
        caller: &Caller,
    ) -> Result<MessageAccepted> {
        check(&message)?;
        let row = self.row(id).await?;
        if row.mode == Mode::Terminal {
            check_typable(&message)?;
        }
        let view = shown::view(&row)?;
        // A retry is answered as the first call was, whatever has become of the session since.
        let known = match key {
            Some(key) => self.engine.store.message(id, MessageId::of_key(id, key)).await?.is_some(),
            None => false,
        };
        if row.state.is_final() && !known {
            return Err(Error::over(row.state));
        }
        if message.if_busy == IfBusy::Reject && view.busy() && !known {
            return Err(Error::with_hint(
                ErrorCode::SessionBusy,
                "a turn is running",
                "wait for it, or send with if_busy `queue` or `interrupt`; in stream mode `steer` joins it",
            ));
        }
        let message_id = key.map_or_else(|| MessageId(Uuid::new_v4()), |key| MessageId::of_key(id, key));
        let body = json_text(&message)?;
        let accepted = view.event(now(), OwnKind::InputAccepted, &said(message_id, &message, caller));
        let mut commit = Commit::new(id, now())
            .guard(Guard::UndeliveredBelow(u32::try_from(self.engine.config.max_queued).unwrap_or(u32::MAX)))
            .change(Change::AddMessage(NewMessage {
                id: message_id,
                body,
                if_busy: message.if_busy,
                priority: message.priority,
                accepted: SeqAt::Event(0),
            }))
            .event(accepted);
        commit.idempotency = key.map(|key| Idempotency {
            scope: format!("messages:{id}"),
            key: key.into(),
            request_hash: hash(&message),
        });
        crate::failpoint::failpoint!("accept.before");
        let committed = self.engine.store.commit(commit).await?;
        crate::failpoint::failpoint!("accept.after");
        self.engine.drive(id);
        Ok(MessageAccepted { message_id, seq: committed.first_seq })
    }

    pub async fn message(&self, id: SessionId, message: MessageId) -> Result<Message> {
        match self.engine.store.message(id, message).await? {
            Some(row) => Ok(shown_message(id, row)),
            None => Err(Error::with_hint(
                ErrorCode::NotFound,
                format!("the session has no message {message}"),
                "`message_id` is in the answer to the POST that sent it",
            )),
        }
    }

    /// Waits until the message is answered, interrupted or withdrawn, or `timeout` is over.
    pub async fn wait(&self, id: SessionId, message: MessageId, timeout: Duration) -> Result<Message> {
        let hub = self.engine.hubs.get(id);
        let mut messages = hub.messages.subscribe();
        let deadline = Instant::now() + timeout;
        loop {
            messages.mark_unchanged();
            let now = self.message(id, message).await?;
            if matches!(
                now.state,
                MessageState::Answered | MessageState::Interrupted | MessageState::Withdrawn
            ) {
                return Ok(now);
            }
            if self.row(id).await?.state.is_final() {
                return Ok(now);
            }
            match timeout_at(deadline, messages.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::session_not_found(&id.to_string())),
                Err(_) => return Ok(now),
            }
        }
    }

    /// Takes a message back that claude has not begun with.
    pub async fn withdraw(&self, id: SessionId, message: MessageId, caller: &Caller) -> Result<Message> {
        let found = self.message(id, message).await?;
        let withdrawn = match found.state {
            MessageState::Withdrawn => return Ok(found),
            MessageState::Queued | MessageState::Written => {
                self.withdraw_waiting(id, message, caller).await?
            }
            _ => false,
        };
        if withdrawn {
            return self.message(id, message).await;
        }
        Err(Error::with_hint(
            ErrorCode::Conflict,
            "the message was delivered already",
            "`castra interrupt ID` ends its turn",
        ))
    }

    async fn withdraw_waiting(&self, id: SessionId, message: MessageId, caller: &Caller) -> Result<bool> {
        if self.row(id).await?.state.is_final() {
            // Nobody will write it: the row is all there is.
            let view = shown::view(&self.row(id).await?)?;
            let event = view.event(now(), OwnKind::Queued, &json!({"withdrawn": message, "by": caller.by}));
            let mut update = castra_store::MessageUpdate::new(message);
            update.from = vec![MessageState::Queued];
            update.state = Some(MessageState::Withdrawn);
            let commit = Commit::new(id, now()).change(Change::Message(update)).event(event);
            self.engine.store.commit(commit).await?;
            return Ok(true);
        }
        let subject = Some(message.to_string());
        self.command(id, WITHDRAW, subject, json!({}), caller, true).await?;
        Ok(self.message(id, message).await?.state == MessageState::Withdrawn)
    }
}

fn check(message: &SendMessage) -> Result<()> {
    let refuse = |detail: &str, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
    let bytes = match (&message.text, &message.content, &message.command) {
        (Some(text), None, None) if text.trim().is_empty() => {
            return refuse("the message is empty", "say something");
        }
        (Some(text), None, None) => text.len(),
        (None, Some(blocks), None) if blocks.is_empty() => {
            return refuse("the message is empty", "say something");
        }
        (None, Some(blocks), None) => blocks.iter().map(|block| block.to_string().len()).sum(),
        (None, None, Some(_)) if message.context.is_some() => {
            return refuse("a slash command has no context", "leave `context` out");
        }
        (None, None, Some(command)) => match type_command(command) {
            Ok(_) => command.len(),
            Err(error) => return refuse(&error.to_string(), "send anything else as `text`"),
        },
        _ => return refuse("a message has either `text`, `content` or `command`", "give one of the three"),
    };
    if bytes + message.context.as_ref().map_or(0, String::len) > MAX_MESSAGE {
        return Err(Error::with_hint(
            ErrorCode::TooLarge,
            format!("the message is larger than {} MiB", MAX_MESSAGE >> 20),
            "put it into a file of the workspace and name the file",
        ));
    }
    Ok(())
}

/// What cannot be typed is refused before it is accepted: it would stand in the way of all that comes after it.
fn check_typable(message: &SendMessage) -> Result<()> {
    let refused = |detail: String, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
    let refuse = |detail| refused(detail, "send text; a stream session takes pictures and other blocks");
    if message.content.is_some() {
        return refuse("a terminal takes text only".into());
    }
    if message.if_busy == IfBusy::Steer {
        let detail = "a terminal's turn cannot be joined: Enter might answer a dialog that has just come";
        return refused(detail.into(), "`queue` waits for the turn's end, `interrupt` ends it first");
    }
    typed(message).map(drop).or_else(|error| refuse(error.to_string()))
}

pub(crate) fn said(id: MessageId, message: &SendMessage, caller: &Caller) -> serde_json::Value {
    let mut said = json!({"message_id": id, "if_busy": message.if_busy, "by": caller.by});
    if message.command.is_some() {
        said["command"] = true.into();
    }
    if let Some(text) = message.text.as_ref().or(message.command.as_ref()) {
        let end = text.floor_char_boundary(EVENT_TEXT);
        said["text"] = text[..end].into();
        if end < text.len() {
            said["bytes"] = text.len().into();
        }
    }
    if let Some(blocks) = &message.content {
        said["content_blocks"] = blocks.len().into();
    }
    said
}

fn shown_message(session_id: SessionId, row: MessageRow) -> Message {
    let result =
        row.result.and_then(|result| serde_json::from_value::<TurnResult>(result).ok()).map(|mut result| {
            result.seq = row.result_seq.unwrap_or(result.seq);
            result
        });
    Message { message_id: row.id, session_id, state: row.state, seq: row.seq, result }
}
