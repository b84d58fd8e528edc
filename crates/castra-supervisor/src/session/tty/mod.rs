//! The actor's part of a run on a terminal: what its log holds besides claude's stdout, and what follows from it.
//!
//! Every record goes to the transcript's decoder, which says the same facts as a stream would; bytes of the terminal
//! go to the screen. `typing` writes messages, `dialog` answers what claude asks, `checkpoint` keeps the screen for
//! the next daemon. No key is pressed into a screen that was not recognised.

mod checkpoint;
mod dialog;
mod modes;
mod typing;

pub(crate) use checkpoint::last_screen;
pub(crate) use typing::typed;

use super::actor::Actor;
use super::commands::{CONTROL, INTERRUPT, PERMISSION};
use super::screen::Hand;
use super::state::Cause;
use super::view::Effect;
use crate::Result;
use crate::engine::now;
use crate::host::Record;
use crate::terminal::Size;
use castra_claude::fact::{Decoded, Fact};
use castra_claude::input;
use castra_claude::line::{RecordIn, StreamIn};
use castra_claude::tail::{Source, Tail, Told};
use castra_claude::terminal::answer::is_unknown_screen;
use castra_claude::terminal::screen::{Screen, is_hint};
use castra_claude::terminal::signal::{State, Status};
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use castra_proto::shim::{How, Note, Stream, TailRule, Which};
use castra_proto::{MessageId, RunState};
use castra_store::{CommandRow, CommandState};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Silence of the terminal after which what was pasted is in the composer (facts/seed-packages.md §3).
const QUIET: Duration = Duration::from_millis(300);
/// After which a key that nothing came of is looked into.
const UNHEARD: Duration = Duration::from_secs(2);
/// Between two looks at a screen that is not ready for what is to be done.
const LOOK: Duration = Duration::from_millis(50);
const ESC: &[u8] = b"\x1b";

/// Index of the rule for claude's state file.
const STATE: u8 = 1;

/// What the shim tails for a run on a terminal. `project`: the transcripts' folder, below the config folder. `only`:
/// in a home that is not the session's own, the conversations that are; claude's state file names further ones.
pub(crate) fn rules(config_dir: &str, project: &str, only: Option<Vec<Uuid>>) -> Vec<TailRule> {
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
    let named = |ids: Vec<Uuid>| Which::Named(ids.iter().map(Uuid::to_string).collect());
    vec![
        TailRule {
            depth: 2,
            which: only.map_or(Which::All, named),
            // What was there belongs to an earlier run's log, or to nobody's.
            skip_existing: true,
            ..rule(format!("projects/{project}"), ".jsonl")
        },
        TailRule { which: Which::Pid, how: How::Snapshot, ..rule("sessions".into(), ".json") },
    ]
}

/// What is known of a run's terminal, and can be known again from the log.
pub(crate) struct Tty {
    tail: Tail,
    state: Option<State>,
    /// When the terminal last showed something.
    heard: Instant,
    /// The newest record: its time by the shim's clock, and by ours.
    clock: (u64, Instant),
    looked: Instant,
    typing: Option<typing::Typing>,
    answering: Option<dialog::Answering>,
    switching: Option<modes::Switching>,
    /// Entered and not seen back: the message and its text.
    sent: Option<(Uuid, String)>,
    /// A message that was entered, and whose turn was interrupted before anybody saw it back.
    vain: Option<MessageId>,
    /// Something may stand in the composer, or come to stand there, that cannot be seen.
    unsure: bool,
    /// Since when claude has waited, by its state file.
    waiting_since: Option<Instant>,
    /// Since when the screen has been one that castra does not know.
    strange: Option<Instant>,
    saved: checkpoint::Saved,
}

impl Tty {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            tail: Tail::new(),
            state: None,
            heard: now,
            clock: (0, now),
            looked: now,
            typing: None,
            answering: None,
            switching: None,
            sent: None,
            vain: None,
            unsure: false,
            waiting_since: None,
            strange: None,
            saved: checkpoint::Saved::default(),
        }
    }

    fn is_waiting(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.status == Some(Status::Waiting))
    }

    /// Something is on its way into the terminal.
    fn is_occupied(&self) -> bool {
        self.typing.is_some() || self.answering.is_some() || self.switching.is_some()
    }

    /// When the transcript's decoder wants a further record.
    fn due(&self) -> Option<Instant> {
        let (at, here) = self.clock;
        self.tail.due().map(|due| here + Duration::from_nanos(due.saturating_sub(at)))
    }
}

