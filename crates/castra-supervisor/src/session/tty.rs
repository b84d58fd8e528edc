//! The actor's part of a run on a terminal: what its log holds besides claude's stdout, and typing at a proven moment.
//!
//! Every record goes to the transcript's decoder, which says the same facts as a stream would; bytes of the terminal
//! go to the screen. What is typed is a paste, quiet, then Enter; Enter alone makes it a message that is with claude.

use super::actor::Actor;
use super::commands::{CONTROL, INTERRUPT, PERMISSION};
use super::view::Effect;
use crate::Result;
use crate::engine::now;
use crate::host::Record;
use crate::terminal::Size;
use castra_claude::fact::{Decoded, Fact};
use castra_claude::input;
use castra_claude::line::{RecordIn, StreamIn};
use castra_claude::tail::{Tail, Told};
use castra_claude::terminal::answer::{self, Expect};
use castra_claude::terminal::screen::{Dialog, Screen, screen};
use castra_claude::terminal::signal::{State, Status};
use castra_claude::terminal::typing::{ENTER, PROBE, type_text};
use castra_proto::api::SendMessage;
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use castra_proto::shim::{How, Note, Stream, TailRule, Which};
use castra_proto::{MessageId, RunState};
use castra_store::{CommandRow, CommandState};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

/// Silence of the terminal after which what was pasted is in the composer (facts/seed-packages.md §3).
const QUIET: Duration = Duration::from_millis(300);
/// After which an Enter that nothing came of is looked into.
const UNHEARD: Duration = Duration::from_secs(2);
/// Between two looks at a screen that is not ready for what is to be typed.
const LOOK: Duration = Duration::from_millis(50);
const ENTERS: u32 = 5;
/// Clears the composer.
const CLEAR: &[u8] = b"\x15";
const ESC: &[u8] = b"\x1b";

/// Index of the rule for claude's state file.
const STATE: u8 = 1;

/// What the shim tails for a run on a terminal. `project`: the transcripts' folder, below the config folder.
pub(crate) fn rules(config_dir: &str, project: &str, only: Option<Uuid>) -> Vec<TailRule> {
    let rule = |path: String, suffix: &str| TailRule {
        dir: config_dir.to_owned(),
        path,
        suffix: suffix.to_owned(),
        depth: 0,
        which: Which::All,
        how: How::Append,
        known: BTreeMap::new(),
        skip_existing: false,
    };
    vec![
        TailRule {
            depth: 2,
            which: only.map_or(Which::All, |id| Which::Named(vec![id.to_string()])),
            // What was there belongs to an earlier run's log, or to nobody's.
            skip_existing: true,
            ..rule(format!("projects/{project}"), ".jsonl")
        },
        TailRule { which: Which::Pid, how: How::Snapshot, ..rule("sessions".into(), ".json") },
    ]
}

/// What is known of a run's terminal.
pub(crate) struct Tty {
    tail: Tail,
    /// Rule of each tailed stream, by its newest `file` note.
    rules: BTreeMap<u8, u8>,
    state: Option<State>,
    /// When the terminal last showed something.
    heard: Instant,
    typing: Option<Typing>,
    answering: Option<Answering>,
    /// Entered and not seen back: the message and its text.
    sent: Option<(Uuid, String)>,
    looked: Instant,
    /// The dialog that was asked about last. It stays on the screen for a moment after its answer.
    asked: Option<String>,
}

/// A message on its way into the composer.
struct Typing {
    message: MessageId,
    text: String,
    step: Step,
    since: Instant,
    enters: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The composer is being cleared.
    Clearing,
    Pasted,
    Entered,
    /// A blank was typed, to see whether the composer takes anything.
    Probed,
}

struct Answering {
    command: Uuid,
    steps: VecDeque<answer::Step>,
    then: Expect,
    n: u32,
}

impl Tty {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            tail: Tail::new(),
            rules: BTreeMap::new(),
            state: None,
            heard: now,
            typing: None,
            answering: None,
            sent: None,
            looked: now,
            asked: None,
        }
    }

    pub(crate) fn hold(&self) -> Option<u64> {
        self.tail.hold()
    }

    /// When it wants to look again.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.typing.is_some() || self.answering.is_some()).then(|| self.looked + LOOK)
    }

    fn is_quiet(&self, since: Instant) -> bool {
        self.heard.max(since).elapsed() >= QUIET
    }
}

