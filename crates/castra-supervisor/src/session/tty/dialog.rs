//! What claude asks on its screen, and the keys that answer it. A screen that nobody knows is shown to somebody, and
//! nothing is pressed into it.

use super::{Tty, UNHEARD};
use crate::Result;
use crate::engine::now;
use crate::session::actor::Actor;
use crate::session::state::Cause;
use crate::session::view::Given;
use crate::terminal::Terminal;
use castra_claude::fact::Fact;
use castra_claude::terminal::answer::{self, Expect, is_unknown_screen};
use castra_claude::terminal::screen::{Dialog, Screen};
use castra_claude::terminal::signal::Status;
use castra_proto::CommandId;
use castra_proto::permission::{PermissionAnswer, PermissionKind};
use castra_store::CommandState;
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

/// How long a screen that nobody knows must stand still before somebody is asked to look at it.
const STILL: Duration = Duration::from_secs(2);
/// The same for one that never stands still.
const RESTLESS: Duration = Duration::from_secs(10);

/// How much later than claude's dialog the transcript may tell what it is about.
const UNTOLD: Duration = Duration::from_secs(3);

/// The keys of an answer that are still to be pressed.
pub(super) struct Answering {
    command: CommandId,
    steps: VecDeque<answer::Step>,
    then: Expect,
    n: u32,
    /// What the dialog says, and since when claude has waited in it: the next one is not to be answered with it.
    dialog: (String, Option<u64>),
    /// The keys that were pressed last, and when.
    pressed: Vec<u8>,
    since: Instant,
    /// The option that was selected when a probe was pressed.
    probed: Option<u8>,
    tries: u32,
}

/// After which an answer is given up.
const GIVEN_UP: Duration = Duration::from_secs(15);
const TRIES: u32 = 3;
/// Moves the selection and chooses nothing: where it is seen to have moved, the key before it was lost.
const DOWN: &[u8] = b"\x1b[B";

