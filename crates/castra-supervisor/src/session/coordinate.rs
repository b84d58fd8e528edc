//! The log in which a task's agent reports: which stream of the record log carries it, and what it says, as events of
//! the session. Refuses to draw conclusions: that is the task's business.

use super::actor::Actor;
use super::serve::Call;
use super::view::View;
use crate::host::Record;
use crate::task::protocol::{Enabled, Entry, PAUSE_US, Reader, Said};
use castra_proto::shim::{How, Stream, TailRule, Which};
use castra_proto::{OwnKind, TaskId, Timestamp};
use castra_store::NewEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_micros(PAUSE_US as u64);

/// What makes a session an attempt at a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coordination {
    pub task: TaskId,
    /// The agent's log below the folder it works in; None: it reports otherwise.
    pub log: Option<String>,
    pub enabled: Enabled,
    /// It has castra's MCP server.
    pub mcp: bool,
    /// Of its tools, those that wait for their result.
    pub calls: Vec<Call>,
    reader: Reader,
    /// Of this run: the rule that tails the log, and the stream that carries it.
    rule: Option<u8>,
    stream: Option<u8>,
}

impl Coordination {
    pub(crate) fn new(task: TaskId, log: Option<String>, mcp: bool, enabled: Enabled) -> Self {
        let reader = Reader::new(enabled);
        Self { task, log, enabled, mcp, calls: Vec::new(), reader, rule: None, stream: None }
    }

    /// Another run, and another log: the last one was put away.
    pub(crate) fn begin_run(&mut self) {
        *self = Self::new(self.task, self.log.take(), self.mcp, self.enabled);
    }

    /// Its end was said, in the log.
    pub(crate) fn has_ended(&self) -> bool {
        self.reader.ended()
    }

    /// The rule that tails the log; `n`: its place among the run's rules.
    pub(crate) fn tail(&mut self, work: &str, n: usize) -> Option<TailRule> {
        let log = self.log.as_deref()?;
        let (path, name) = log.rsplit_once('/').unwrap_or(("", log));
        self.rule = u8::try_from(n).ok();
        Some(TailRule {
            dir: work.to_owned(),
            path: path.to_owned(),
            suffix: name.to_owned(),
            depth: 0,
            which: Which::All,
            how: How::Append,
            known: BTreeMap::new(),
            skip_existing: false,
        })
    }

    /// A stream carries another file from here on.
    fn bound(&mut self, stream: u8, rule: u8, path: &str, at: u64) -> Option<Entry> {
        let name = self.log.as_deref().map(|log| log.rsplit_once('/').map_or(log, |(_, name)| name));
        if self.rule != Some(rule) || name != Some(path) {
            self.stream = self.stream.filter(|own| *own != stream);
            return None;
        }
        self.stream = Some(stream);
        // From its first byte: truncated or replaced.
        if at == 0 { self.reader.restart() } else { None }
    }
}

/// The shim's clock as the reader wants it.
fn moment(boot_ns: u64) -> Timestamp {
    Timestamp(i64::try_from(boot_ns / 1000).unwrap_or(i64::MAX))
}

impl View {
    fn say(&self, at: Timestamp, entry: Entry) -> NewEvent {
        let (kind, data) = event_of(entry.said);
        self.event(at, kind, &data)
    }
}

impl Actor<'_> {
    /// Notes where the agent's log is.
    pub(crate) fn log_bound(&mut self, at_ns: u64, stream: u8, rule: u8, path: &str, at: u64) {
        let Some(task) = &mut self.view.coordination else { return };
        let said = task.bound(stream, rule, path, at);
        self.said(at_ns, said);
    }

    /// Takes bytes of the agent's log.
    pub(crate) fn log_bytes(&mut self, record: &Record) {
        let Some(task) = &mut self.view.coordination else { return };
        if !matches!(record.stream, Stream::File(stream) if Some(stream) == task.stream) {
            return;
        }
        let said = task.reader.push(moment(record.at), &record.bytes);
        self.said(record.at, said);
        self.touch();
        self.log_waits();
    }

    /// An end line counts when nothing follows it: whoever looks is woken then.
    pub(crate) fn log_waits(&mut self) {
        let waits = self.view.coordination.as_ref().is_some_and(|task| task.reader.due().is_some());
        self.end_line = waits.then(|| Instant::now() + PAUSE);
    }

    pub(crate) fn log_settles(&mut self) {
        if self.end_line.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.end_line = None;
        let Some(task) = &mut self.view.coordination else { return };
        let said = task.reader.due().and_then(|due| task.reader.settle(due));
        self.said_now(said);
    }

    /// Nobody is left who could write.
    pub(crate) fn log_is_over(&mut self) {
        self.end_line = None;
        let said = self.view.coordination.as_mut().and_then(|task| task.reader.finish());
        self.said_now(said);
    }

    fn said(&mut self, at_ns: u64, said: impl IntoIterator<Item = Entry>) {
        let at = self.view.clock.map_or_else(|| self.at(), |clock| clock.at(at_ns));
        for entry in said {
            let event = self.view.say(at, entry);
            self.added.events.push(event);
        }
    }

    fn said_now(&mut self, said: Option<Entry>) {
        if let Some(entry) = said {
            let event = self.view.say(self.at(), entry);
            self.added.events.push(event);
        }
    }
}

pub(crate) fn event_of(said: Said) -> (OwnKind, Value) {
    let status = |what: &str, message: Option<String>| {
        (OwnKind::Status, json!({"said": what, "message": message.unwrap_or_default()}))
    };
    match said {
        Said::Status { percent, message } => {
            (OwnKind::Status, json!({"said": "status", "percent": percent, "message": message}))
        }
        Said::Progress { text } => status("line", Some(text)),
        Said::Stray { text } => status("stray", Some(text)),
        Said::Done { summary } => status("done", summary),
        Said::Error { message } => status("error", message),
        Said::Deliverable { path } => (OwnKind::Deliverable, json!({"path": path})),
        Said::Attention { reason } => (OwnKind::Attention, json!({"reason": reason})),
        Said::Browser { url } => (OwnKind::Browser, json!({"url": url})),
        Said::ClientMessage { name, data } => (OwnKind::ClientMessage, json!({"name": name, "data": data})),
        Said::CallerMessage { name, data } => (OwnKind::CallerMessage, json!({"name": name, "data": data})),
    }
}
