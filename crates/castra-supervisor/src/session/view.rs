//! A session's derived state: a pure fold over what claude says. Refuses clock and I/O.
//!
//! It is stored in the same transaction as the events it was derived from, so that a daemon that
//! comes later goes on where the last one stopped.

mod terminal;
mod turn;

pub(crate) use terminal::{OpenCommand, TerminalView};

use super::coordinate::Coordination;
use super::state::{self, Cause};
use bytes::Bytes;
use castra_claude::fact::{Decoded, Fact, Lifecycle, SessionState};
use castra_proto::api::TurnResult;
use castra_proto::permission::PermissionRequest;
use castra_proto::session::{Activity, Exit, ExitCause, Flags, Sandbox, SandboxKind};
use castra_proto::{Kind, MessageId, OwnKind, RunState, Timestamp};
use castra_store::NewEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The derived state of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct View {
    pub run: u32,
    pub state: RunState,
    pub since: Timestamp,
    pub turn: TurnView,
    pub tools_open: BTreeSet<String>,
    pub pending: Vec<PermissionRequest>,
    /// Written to claude and not seen back: at most one.
    pub in_flight: Option<InFlight>,
    pub claude_session_id: Option<Uuid>,
    pub claude_session_ids: Vec<Uuid>,
    pub pid: Option<i32>,
    pub shim_pid: Option<i32>,
    pub cwd: Option<String>,
    pub model: Option<String>,
    pub effort: Option<String>,
    pub permission_mode: Option<String>,
    /// Stored apart: tens of kilobytes that change once in a run.
    #[serde(skip)]
    pub offers: Offers,
    /// US dollars of the runs before this one: claude counts anew in each process.
    pub cost_before: f64,
    pub cost_run: f64,
    pub results: u32,
    pub usage: Value,
    pub last_activity: Option<Activity>,
    pub flags: Flags,
    pub exit: Option<Exit>,
    pub sandbox: Option<Sandbox>,
    pub claude_version: Option<String>,
    pub clock: Option<Clock>,
    pub ready: bool,
    /// How the run is to end, once somebody or a limit has asked for it.
    pub stop: Option<ExitCause>,
    pub nudged: u32,
    /// The last run was cut off in a turn in which no tool was in flight: the next one goes on by itself.
    pub carry_on: bool,
    /// What claude asked and only castra itself can answer, until the answer is journalled.
    pub declines: Vec<Owed>,
    /// Results there were when the newest run began.
    pub resumed_at: u32,
    /// Where the conversation of the first run comes from.
    pub origin: Option<Origin>,
    /// Permission updates that answers set, for the runs to come.
    pub remembered: Vec<Value>,
    pub terminal: TerminalView,
    /// Set where the session is an attempt at a task.
    pub coordination: Option<Coordination>,
}

/// What claude says it has, of its newest `init`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Offers {
    pub tools: Vec<String>,
    pub slash_commands: Vec<String>,
    pub skills: Vec<String>,
    pub agents: Vec<String>,
    pub mcp_servers: Vec<Value>,
}

/// An answer that castra owes claude.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Owed {
    pub request_id: String,
    pub subtype: String,
    /// None: castra does not handle this.
    pub response: Option<Value>,
}

/// A conversation that the session did not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Forked from another session's: its id there, and the transcript's folder on the host.
    Fork { parent: castra_proto::SessionId, from: Uuid, project_dir: String },
    /// A conversation that castra did not start: the folder that holds its transcript.
    Adopted { project_dir: String },
}

/// The turn that runs, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TurnView {
    pub n: u32,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Delivered in it and not yet answered.
    pub messages: Vec<MessageId>,
    pub result: Option<TurnResult>,
    /// A tool was called since the last delivery.
    pub acted: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InFlight {
    pub message: MessageId,
    /// A turn began after it was written.
    pub turn_began: bool,
}

/// The pair that makes wall time of the shim's boot-time stamps, from its `started` note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    pub wall_ns: u64,
    pub boot_ns: u64,
}

impl Clock {
    pub(crate) fn at(&self, boot_ns: u64) -> Timestamp {
        Timestamp((self.wall_ns as i128 + boot_ns as i128 - self.boot_ns as i128) as i64 / 1000)
    }
}