impl Actor<'_> {
    /// The oldest record that a decoder still needs.
    pub(crate) fn hold(&self) -> Option<u64> {
        self.tty.as_ref().map_or_else(|| self.decoder.hold(), Tty::hold)
    }

    /// A terminal's run is followed from its first record: the screen is what all of them made of it.
    pub(crate) async fn tty_begin(&mut self) -> Result<Option<u64>> {
        if self.tty.is_none() {
            return Ok(None);
        }
        let mut tty = Tty::new();
        if let Some(in_flight) = &self.view.in_flight
            && let Some(row) = self.engine.store.message(self.id, in_flight.message).await?
            && let Some(text) = text_of(&row.body)
        {
            // Entered by an earlier daemon and not seen back: it is waited for, and entered again if it still stands.
            let message = in_flight.message;
            tty.sent = Some((message.0, text.clone()));
            tty.typing =
                Some(Typing { message, text, step: Step::Entered, since: Instant::now(), enters: 0 });
        }
        self.tty = Some(tty);
        self.hub.screen.begin();
        Ok(Some(1))
    }

    fn look(&self) -> Screen {
        self.hub
            .screen
            .with(|terminal| screen(&terminal.screen_text(), terminal.title()))
            .unwrap_or(Screen::Unknown)
    }

    /// A record of a run on a terminal. `replayed`: its events are committed already.
    pub(crate) fn tty_record(&mut self, record: &Record, replayed: bool) {
        let Some(tty) = &mut self.tty else { return };
        let mut told = Vec::new();
        let mut snapshot = None;
        let stream = match record.stream {
            Stream::Pty => {
                tty.heard = Instant::now();
                self.hub.screen.feed(&record.bytes);
                StreamIn::Shim
            }
            Stream::File(n) if tty.rules.get(&n) == Some(&STATE) => {
                snapshot = Some(State::parse(&record.bytes).unwrap_or_default());
                StreamIn::Shim
            }
            Stream::File(n) => StreamIn::File(n),
            Stream::In => StreamIn::In,
            Stream::Shim => {
                match Note::decode(&record.bytes) {
                    Ok(Note::File { stream, rule, .. }) => {
                        tty.rules.insert(stream, rule);
                    }
                    Ok(Note::Resized { rows, cols }) => self.hub.screen.resized(Size::new(rows, cols)),
                    _ => {}
                }
                StreamIn::Shim
            }
            Stream::Out | Stream::Err => return,
        };
        match snapshot {
            Some(state) => {
                tty.tail.state(record.seq, record.at, &state, &mut told);
                tty.state = Some(state);
            }
            None => {
                let (seq, at, offset) = (record.seq, record.at, record.offset);
                let bytes = record.bytes.clone();
                tty.tail.step(&RecordIn { seq, at, stream, offset, bytes }, &mut told);
            }
        }
        if !replayed {
            self.told(told);
            self.look_after(record.stream);
        }
    }

    /// The run is over: what the transcript still held back is told.
    pub(crate) fn tty_finish(&mut self) {
        let Some(tty) = &mut self.tty else { return };
        let mut told = Vec::new();
        tty.tail.finish(self.run.decoded, u64::MAX, &mut told);
        self.told(told);
        self.hub.screen.end();
    }

    fn told(&mut self, told: Vec<Told>) {
        for told in told {
            let line = self.seen_back(told);
            self.view.apply(line, &self.given, &mut self.added);
        }
    }

    /// Tells the prompt that was typed here from one that a person typed.
    fn seen_back(&mut self, told: Told) -> Decoded {
        let Some(tty) = &mut self.tty else { return told.line };
        let sent = tty.sent.as_ref().map(|(id, text)| (*id, text.as_str()));
        let (line, found) = told.delivered(sent.as_slice());
        if found.is_some() {
            tty.sent = None;
            tty.typing = None;
        }
        line
    }

    /// What the screen says and no transcript does: that claude is ready, that it asks, that it asks no more.
    fn look_after(&mut self, stream: Stream) {
        if !self.view.ready {
            if stream == Stream::Pty && matches!(self.look(), Screen::Prompt(_)) {
                self.view.ready = true;
                self.view.shift(super::state::Cause::Ready, now(), &mut self.added);
                self.added.effects.push(Effect::Ready(json!({})));
            }
            return;
        }
        let Some(tty) = &mut self.tty else { return };
        let waiting = tty.state.as_ref().is_some_and(|state| state.status == Some(Status::Waiting));
        if !waiting {
            // A person answered, or claude took it back; an answer of castra's is settled when it is typed.
            for pending in self.view.pending.clone() {
                let gone = Fact::PermissionWithdrawn { request_id: pending.request_id };
                self.view.apply_fact(gone, now(), &self.given, &mut self.added);
            }
            return;
        }
        let since = tty.state.as_ref().and_then(|state| state.since_ms).unwrap_or_default();
        let id = Uuid::new_v5(&self.run.id.0, format!("dialog {since}").as_bytes()).to_string();
        if !self.view.pending.is_empty() || tty.asked.as_ref() == Some(&id) {
            return;
        }
        let Screen::Dialog(dialog) = self.look() else { return };
        let Some(tty) = &mut self.tty else { return };
        tty.asked = Some(id.clone());
        let asked = answer::asked(&id, &dialog, tty.tail.calls());
        self.view.apply_fact(Fact::PermissionAsked(Box::new(asked)), now(), &self.given, &mut self.added);
    }

    /// What those who sit at the terminal did.
    pub(crate) async fn tty_hands(&mut self) -> Result<()> {
        use super::screen::Hand;
        for hand in self.hub.screen.take_hands() {
            let Some(writer) = &mut self.writer else { return Ok(()) };
            match hand {
                Hand::Type(bytes) => writer.write(Uuid::new_v4(), &bytes).await?,
                Hand::Resize(size) => writer.resize(size.rows, size.cols).await?,
            }
        }
        Ok(())
    }

    /// Begins to type a message, if the composer is there for it.
    pub(crate) async fn tty_deliver(&mut self, id: MessageId) -> Result<()> {
        let Some(row) = self.commands.waiting.iter().find(|message| message.id == id) else { return Ok(()) };
        let text = text_of(&row.body);
        let composer = match self.look() {
            Screen::Prompt(composer) => composer,
            _ => return Ok(()),
        };
        let Some(tty) = &mut self.tty else { return Ok(()) };
        if tty.typing.is_some() || tty.answering.is_some() {
            return Ok(());
        }
        let Some(text) = text else {
            warn!(session = %self.id, message = %id, "a terminal takes text only");
            return Ok(());
        };
        let step = if composer.text.is_empty() { Step::Pasted } else { Step::Clearing };
        let since = Instant::now();
        tty.typing = Some(Typing { message: id, text: text.clone(), step, since, enters: 0 });
        match step {
            Step::Clearing => self.write(Uuid::new_v4(), CLEAR).await,
            _ => self.paste(id, &text).await,
        }
    }

    async fn paste(&mut self, id: MessageId, text: &str) -> Result<()> {
        match type_text(text) {
            // A new id each time: after a crash it is pasted again into a composer that was cleared, and the shim
            // would drop a double. Enter bears the message's own.
            Ok(typed) => self.write(Uuid::new_v4(), &typed.paste).await,
            Err(error) => {
                // Refused when it was sent; here only if the rules have changed since.
                warn!(session = %self.id, message = %id, %error, "cannot be typed");
                if let Some(tty) = &mut self.tty {
                    tty.typing = None;
                }
                Ok(())
            }
        }
    }

    /// Goes on with what is being typed or answered.
    pub(crate) async fn tty_look(&mut self) -> Result<()> {
        let Some(tty) = &mut self.tty else { return Ok(()) };
        if tty.looked.elapsed() < LOOK {
            return Ok(());
        }
        tty.looked = Instant::now();
        self.go_on_answering().await?;
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let Some(typing) = &tty.typing else { return Ok(()) };
        let (id, step, since) = (typing.message, typing.step, typing.since);
        let (text, enters, quiet) = (typing.text.clone(), typing.enters, tty.is_quiet(since));
        let next = match step {
            Step::Clearing if quiet => {
                self.paste(id, &text).await?;
                Step::Pasted
            }
            Step::Pasted if quiet => {
                if let Some(tty) = &mut self.tty {
                    tty.sent = Some((id.0, text));
                }
                crate::failpoint::failpoint!("write.before");
                self.write(id.0, ENTER).await?;
                crate::failpoint::failpoint!("write.after");
                Step::Entered
            }
            Step::Entered if since.elapsed() >= UNHEARD && enters < ENTERS => match self.look() {
                // It still stands there: was Enter lost, or is claude slow? A blank tells.
                Screen::Prompt(composer) if !composer.text.is_empty() => {
                    self.write(Uuid::new_v5(&id.0, format!("probe {enters}").as_bytes()), PROBE).await?;
                    Step::Probed
                }
                _ => Step::Entered,
            },
            Step::Probed if quiet => match self.look() {
                Screen::Prompt(composer) if !composer.text.is_empty() => {
                    self.write(Uuid::new_v5(&id.0, format!("enter {enters}").as_bytes()), ENTER).await?;
                    Step::Entered
                }
                _ => Step::Entered,
            },
            _ => return Ok(()),
        };
        if let Some(typing) = self.tty.as_mut().and_then(|tty| tty.typing.as_mut()) {
            typing.enters += u32::from(step == Step::Probed);
            typing.step = next;
            typing.since = Instant::now();
        }
        Ok(())
    }

    /// Answers a dialog by keys, the first of which is the answer's own write.
    pub(crate) async fn tty_answer(&mut self, command: Uuid, given: &PermissionAnswer) -> Result<()> {
        let Screen::Dialog(dialog) = self.look() else { return Ok(()) };
        match answer::answer(&dialog, given) {
            Ok(steps) => {
                let mut steps = VecDeque::from(steps);
                let Some(first) = steps.pop_front() else { return Ok(()) };
                if let Some(tty) = &mut self.tty {
                    tty.answering = Some(Answering { command, steps, then: first.then, n: 1 });
                }
                self.write(command, &first.bytes).await
            }
            Err(error) => {
                warn!(session = %self.id, %error, "an answer that keys cannot give");
                self.command_done(
                    castra_proto::CommandId(command),
                    CommandState::Superseded,
                    Some(json!({"error": error.to_string()})),
                );
                Ok(())
            }
        }
    }

    async fn go_on_answering(&mut self) -> Result<()> {
        if self.tty.as_ref().is_none_or(|tty| tty.answering.is_none()) {
            return Ok(());
        }
        let shown = match self.look() {
            Screen::Dialog(dialog) => Some(dialog),
            _ => None,
        };
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let Some(answering) = &mut tty.answering else { return Ok(()) };
        if !is_met(answering.then, shown.as_ref()) {
            return Ok(());
        }
        let Some(step) = answering.steps.pop_front() else {
            tty.answering = None;
            return Ok(());
        };
        answering.then = step.then;
        let id = Uuid::new_v5(&answering.command, &answering.n.to_be_bytes());
        answering.n += 1;
        self.write(id, &step.bytes).await
    }

    /// What ends the turn: Esc, as a person would, or the control request.
    pub(crate) fn interrupt_bytes(&self, id: Uuid) -> Vec<u8> {
        match self.tty {
            Some(_) => ESC.to_vec(),
            None => input::interrupt(&id.to_string()),
        }
    }

    /// Carries out what a terminal needs keys for. False: it is the same as on a stream.
    pub(crate) async fn tty_execute(&mut self, command: &CommandRow) -> Result<bool> {
        match command.kind.as_str() {
            PERMISSION => {
                let asked =
                    |pending: &PermissionRequest| Some(&pending.request_id) == command.subject.as_ref();
                let given = serde_json::from_value::<PermissionAnswer>(command.args.clone());
                match given {
                    Ok(given) if self.view.pending.iter().any(asked) => {
                        self.tty_answer(command.id.0, &given).await?;
                    }
                    _ => self.command_done(command.id, CommandState::Superseded, None),
                }
            }
            INTERRUPT => {
                // Esc at the prompt would mean something else.
                if self.view.state != RunState::Idle {
                    self.write(command.id.0, ESC).await?;
                }
                self.command_done(command.id, CommandState::Done, None);
            }
            CONTROL => {
                let error = json!({"error": "a session on a terminal takes no control requests"});
                self.command_done(command.id, CommandState::Superseded, Some(error));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What a terminal can be told of a message.
fn text_of(body: &str) -> Option<String> {
    serde_json::from_str::<SendMessage>(body).ok()?.text
}

fn is_met(expect: Expect, dialog: Option<&Dialog>) -> bool {
    match (expect, dialog) {
        (Expect::Gone, dialog) => dialog.is_none(),
        (Expect::Selected(n), Some(dialog)) | (Expect::Field(n), Some(dialog)) => {
            dialog.options.iter().any(|option| option.number == n && option.selected)
        }
        _ => false,
    }
}