impl Actor<'_> {
    /// claude waits in a dialog, by its own word.
    pub(super) fn ask_dialog(&mut self) {
        let Some(tty) = &self.tty else { return };
        if tty.switching.is_some() {
            // castra's own doing, and answered by it.
            return;
        }
        let since = tty.state.as_ref().and_then(|state| state.since_ms).unwrap_or_default();
        let id =
            Uuid::new_v5(&self.run.id.0, format!("dialog {since} {}", self.view.terminal.in_vain).as_bytes())
                .to_string();
        if !self.view.pending.is_empty() || self.view.terminal.asked.as_ref() == Some(&id) {
            return;
        }
        let Screen::Dialog(dialog) = self.look() else { return };
        let asked = answer::asked(&id, &dialog, tty.tail.calls());
        let late = tty.waiting_since.is_none_or(|since| since.elapsed() >= UNTOLD);
        if asked.tool_use_id.is_none() && asked.kind != PermissionKind::Dialog && !late {
            // What for is on its way to the transcript.
            return;
        }
        self.view.terminal.asked = Some(id);
        self.view.apply_fact(Fact::PermissionAsked(Box::new(asked)), now(), &self.given, &mut self.added);
    }

    /// Nothing on the screen waits for anybody any more.
    pub(super) fn nobody_is_asked(&mut self) {
        let busy = self.tty.as_ref().and_then(|tty| tty.state.as_ref()?.status) == Some(Status::Busy);
        if self.view.pending.iter().any(is_unknown_screen) && !busy {
            // No turn waited for it.
            self.view.shift(Cause::TurnOver, now(), &mut self.added);
        }
        for pending in self.view.pending.clone() {
            let gone = Fact::PermissionWithdrawn { request_id: pending.request_id };
            self.view.apply_fact(gone, now(), &self.given, &mut self.added);
        }
    }

    /// Something waits for a screen that castra knows.
    pub(super) fn is_stuck(&self) -> bool {
        let Some(tty) = &self.tty else { return false };
        if self.view.stop.is_some() || self.writer.is_none() {
            return false;
        }
        let unasked = self.view.pending.is_empty();
        let to_type = !self.view.busy() && self.view.in_flight.is_none() && !self.commands.waiting.is_empty();
        let to_do = self.commands.open.iter().any(|command| command.state == CommandState::Accepted);
        unasked && (!self.view.ready || tty.is_waiting() || to_type || tty.strange.is_some())
            || to_do
            || (self.view.in_flight.is_some() && tty.typing.is_none())
            || self.has_command()
    }

    /// Whether castra knows what the screen says. Without claude's own word that it waits, a dialog is half drawn.
    fn is_known(&self) -> bool {
        match self.look() {
            Screen::Prompt(_) | Screen::Busy(_) => true,
            Screen::Dialog(_) => self.tty.as_ref().is_some_and(Tty::is_waiting),
            Screen::FirstRun(_) | Screen::Unknown => false,
        }
    }

    /// The screen has changed: it may be one that is known again.
    pub(super) fn look_again(&mut self) {
        if self.tty.as_ref().is_some_and(|tty| tty.strange.is_some()) && self.is_known() {
            self.tty.iter_mut().for_each(|tty| tty.strange = None);
        }
    }

    /// Asks somebody to look when claude cannot go on and nobody knows why.
    pub(super) fn watch_screen(&mut self) {
        self.look_again();
        let strange = self.is_stuck() && self.view.pending.is_empty() && !self.is_known();
        let of = |terminal: &mut Terminal| (terminal.screen_text(), terminal.title().to_owned());
        let shown = if strange { self.hub.screen.with(of) } else { None };
        let Some(tty) = &mut self.tty else { return };
        // Nothing at all is no screen yet; a start has its own time.
        let is_drawn = |(rows, _): &(Vec<String>, _)| rows.iter().any(|row| !row.trim().is_empty());
        let Some((rows, title)) = shown.filter(is_drawn) else {
            if self.view.pending.is_empty() {
                tty.strange = None;
            }
            return;
        };
        let since = *tty.strange.get_or_insert_with(Instant::now);
        let still = tty.heard.max(since).elapsed() >= STILL;
        if !still && since.elapsed() < RESTLESS {
            return;
        }
        let id = Uuid::new_v5(&self.run.id.0, format!("screen {}", self.run.decoded).as_bytes()).to_string();
        let asked = answer::unknown_screen(&id, &rows, &title);
        // Denying it in time would be a key into a screen that nobody knows.
        let given = Given { permission_timeout_s: None, ..self.given.clone() };
        self.view.apply_fact(Fact::PermissionAsked(Box::new(asked)), now(), &given, &mut self.added);
        self.deadlines.started();
    }

    /// Answers a dialog by keys, the first of which is the answer's own write.
    pub(super) async fn tty_answer(&mut self, command: CommandId, given: &PermissionAnswer) -> Result<()> {
        if self.tty.as_ref().is_some_and(|tty| tty.answering.is_some() || tty.switching.is_some()) {
            // With the next look.
            return Ok(());
        }
        let mut answered = String::new();
        let steps = match self.look() {
            Screen::Dialog(dialog) => {
                answered = text_of(&dialog);
                answer::answer(&dialog, given).map_err(|error| error.to_string())
            }
            Screen::Prompt(_) | Screen::Busy(_) => Err("the dialog is gone".to_owned()),
            // Being drawn; or nothing that keys can be pressed into.
            Screen::FirstRun(_) | Screen::Unknown => return Ok(()),
        };
        let mut steps = match steps {
            Ok(steps) => VecDeque::from(steps),
            Err(error) => {
                warn!(session = %self.id, error, "an answer that keys cannot give");
                self.command_done(command, CommandState::Superseded, Some(json!({"error": error})));
                return Ok(());
            }
        };
        let Some(first) = steps.pop_front() else { return Ok(()) };
        if let Some(tty) = &mut self.tty {
            let dialog = (answered, tty.waiting_ms());
            let (then, pressed, since) = (first.then, first.bytes.clone(), Instant::now());
            tty.answering = Some(Answering {
                command,
                steps,
                then,
                n: 1,
                dialog,
                pressed,
                since,
                probed: None,
                tries: 0,
            });
        }
        self.write(command.0, &first.bytes).await
    }

    pub(super) async fn go_on_answering(&mut self) -> Result<()> {
        if self.tty.as_ref().is_none_or(|tty| tty.answering.is_none()) {
            return Ok(());
        }
        let shown = match self.look() {
            Screen::Dialog(dialog) => Some(dialog),
            _ => None,
        };
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let waiting = tty.waiting_ms();
        let Some(answering) = &mut tty.answering else { return Ok(()) };
        if !is_met(answering.then, shown.as_ref()) {
            let now = shown.as_ref().map(|dialog| (text_of(dialog), waiting));
            if now.as_ref() == Some(&answering.dialog) {
                return self.press_again(shown).await;
            }
            // Answered, by castra or by somebody at the keyboard; what stands there now is another one.
            tty.answering = None;
            return Ok(());
        }
        let Some(step) = answering.steps.pop_front() else {
            tty.answering = None;
            return Ok(());
        };
        answering.then = step.then;
        (answering.pressed, answering.since) = (step.bytes.clone(), Instant::now());
        let id = Uuid::new_v5(&answering.command.0, &answering.n.to_be_bytes());
        answering.n += 1;
        self.write(id, &step.bytes).await
    }

    /// A key right after a dialog has appeared may be lost (docs/terminal.md). One that was merely slow must not come
    /// twice, or it answers the next dialog: a probe comes between them.
    async fn press_again(&mut self, shown: Option<Dialog>) -> Result<()> {
        let selected = shown.iter().flat_map(|dialog| &dialog.options).find(|option| option.selected);
        let (Some(selected), Some(tty)) = (selected.map(|option| option.number), &mut self.tty) else {
            return Ok(());
        };
        let Some(answering) = &mut tty.answering else { return Ok(()) };
        let silent = answering.since.elapsed();
        if silent >= GIVEN_UP || answering.tries >= TRIES {
            // Asked anew: whoever answered sees that it came to nothing.
            tty.answering = None;
            self.view.terminal.in_vain += 1;
            return Ok(());
        }
        let is_choice = matches!(answering.pressed.as_slice(), [b'1'..=b'9']);
        if !is_choice || silent < UNHEARD {
            return Ok(());
        }
        let keys = match answering.probed.take() {
            None => {
                answering.probed = Some(selected);
                DOWN.to_vec()
            }
            Some(before) if before == selected => {
                answering.probed = Some(before);
                return Ok(());
            }
            Some(_) => {
                answering.tries += 1;
                answering.pressed.clone()
            }
        };
        answering.since = Instant::now();
        self.write(Uuid::new_v4(), &keys).await
    }
}

impl Tty {
    /// Since when claude waits, by its own clock.
    fn waiting_ms(&self) -> Option<u64> {
        self.state.as_ref().filter(|_| self.is_waiting()).and_then(|state| state.since_ms)
    }
}

fn text_of(dialog: &Dialog) -> String {
    format!("{}\n{}\n{}", dialog.title, dialog.body, dialog.question)
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