/// What is to be done once the fold is on disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// claude answered `initialize`.
    Ready(Value),
    /// claude refused `initialize`.
    InitFailed(String),
    /// `event`: index of its `input_delivered` in this fold.
    Delivered {
        message: MessageId,
        turn: u32,
        event: usize,
    },
    /// `event`: index of the `result` in this fold, unless it was in an earlier one.
    Answered {
        message: MessageId,
        result: Box<TurnResult>,
        event: Option<usize>,
    },
    Interrupted {
        message: MessageId,
        result: Option<Box<TurnResult>>,
        event: Option<usize>,
    },
    /// A control request of castra's has its answer.
    Control {
        request_id: String,
        result: Result<Value, String>,
    },
    /// A permission request is gone without an answer.
    Withdrawn {
        request_id: String,
    },
    /// claude asks something that only castra itself can answer.
    HostRequest {
        request_id: String,
        subtype: String,
        request: Value,
    },
    Asked {
        request_id: String,
    },
}

/// What one fold adds.
#[derive(Debug, Default)]
pub(crate) struct Added {
    pub events: Vec<NewEvent>,
    pub effects: Vec<Effect>,
    /// The state, the flags or the pending requests are not what they were.
    pub changed: bool,
}

/// What the fold must know and cannot derive.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub init_id: String,
    pub permission_timeout_s: Option<u64>,
}

impl View {
    /// From the two columns that it is stored in.
    pub(crate) fn parse(view: &str, offers: &str) -> serde_json::Result<View> {
        let mut view: View = serde_json::from_str(view)?;
        view.offers = serde_json::from_str(offers)?;
        Ok(view)
    }

    pub(crate) fn event(&self, at: Timestamp, kind: impl Into<Kind>, data: &Value) -> NewEvent {
        NewEvent {
            at,
            run: self.run,
            turn: self.turn.n,
            kind: kind.into(),
            data: Bytes::from(data.to_string()),
            raw: None,
        }
    }

    pub(crate) fn cost_usd(&self) -> f64 {
        self.cost_before + self.cost_run
    }