/// Something stands in the composer.
fn holds(screen: &Screen) -> bool {
    matches!(screen, Screen::Prompt(composer) | Screen::Busy(composer) if !composer.text.is_empty())
}

impl Actor<'_> {
    /// The oldest record that a decoder still needs.
    pub(crate) fn hold(&self) -> Option<u64> {
        self.tty.as_ref().map_or_else(|| self.decoder.hold(), |tty| tty.tail.hold())
    }

    /// When the terminal is to be looked at again: only while something is to be done there.
    pub(crate) fn tty_next(&self) -> Option<Instant> {
        let tty = self.tty.as_ref()?;
        let look = (tty.is_occupied() || self.is_stuck()).then(|| tty.looked + LOOK);
        [look, tty.due()].into_iter().flatten().min()
    }

    /// A joined run: what the view and the checkpoint know of it. The first record that is needed.
    pub(crate) async fn tty_begin(&mut self, from: u64) -> Result<u64> {
        if self.tty.is_none() {
            return Ok(from);
        }
        let mut tty = Tty::new();
        if let Some(clock) = self.view.clock {
            tty.tail.since(clock.at(clock.boot_ns));
        }
        tty.state = self.view.terminal.state.as_ref().and_then(|state| State::parse(state.as_bytes()));
        tty.strange = self.view.pending.iter().any(is_unknown_screen).then(Instant::now);
        // What an earlier daemon pasted may not be on the screen yet.
        tty.unsure = self.view.ready;
        self.tty = Some(tty);
        self.tty_entered().await?;
        Ok(from.min(self.screen_begin().await))
    }

    /// What claude shows; a hint in the composer is no text.
    fn look(&self) -> Screen {
        let mut screen = self.hub.screen.look();
        if let Screen::Prompt(composer) | Screen::Busy(composer) = &mut screen
            && !composer.text.is_empty()
            && !composer.text.contains('\n')
            && self.hub.screen.with(|terminal| is_hint(&terminal.screen_ansi())) == Some(true)
        {
            composer.text.clear();
        }
        screen
    }

    /// A record of a run on a terminal. `replayed`: its events are committed already.
    pub(crate) fn tty_record(&mut self, record: &Record, replayed: bool) {
        let Some(tty) = &mut self.tty else { return };
        tty.clock = (record.at, Instant::now());
        let streams = &mut self.view.terminal.streams;
        let mut snapshot = None;
        let stream = match record.stream {
            Stream::Pty => {
                tty.heard = tty.clock.1;
                tty.saved.fed(record.bytes.len());
                self.hub.screen.feed(record.seq, &record.bytes);
                StreamIn::Shim
            }
            Stream::File(n) if streams.get(&n) == Some(&STATE) => {
                snapshot = Some(State::parse(&record.bytes).unwrap_or_default());
                StreamIn::Shim
            }
            Stream::File(n) => StreamIn::File(n),
            Stream::In => StreamIn::In,
            Stream::Shim => {
                match Note::decode(&record.bytes) {
                    Ok(Note::File { stream, rule, .. }) if !replayed => {
                        streams.insert(stream, rule);
                    }
                    Ok(Note::Started { wall_ns, .. }) => {
                        tty.tail.since(castra_proto::Timestamp((wall_ns / 1000) as i64));
                    }
                    Ok(Note::Resized { rows, cols }) => {
                        self.hub.screen.resized(record.seq, Size::new(rows, cols));
                    }
                    _ => {}
                }
                StreamIn::Shim
            }
            Stream::Out | Stream::Err => return,
        };
        let mut told = Vec::new();
        match snapshot {
            Some(state) => {
                tty.tail.state(record.seq, record.at, &state, &mut told);
                if !replayed {
                    self.view.terminal.state = Some(String::from_utf8_lossy(&record.bytes).into_owned());
                    tty.state = Some(state);
                    let since = tty.waiting_since.unwrap_or(tty.clock.1);
                    tty.waiting_since = tty.is_waiting().then_some(since);
                }
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

    /// The run is over: what the transcript still held back is told, and its last screen is kept.
    pub(crate) async fn tty_finish(&mut self) {
        let Some(tty) = &mut self.tty else { return };
        let mut told = Vec::new();
        tty.tail.finish(self.run.decoded, u64::MAX, &mut told);
        self.told(told);
        self.save_screen().await;
        self.hub.screen.end();
    }

    fn told(&mut self, told: Vec<Told>) {
        for told in told {
            self.note_output(&told);
            let line = self.seen_back(told);
            self.follow_model(&line.fact);
            self.view.apply(line, &self.given, &mut self.added);
        }
        self.typing_over();
    }

    /// The model that answers: nothing else in a transcript names it.
    fn follow_model(&mut self, fact: &Fact) {
        let Fact::Assistant(assistant) = fact else { return };
        let by = assistant.model.as_ref().filter(|model| !model.starts_with('<'));
        if assistant.parent_tool_use_id.is_none() && by.is_some() && self.view.model.as_ref() != by {
            self.view.model = by.cloned();
            self.added.changed = true;
        }
    }

    /// Tells the prompt that was typed here from one that a person typed.
    fn seen_back(&mut self, told: Told) -> Decoded {
        let Some(tty) = &mut self.tty else { return told.line };
        let sent = tty.sent.as_ref().map(|(id, text)| (*id, text.as_str()));
        let other = told.prompt.as_ref().is_some_and(|prompt| prompt.source != Source::System);
        let (line, found) = told.delivered(sent.as_slice());
        if other
            && found.is_none()
            && let Some(in_flight) = &mut self.view.in_flight
        {
            // Somebody else's prompt began this turn: its end is not ours.
            in_flight.turn_began = false;
        }
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
                // A screen that nobody knew may have stood before it.
                self.view.shift(Cause::Ready, now(), &mut self.added);
                self.view.shift(Cause::TurnOver, now(), &mut self.added);
                self.nobody_is_asked();
                self.added.effects.push(Effect::Ready(json!({})));
            }
            return;
        }
        self.look_again();
        let Some(tty) = &self.tty else { return };
        if tty.is_waiting() {
            self.ask_dialog();
        } else if tty.strange.is_none() {
            // A person answered, or claude took it back; an answer of castra's is settled when it is typed.
            self.nobody_is_asked();
        }
    }

    /// What those who sit at the terminal did.
    pub(crate) async fn tty_hands(&mut self) -> Result<()> {
        for hand in self.hub.screen.take_hands() {
            let Some(writer) = &mut self.writer else { return Ok(()) };
            match hand {
                Hand::Type(bytes) => writer.write(Uuid::new_v4(), &bytes).await?,
                Hand::Resize(size) => writer.resize(size.rows, size.cols).await?,
                Hand::Left => self.save_screen().await,
            }
        }
        Ok(())
    }

    /// Goes on with what is to be done at the terminal.
    pub(crate) async fn tty_look(&mut self) -> Result<()> {
        let Some(tty) = &mut self.tty else { return Ok(()) };
        if tty.due().is_some_and(|due| due <= Instant::now())
            && let Some(writer) = &mut self.writer
        {
            // The decoder knows no other clock than records. To the size that it has: claude sees nothing of it.
            let size =
                self.hub.screen.with(|terminal| terminal.size()).unwrap_or(crate::terminal::DEFAULT_SIZE);
            writer.resize(size.rows, size.cols).await?;
            tty.clock.1 = Instant::now();
        }
        if tty.looked.elapsed() < LOOK || self.behind.is_some() {
            return Ok(());
        }
        tty.looked = Instant::now();
        if tty.is_waiting() {
            self.ask_dialog();
        }
        self.go_on_answering().await?;
        self.go_on_switching().await?;
        self.go_on_typing().await?;
        self.watch_screen();
        if !self.added.events.is_empty() || self.is_dirty() {
            // At once: a command that is done and not known to be would be carried out again.
            self.commit().await?;
        }
        self.act().await
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
                        self.tty_answer(command.id, &given).await?;
                    }
                    _ => self.command_done(command.id, CommandState::Superseded, None),
                }
            }
            INTERRUPT => {
                // Esc at the prompt would mean something else.
                if self.view.state != RunState::Idle {
                    self.write(command.id.0, ESC).await?;
                    self.typed_in_vain();
                }
                self.command_done(command.id, CommandState::Done, None);
            }
            CONTROL => self.tty_control(command).await?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
