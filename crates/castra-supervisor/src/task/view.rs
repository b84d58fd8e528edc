//! A task's derived state: a pure fold over what its session says. Refuses clock and I/O.

use super::group::progress_rule;
use super::hooks::Settled;
use super::resumed::GoesOn;
use super::state::{self, Cause};
use super::todos::Todos;
use castra_proto::session::ExitCause;
pub(crate) use castra_proto::task::Outcome;
use castra_proto::task::{
    Attempt, Completion, Deliverable, Level, Order, Progress, ProgressRule, Protocol, Reason, ReasonCode,
    TaskEventKind,
};
use castra_proto::{Kind, MessageId, OwnKind, RunState, TaskId, TaskSpec, TaskState, Timestamp};
use castra_store::{NewTaskEvent, StoredEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The derived state of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TaskView {
    pub state: TaskState,
    pub since: Timestamp,
    pub attempts: Vec<Attempt>,
    pub progress: Progress,
    pub result: Option<String>,
    pub reason: Option<Reason>,
    /// In castra's messages to the agent.
    pub nonce: String,
    /// The event of the session up to which all is folded.
    pub cursor: u64,
    /// The message that sends claude to work.
    pub kickoff: Option<MessageId>,
    /// How the attempt goes on in a session that was over, once that is known.
    pub goes_on: Option<GoesOn>,
    /// How the attempt ends, once that is known; then everything is cleared away.
    pub outcome: Option<Outcome>,
    pub cancel: Option<Cancel>,
    pub retries_left: u32,
    /// The next attempt goes on in the session of the last one.
    pub resume: bool,
    /// Tasks that must be done first.
    pub depends_on: Vec<TaskId>,
    /// The declared children of this attempt, in their order, and how each ended as far as that was told.
    pub children: Vec<(TaskId, Option<TaskState>)>,
    /// They are over, and the task goes on with its own work.
    pub gathered: bool,
    /// Its own work has begun, in a session.
    pub begun: bool,
    /// Its place among those that its parent declares.
    pub sibling: Option<Sibling>,
    /// What the agent means to do, where that is its progress.
    pub todos: Todos,
    /// The newest version of each deliverable.
    pub deliverables: BTreeMap<String, Version>,
    /// Bytes of all versions of all of them.
    pub delivered_bytes: u64,
    /// What the attempt has left behind is taken, or it was said why not.
    pub collected: bool,
    /// What people have handed in, in order.
    pub uploads: Vec<super::upload::Upload>,
    /// What hooks have come to, until what it is about is folded.
    pub hook: Option<Settled>,
}

/// A child's place among its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sibling {
    /// From 0.
    pub n: usize,
    /// Of them that may run at the same time.
    pub at_once: u32,
    pub in_order: Order,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cancel {
    pub by: String,
    pub at: Timestamp,
    pub reason: Option<String>,
    pub grace_s: u64,
}

impl Cancel {
    /// By whom, and why.
    pub(crate) fn message(&self) -> String {
        match &self.reason {
            Some(reason) => format!("by {}: {reason}", self.by),
            None => format!("by {}", self.by),
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let reason = Reason { code: ReasonCode::Cancelled, message: self.message(), tail: Vec::new() };
        Outcome { state: TaskState::Cancelled, result: None, reason: Some(reason) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub n: u32,
    pub sha256: String,
}

/// What is to be done about an event, before it is folded for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The agent says that it hands this file over.
    Fetch {
        path: String,
        /// The call of castra's tool that waits for what comes of it.
        call: Option<String>,
    },
    /// The agent is to be told something.
    Tell { what: Told },
    /// A turn has ended: perhaps the one that counts.
    LookForResult,
    /// The agent has sent a message to whoever made the task.
    Answer {
        name: String,
        /// The call of castra's tool that waits for the answer.
        call: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// An end line amid a text.
    Stray(String),
}

impl TaskView {
    /// The newest attempt's number.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.n)
    }

    pub(crate) fn event(
        &self,
        at: Timestamp,
        kind: TaskEventKind,
        level: Level,
        message: impl Into<String>,
        data: Value,
    ) -> NewTaskEvent {
        NewTaskEvent { at, attempt: self.attempt(), kind, level, message: message.into(), data }
    }

    /// Moves the task, with its event; a cause without a place changes nothing.
    pub(crate) fn shift(&mut self, cause: Cause, at: Timestamp, events: &mut Vec<NewTaskEvent>) -> bool {
        let Ok(to) = state::next(self.state, cause) else { return false };
        if to == self.state {
            return false;
        }
        let mut data = json!({"from": self.state, "to": to, "cause": cause.as_str()});
        if let (true, Some(reason)) = (to.is_final(), &self.reason) {
            data["reason"] = json!(reason.code);
        }
        let message = match (&self.reason, to.is_final()) {
            (Some(reason), true) => format!("{to}: {}", reason.message),
            _ => to.to_string(),
        };
        let level = if to == TaskState::Failed { Level::Error } else { Level::Event };
        events.push(self.event(at, TaskEventKind::State, level, message, data));
        self.state = to;
        self.since = at;
        true
    }

    /// How the attempt ends. The first word counts.
    pub(crate) fn conclude(&mut self, outcome: Outcome, at: Timestamp, events: &mut Vec<NewTaskEvent>) {
        if self.outcome.is_some() {
            return;
        }
        let message = match (&outcome.reason, &outcome.result) {
            (Some(reason), _) => format!("{}: {}", outcome.state, reason.message),
            (None, Some(result)) => format!("{}: {result}", outcome.state),
            (None, None) => outcome.state.to_string(),
        };
        events.push(self.event(at, TaskEventKind::Outcome, Level::Event, message, json!(outcome)));
        self.outcome = Some(outcome);
    }

    pub(crate) fn fail(
        &mut self,
        code: ReasonCode,
        message: impl Into<String>,
        at: Timestamp,
        events: &mut Vec<NewTaskEvent>,
    ) {
        let reason = Some(Reason { code, message: message.into(), tail: Vec::new() });
        self.conclude(Outcome { state: TaskState::Failed, result: None, reason }, at, events);
    }

    /// Takes one event of the session.
    pub(crate) fn apply(
        &mut self,
        event: &StoredEvent,
        spec: &TaskSpec,
        events: &mut Vec<NewTaskEvent>,
    ) -> Option<Effect> {
        self.cursor = event.seq;
        let Kind::Own(own) = &event.kind else {
            match event.kind.as_str() {
                "result" => {
                    self.limited(event, events);
                    return Some(Effect::LookForResult);
                }
                "assistant" if progress_rule(spec) == ProgressRule::Todos => self.planned(event, events),
                _ => {}
            }
            return None;
        };
        let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let at = event.at;
        match own {
            OwnKind::Status => return self.said(&data, at, spec, events),
            OwnKind::Deliverable => {
                let call = data["call"].as_str().map(str::to_owned);
                return Some(Effect::Fetch { path: text("path"), call });
            }
            OwnKind::Attention => {
                let reason = text("reason");
                events.push(self.event(at, TaskEventKind::Attention, Level::Warning, reason, data));
            }
            OwnKind::Browser => {
                events.push(self.event(at, TaskEventKind::Browser, Level::Event, text("url"), data));
            }
            OwnKind::ClientMessage => {
                let said = self.event(at, TaskEventKind::ClientMessage, Level::Event, text("name"), data);
                events.push(said);
            }
            OwnKind::CallerMessage => {
                let (name, call) = (text("name"), data["call"].as_str().map(str::to_owned));
                let said = json!({"name": name, "data": data["data"]});
                events.push(self.event(at, TaskEventKind::CallerMessage, Level::Event, name.clone(), said));
                return Some(Effect::Answer { name, call });
            }
            OwnKind::State => match data["to"].as_str().and_then(RunState::parse) {
                Some(RunState::RequiresAction) => {
                    self.shift(Cause::Asked, at, events);
                }
                Some(RunState::Idle | RunState::Running) => {
                    self.shift(Cause::Answered, at, events);
                }
                _ => {}
            },
            OwnKind::Exit => self.exited(&data, at, spec, events),
            _ => {}
        }
        None
    }

    /// A limit that claude keeps itself ends the turn, and not claude (measured: 2.1.197, 2.1.329). For the task it is
    /// over: whatever comes next would end the same way.
    fn limited(&mut self, result: &StoredEvent, events: &mut Vec<NewTaskEvent>) {
        #[derive(Deserialize)]
        struct Subtype {
            #[serde(default)]
            subtype: String,
        }
        let read = serde_json::from_slice::<Subtype>(&result.data);
        let message = match read.as_ref().map(|read| read.subtype.as_str()) {
            Ok("error_max_budget_usd") => "its budget was spent",
            Ok("error_max_turns") => "its number of turns was reached",
            _ => return,
        };
        self.fail(ReasonCode::Limit, message, result.at, events);
    }

    /// What the agent has on its list.
    fn planned(&mut self, event: &StoredEvent, events: &mut Vec<NewTaskEvent>) {
        let assistant: Value = serde_json::from_slice(&event.data).unwrap_or_default();
        if let (true, Some((percent, message))) = (self.todos.take(&assistant), self.todos.progress()) {
            self.progress = Progress { percent: Some(percent), message: Some(message.clone()) };
            let said = json!({"percent": percent, "message": message});
            events.push(self.event(event.at, TaskEventKind::Progress, Level::Info, message, said));
        }
    }

    /// What the agent reports.
    fn said(
        &mut self,
        data: &Value,
        at: Timestamp,
        spec: &TaskSpec,
        events: &mut Vec<NewTaskEvent>,
    ) -> Option<Effect> {
        let message = data["message"].as_str().unwrap_or_default().to_owned();
        match data["said"].as_str() {
            Some("done") => {
                let result = Some(message).filter(|message| !message.is_empty());
                let counts = completion(spec).contains(&Completion::Protocol);
                if counts {
                    self.conclude(Outcome { state: TaskState::Done, result, reason: None }, at, events);
                }
            }
            Some("error") => {
                let message = if message.is_empty() { "the agent said ERROR".to_owned() } else { message };
                self.fail(ReasonCode::Error, message, at, events);
            }
            Some("stray") => {
                events.push(self.event(at, TaskEventKind::Log, Level::Info, message.clone(), json!({})));
                return Some(Effect::Tell { what: Told::Stray(message) });
            }
            Some("status") => {
                if data["message"] == json!(self.progress.message)
                    && data["percent"] == json!(self.progress.percent)
                {
                    // Said both ways.
                    return None;
                }
                let percent = data["percent"].as_u64().and_then(|percent| u8::try_from(percent).ok());
                if progress_rule(spec) == ProgressRule::Own {
                    self.progress.percent = percent.or(self.progress.percent);
                }
                if !message.is_empty() {
                    self.progress.message = Some(message.clone());
                }
                let said = json!({"percent": percent, "message": message});
                events.push(self.event(at, TaskEventKind::Progress, Level::Info, message, said));
            }
            _ => events.push(self.event(at, TaskEventKind::Log, Level::Info, message, json!({}))),
        }
        None
    }

    /// The session's run is over, before the task was.
    fn exited(&mut self, exit: &Value, at: Timestamp, spec: &TaskSpec, events: &mut Vec<NewTaskEvent>) {
        let cause: Option<ExitCause> = serde_json::from_value(exit["cause"].clone()).ok();
        let detail = exit["detail"].as_str().unwrap_or_default();
        let how = match (exit["code"].as_i64(), exit["signal"].as_i64()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no exit code".to_owned(),
        };
        let exit_counts = completion(spec).contains(&Completion::Exit);
        let (code, message) = match cause {
            Some(ExitCause::Finished) if exit_counts => {
                let done = Outcome { state: TaskState::Done, result: None, reason: None };
                return self.conclude(done, at, events);
            }
            Some(ExitCause::Stopped) if spec.instructions.is_none() => {
                // A plain conversation that was closed.
                let done = Outcome { state: TaskState::Done, result: None, reason: None };
                return self.conclude(done, at, events);
            }
            Some(ExitCause::Finished) => (ReasonCode::NoDone, "claude ended, and had not said DONE".into()),
            Some(ExitCause::Stopped) => {
                (ReasonCode::Stopped, "its session was stopped before the task was done".into())
            }
            Some(ExitCause::Crashed) => (ReasonCode::Exit, format!("claude ended with {how}")),
            Some(ExitCause::SpawnFailed | ExitCause::StartTimeout) => {
                (ReasonCode::Start, format!("claude could not be started: {detail}"))
            }
            Some(ExitCause::Timeout) => (ReasonCode::Timeout, "its time was over".into()),
            Some(ExitCause::MaxTurns) => (ReasonCode::Limit, "its number of turns was reached".into()),
            Some(ExitCause::BudgetExceeded) => (ReasonCode::Limit, "its budget was spent".into()),
            Some(ExitCause::MemoryLimit) => (ReasonCode::Limit, "it used more memory than it may".into()),
            Some(ExitCause::Lost) | None => {
                (ReasonCode::Lost, "its session was lost: what became of it cannot be known".into())
            }
        };
        self.fail(code, message, at, events);
    }

    /// A file was handed over. None: it is the newest version already.
    pub(crate) fn handed_over(
        &mut self,
        path: &str,
        size: u64,
        sha256: &str,
        media_type: String,
        at: Timestamp,
    ) -> Option<Deliverable> {
        let last = self.deliverables.get(path);
        if last.is_some_and(|last| last.sha256 == sha256) {
            return None;
        }
        let version = last.map_or(0, |last| last.n) + 1;
        let sha256 = sha256.to_owned();
        self.delivered_bytes = self.delivered_bytes.saturating_add(size);
        self.deliverables.insert(path.to_owned(), Version { n: version, sha256: sha256.clone() });
        Some(Deliverable {
            path: path.into(),
            version,
            size,
            sha256,
            media_type,
            at,
            attempt: self.attempt(),
        })
    }
}

/// What counts as done. Without a choice: what the way of reporting makes plain.
pub(crate) fn completion(spec: &TaskSpec) -> Vec<Completion> {
    use castra_proto::spec::Mode;
    if let Some(chosen) = &spec.completion {
        return chosen.clone();
    }
    match (spec.protocol, mode(spec)) {
        (Protocol::None, _) if spec.instructions.is_none() => Vec::new(),
        (Protocol::None, Mode::Stream) => vec![Completion::Result],
        (Protocol::None, Mode::Terminal) => vec![Completion::Exit],
        (_, Mode::Stream) => vec![Completion::Protocol],
        (_, Mode::Terminal) => vec![Completion::Protocol, Completion::Exit],
    }
}

pub(crate) fn mode(spec: &TaskSpec) -> castra_proto::spec::Mode {
    spec.mode.unwrap_or(spec.session.mode)
}

/// Whether its agent has castra's MCP server, which goes over claude's control channel.
pub(crate) fn has_mcp(spec: &TaskSpec) -> bool {
    spec.protocol.has_mcp() && mode(spec) == castra_proto::spec::Mode::Stream
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