    pub(crate) fn busy(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::RequiresAction)
    }

    /// Moves the run, with its `state` event; a cause without a place changes nothing.
    pub(crate) fn shift(&mut self, cause: Cause, at: Timestamp, added: &mut Added) {
        let Ok(to) = state::next(self.state, cause) else { return };
        if to == self.state {
            return;
        }
        added.events.push(self.event(
            at,
            OwnKind::State,
            &json!({"from": self.state, "to": to, "cause": cause.as_str()}),
        ));
        self.state = to;
        self.since = at;
        added.changed = true;
    }

    /// A new run begins: what belonged to the last process is forgotten.
    pub(crate) fn begin_run(&mut self, run: u32, at: Timestamp) {
        self.run = run;
        self.state = RunState::Queued;
        self.since = at;
        self.turn.messages.clear();
        self.turn.result = None;
        self.tools_open.clear();
        self.pending.clear();
        self.declines.clear();
        self.in_flight = None;
        self.pid = None;
        self.shim_pid = None;
        self.cost_before += self.cost_run;
        self.cost_run = 0.0;
        self.exit = None;
        self.clock = None;
        self.ready = false;
        self.stop = None;
        self.flags = Flags::default();
        self.terminal = TerminalView::default();
        if let Some(task) = &mut self.coordination {
            task.begin_run();
        }
    }

    /// Takes one line of claude's.
    pub(crate) fn apply(&mut self, line: Decoded, given: &Given, added: &mut Added) {
        let at = self.clock.map_or(self.since, |clock| clock.at(line.at));
        if let Fact::SessionState(SessionState::Running) = line.fact {
            self.begin_turn(at);
        }
        if let (Fact::UserReplay { uuid: Some(_) }, Some(_)) = (&line.fact, &self.turn.result) {
            // Queued inside claude and taken up without a pause: a turn of its own.
            if self.busy() {
                self.begin_turn(at);
            }
        }
        let raw = if line.json { line.raw } else { Some(line.data.clone()) };
        let data = if line.json {
            line.data
        } else {
            Bytes::from(json!({"bytes": line.data.len(), "note": line.note.map(note_name)}).to_string())
        };
        added.events.push(NewEvent { at, run: self.run, turn: self.turn.n, kind: line.kind, data, raw });
        if let Some(id) = line.session_id {
            self.follow_conversation(id, added);
        }
        self.apply_fact(line.fact, at, given, added);
    }

    fn follow_conversation(&mut self, id: Uuid, added: &mut Added) {
        if self.claude_session_id != Some(id) {
            self.claude_session_id = Some(id);
            if !self.claude_session_ids.contains(&id) {
                self.claude_session_ids.push(id);
            }
            added.changed = true;
        }
    }

    pub(crate) fn apply_fact(&mut self, fact: Fact, at: Timestamp, given: &Given, added: &mut Added) {
        match fact {
            Fact::Init(init) => {
                self.model = init.model.or(self.model.take());
                self.permission_mode = init.permission_mode.or(self.permission_mode.take());
                self.cwd = init.cwd.or(self.cwd.take());
                self.claude_version = init.version.or(self.claude_version.take());
                self.offers = Offers {
                    tools: init.tools,
                    slash_commands: init.slash_commands,
                    skills: init.skills,
                    agents: init.agents,
                    mcp_servers: init.mcp_servers,
                };
            }
            Fact::Assistant(assistant) => {
                let text = match (&assistant.tool, assistant.text_tail) {
                    (Some(tool), _) => Some(format!("{}: {}", tool.name, tool.preview)),
                    // What claude puts where nothing was said, as after `/clear`.
                    (None, tail) => tail.filter(|tail| tail != "(no content)"),
                };
                if let Some(text) = text {
                    self.last_activity = Some(Activity { at, text });
                }
                if let Some(tool) = assistant.tool {
                    self.turn.acted = true;
                    self.tools_open.insert(tool.id);
                }
            }
            Fact::UserReplay { uuid: Some(uuid) } => self.delivered(MessageId(uuid), at, added),
            Fact::Lifecycle { uuid: Some(uuid), state } => match state {
                Lifecycle::Started => self.delivered(MessageId(uuid), at, added),
                Lifecycle::Completed if !self.busy() => self.orphaned(MessageId(uuid), at, added),
                _ => {}
            },
            Fact::User(user) => {
                for result in user.tool_results {
                    self.tools_open.remove(&result.tool_use_id);
                }
            }
            Fact::Result(result) => self.result(*result, at, added),
            Fact::SessionState(state) => {
                let cause = match state {
                    SessionState::Idle => Cause::TurnOver,
                    SessionState::Running => Cause::TurnStarted,
                    SessionState::RequiresAction => Cause::Asked,
                };
                if state == SessionState::Idle {
                    self.turn_over(at, added);
                }
                self.shift(cause, at, added);
            }
            Fact::PermissionAsked(asked) => {
                let deadline = given.permission_timeout_s.map(|s| Timestamp(at.0 + s as i64 * 1_000_000));
                let request = asked.into_request(at, deadline);
                added.events.push(self.event(at, OwnKind::PermissionRequested, &json!(request)));
                added.effects.push(Effect::Asked { request_id: request.request_id.clone() });
                self.pending.retain(|pending| pending.request_id != request.request_id);
                self.pending.push(request);
                self.shift(Cause::Asked, at, added);
                added.changed = true;
            }
            Fact::PermissionWithdrawn { request_id } => {
                if self.settle(&request_id, at, added) {
                    let data = json!({"request_id": request_id, "state": "superseded"});
                    added.events.push(self.event(at, OwnKind::PermissionAnswered, &data));
                    added.effects.push(Effect::Withdrawn { request_id });
                }
            }
            Fact::ControlAnswered { request_id, result } if request_id == given.init_id => match result {
                Ok(response) => {
                    self.ready = true;
                    self.shift(Cause::Ready, at, added);
                    added.effects.push(Effect::Ready(response));
                }
                Err(reason) => added.effects.push(Effect::InitFailed(reason)),
            },
            Fact::ControlAnswered { request_id, result } => {
                added.effects.push(Effect::Control { request_id, result });
            }
            Fact::HostRequest { request_id, subtype, request } => {
                added.effects.push(Effect::HostRequest { request_id, subtype, request });
            }
            Fact::Status { permission_mode: Some(mode), .. } => self.permission_mode = Some(mode),
            Fact::UserReplay { uuid: None }
            | Fact::Lifecycle { .. }
            | Fact::Status { .. }
            | Fact::Compacted { .. }
            | Fact::ApiRetry { .. }
            | Fact::Task { .. }
            | Fact::PermissionDenied { .. }
            | Fact::Stderr
            | Fact::Other => {}
        }
    }

    /// A permission request is over, one way or the other. False: it was not pending.
    pub(crate) fn settle(&mut self, request_id: &str, at: Timestamp, added: &mut Added) -> bool {
        let before = self.pending.len();
        self.pending.retain(|pending| pending.request_id != request_id);
        if self.pending.len() == before {
            return false;
        }
        added.changed = true;
        if self.pending.is_empty() && self.state == RunState::RequiresAction {
            self.shift(Cause::Answered, at, added);
        }
        true
    }

    pub(crate) fn sandbox(&self) -> Sandbox {
        self.sandbox.clone().unwrap_or(Sandbox {
            kind: SandboxKind::None,
            reason: Some("the session has not started yet".into()),
        })
    }
}

fn note_name(note: castra_claude::fact::Note) -> &'static str {
    use castra_claude::fact::Note;
    match note {
        Note::NotJson => "not_json",
        Note::NotAMessage => "not_a_message",
        Note::Cut => "cut",
        Note::Torn => "torn",
        Note::NotUtf8 => "not_utf8",
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
