//! What the log knows and the database does not, once a backup was put in its place: later runs, messages that were
//! accepted, permissions that were answered, an end that was asked for. Refuses what is not in the log: names, labels,
//! tokens, withdrawals.

use super::actor::Actor;
use super::finish::{is_missing, is_not_a_dir, run_dir};
use super::line::message_line_id;
use super::view::InFlight;
use crate::Result;
use crate::engine::Engine;
use crate::host::Record;
use crate::supervisor::Caller;
use crate::supervisor::messages::said;
use castra_proto::api::{MessageState, Scope, SendMessage};
use castra_proto::session::ExitCause;
use castra_proto::shim::Meta;
use castra_proto::shim::relay::At;
use castra_proto::{MessageId, OwnKind, RunId, SessionId, Timestamp};
use castra_store::{Change, MessageUpdate, NewMessage, SeqAt};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Who is named as the one who did what a restored database does not know.
pub(crate) const RESTORED: &str = "castra:restore";
const META_BYTES: u64 = 64 << 10;

/// The id of run `n`, if it was started, whatever the database says.
pub(crate) async fn later_run(engine: &Arc<Engine>, id: SessionId, n: u32) -> Result<Option<RunId>> {
    let at = At::home(format!("{}/meta.json", run_dir(id, n).0));
    let bytes = match engine.host.files().get(at, 0, META_BYTES).await {
        Ok((bytes, _)) => bytes,
        Err(error) if is_missing(&error) || is_not_a_dir(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let meta: Option<Meta> = serde_json::from_slice(&bytes).ok();
    let meta = meta.filter(|meta| meta.session_id == id.to_string() && meta.run == u64::from(n));
    Ok(meta.map(|meta| RunId(meta.run_id)))
}

/// Held while the log is ahead of the database.
pub(crate) struct Forward {
    /// Messages that the database has.
    known: HashSet<MessageId>,
    /// An input that nobody here has given, and whose bytes are still coming.
    input: Option<Input>,
}

struct Input {
    id: Uuid,
    left: u64,
    line: Vec<u8>,
}

impl Actor<'_> {
    /// From here on what the log has is compared with what the database knows.
    pub(crate) async fn look_forward(&mut self) -> Result<()> {
        let rows = self.engine.store.messages(self.id, &[]).await?;
        let known = rows.into_iter().map(|row| row.id).collect();
        self.forward = Some(Forward { known, input: None });
        Ok(())
    }

    /// An input was journalled. Called before it is taken for one that is waiting.
    pub(crate) fn input_begins(&mut self, id: Uuid, len: u64) {
        let given = self.commands.open.iter().any(|open| open.id.0 == id);
        if let Some(forward) = &mut self.forward {
            let known = given || forward.known.contains(&MessageId(id));
            forward.input = (!known).then(|| Input { id, left: len, line: Vec::new() });
        }
    }

    /// The bytes of an input.
    pub(crate) fn input_bytes(&mut self, record: &Record) {
        let Some(forward) = &mut self.forward else { return };
        let Some(input) = &mut forward.input else { return };
        input.line.extend_from_slice(&record.bytes);
        input.left = input.left.saturating_sub(record.bytes.len() as u64);
        if input.left > 0 {
            return;
        }
        let Some(input) = forward.input.take() else { return };
        let Ok(line) = serde_json::from_slice::<Value>(&input.line) else { return };
        let at = self.view.clock.map_or(self.view.since, |clock| clock.at(record.at));
        match line["type"].as_str() {
            Some("user") if message_line_id(&line) == Some(input.id) => {
                self.message_found(MessageId(input.id), &line, at);
            }
            Some("control_response") => self.answer_found(&line["response"], at),
            Some("control_request") if line["request"]["subtype"] == "end_session" => {
                self.view.stop.get_or_insert(ExitCause::Stopped);
            }
            _ => {}
        }
    }

    /// Accepted and written after the backup was made.
    fn message_found(&mut self, id: MessageId, line: &Value, at: Timestamp) {
        let content = &line["message"]["content"];
        let message = SendMessage {
            text: content.as_str().map(str::to_owned),
            content: content.as_array().cloned(),
            priority: serde_json::from_value(line["priority"].clone()).ok(),
            ..SendMessage::default()
        };
        let by = Caller { by: RESTORED.into(), scope: Scope::Admin };
        let accepted = SeqAt::Event(self.added.events.len());
        self.added.events.push(self.view.event(at, OwnKind::InputAccepted, &said(id, &message, &by)));
        self.changes.push(Change::AddMessage(NewMessage {
            id,
            body: serde_json::to_string(&message).unwrap_or_default(),
            if_busy: message.if_busy,
            priority: message.priority,
            accepted,
        }));
        self.view.in_flight = Some(InFlight { message: id, turn_began: false });
        self.change_message(MessageUpdate {
            state: Some(MessageState::Written),
            run: Some(self.run.n),
            ..MessageUpdate::new(id)
        });
        if let Some(forward) = &mut self.forward {
            forward.known.insert(id);
        }
    }

    /// A permission request was answered after the backup was made.
    fn answer_found(&mut self, response: &Value, at: Timestamp) {
        let Some(request_id) = response["request_id"].as_str() else { return };
        if self.view.pending.iter().any(|pending| pending.request_id == request_id) {
            let data = json!({
                "request_id": request_id,
                "by": RESTORED,
                "answer": {"behavior": response["response"]["behavior"]},
                "state": "decided",
            });
            self.added.events.push(self.view.event(at, OwnKind::PermissionAnswered, &data));
            self.view.settle(request_id, at, &mut self.added);
        }
    }
}
