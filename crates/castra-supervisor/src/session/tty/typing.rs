//! Messages into the composer: a paste, quiet, then Enter, which alone makes it a message that is with claude.
//!
//! An Enter may be lost, and one that was merely slow must not come twice: a blank, whose effect can be seen, comes
//! between them (docs/terminal.md).

mod command;
mod steps;

use crate::Result;
use crate::engine::now;
use crate::failpoint::failpoint;
use crate::session::actor::Actor;
use crate::session::view::OpenCommand;
use castra_claude::fact::{Fact, Lifecycle};
use castra_claude::terminal::screen::{Composer, Screen};
use castra_claude::terminal::signal::Status;
use castra_claude::terminal::typing::{ENTER, PROBE, Typed, TypingError, stands, type_command, type_text};
use castra_proto::api::SendMessage;
use castra_proto::shim::Reason;
use castra_proto::{MessageId, RunState};
pub(super) use steps::Typing;
use steps::{Move, Seen, Step};
use tracing::warn;
use uuid::Uuid;

/// Takes away what is before the cursor, in a composer of one line. Alone in its write, as any key: claude takes several characters for pasted text.
const CLEAR: &[u8] = b"\x15";
/// Goes to the end of the line, from where [`CLEAR`] takes all of it.
const END: &[u8] = b"\x05";
/// Clears one of several lines. In an empty one it arms the exit, and a second then ends claude.
const CLEAR_ALL: &[u8] = b"\x03";
/// In an empty line it leaves the shell mode.
const BACKSPACE: &[u8] = b"\x7f";

/// What is typed for a message.
pub(crate) fn typed(body: &SendMessage) -> std::result::Result<Typed, TypingError> {
    match &body.command {
        Some(command) => type_command(command),
        None => type_text(&text_of(body)),
    }
}

/// A message as claude's transcript will have it.
fn text_of(body: &SendMessage) -> String {
    let text = body.text.clone().or(body.command.clone()).unwrap_or_default();
    castra_claude::input::in_context(body.context.as_deref(), &text)
}

impl Actor<'_> {
    /// A message that an earlier daemon entered and nobody saw back: it is waited for, and entered again if it still
    /// stands in the composer.
    pub(super) async fn tty_entered(&mut self) -> Result<()> {
        let Some(in_flight) = &self.view.in_flight else { return Ok(()) };
        let message = in_flight.message;
        let Some(row) = self.engine.store.message(self.id, message).await? else { return Ok(()) };
        self.entered(message, &row.body);
        Ok(())
    }

    /// A message's Enter is in the log: from now on the transcript may tell of it.
    pub(crate) fn entered(&mut self, message: MessageId, body: &str) {
        let (Some(typing), Some(tty)) = (Typing::new(message, body, Step::Entered), &mut self.tty) else {
            return;
        };
        let is_command = typing.is_command;
        tty.sent = Some((message.0, typing.text.clone()));
        if tty.typing.as_ref().is_none_or(|typing| typing.message != message) {
            tty.typing = Some(typing);
        }
        let known = self.view.terminal.command.as_ref().is_some_and(|open| open.message == message);
        if is_command && !known {
            self.view.terminal.command = Some(OpenCommand { message, output: String::new() });
        }
    }

    /// Begins to type a message, if the composer is there for it.
    pub(crate) async fn tty_deliver(&mut self, id: MessageId) -> Result<()> {
        let Some(row) = self.commands.waiting.iter().find(|message| message.id == id) else { return Ok(()) };
        let body = row.body.clone();
        let Screen::Prompt(composer) = self.look() else { return Ok(()) };
        let cursor = self.cursor();
        let Some(tty) = &mut self.tty else { return Ok(()) };
        if tty.is_occupied() {
            return Ok(());
        }
        let Some(mut typing) = Typing::new(id, &body, Step::Pasted) else {
            // Refused when it was sent; here only if the rules have changed since.
            warn!(session = %self.id, message = %id, "cannot be typed");
            self.undeliverable(id.0, Reason::Unsupported);
            return Ok(());
        };
        let Composer { text: stands, shell } = composer;
        let first = if std::mem::take(&mut tty.unsure) {
            (typing.step, typing.cursor) = (Step::Sounding, cursor);
            PROBE.to_vec()
        } else if shell || !stands.is_empty() {
            typing.step = Step::Clearing;
            CLEAR.to_vec()
        } else {
            typing.typed.paste.clone()
        };
        tty.typing = Some(typing);
        // A new id each time: after a crash it is pasted again into a composer that was cleared, and the shim would
        // drop a double. Enter bears the message's own.
        self.write(Uuid::new_v4(), &first).await
    }

    fn cursor(&self) -> Option<(u16, u16)> {
        self.hub.screen.with(|terminal| terminal.cursor()).map(|(col, row, _)| (col, row))
    }

    pub(super) async fn go_on_typing(&mut self) -> Result<()> {
        self.command_over();
        self.restore_typing().await?;
        self.given_back();
        let at_rest = self.is_at_rest() && !self.has_command();
        let (screen, cursor) = (self.look(), self.cursor());
        let Some(tty) = &self.tty else { return Ok(()) };
        let Some(typing) = &tty.typing else { return Ok(()) };
        let (silent, since) = (tty.heard.elapsed(), typing.since.elapsed());
        let seen = Seen { screen, cursor, silent, since, at_rest };
        let Some(chosen) = typing.next(&seen) else { return Ok(()) };
        self.press(chosen).await?;
        if let Some(typing) = self.tty.as_mut().and_then(|tty| tty.typing.as_mut()) {
            typing.done(chosen, &seen);
        }
        Ok(())
    }

    /// Carries out what is next.
    async fn press(&mut self, chosen: Move) -> Result<()> {
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let Some(typing) = &tty.typing else { return Ok(()) };
        let (id, enters) = (typing.message, typing.enters);
        // A key that must not come twice, though the daemon be killed, has a name.
        let named = |what: &str| Uuid::new_v5(&id.0, format!("{what} {enters}").as_bytes());
        match chosen {
            Move::Clear => self.write(Uuid::new_v4(), CLEAR).await,
            Move::End => self.write(Uuid::new_v4(), END).await,
            Move::ClearAll => self.write(Uuid::new_v4(), CLEAR_ALL).await,
            Move::LeaveShell => self.write(Uuid::new_v4(), BACKSPACE).await,
            Move::Paste => {
                let paste = typing.typed.paste.clone();
                self.write(Uuid::new_v4(), &paste).await
            }
            Move::Enter => {
                tty.sent = Some((id.0, typing.text.clone()));
                failpoint!("write.before");
                self.write(id.0, ENTER).await?;
                failpoint!("write.after");
                Ok(())
            }
            Move::Probe => self.write(named("probe"), PROBE).await,
            Move::EnterAgain => self.write(named("enter"), ENTER).await,
            Move::Again | Move::Wait => Ok(()),
            Move::GiveUp => {
                tty.typing = None;
                self.undeliverable(id.0, Reason::Unsupported);
                Ok(())
            }
            Move::Lost => {
                self.lost_message(id);
                Ok(())
            }
        }
    }

    /// No turn runs, and claude says so.
    fn is_at_rest(&self) -> bool {
        let Some(tty) = &self.tty else { return false };
        self.view.state == RunState::Idle && !tty.is_waiting() && tty.tail.hold().is_none()
    }

    /// Entered, seen back by nobody, and not in the composer: somebody at the keyboard took it, or claude did.
    fn lost_message(&mut self, id: MessageId) {
        warn!(session = %self.id, message = %id, "no transcript tells of a message that was entered");
        let gone = Fact::Lifecycle { uuid: Some(id.0), state: Lifecycle::Completed };
        self.view.apply_fact(gone, now(), &self.given, &mut self.added);
        self.typing_over();
    }

    /// Whatever settled the message: nothing of it is typed any more.
    pub(super) fn typing_over(&mut self) {
        let Some(tty) = &mut self.tty else { return };
        let Some(typing) = tty.typing.as_ref().filter(|typing| typing.is_entered()) else { return };
        let open = self.view.in_flight.as_ref().is_some_and(|open| open.message == typing.message)
            || self.commands.is_writing(typing.message.0);
        if !open {
            // A blank may have been typed in vain, and it cannot be seen.
            tty.unsure |= typing.enters > 0 || typing.step == Step::Probed;
            tty.typing = None;
            tty.sent = None;
            tty.vain = None;
        }
    }

    /// What was entered is known again only when the log's note of it was decoded.
    async fn restore_typing(&mut self) -> Result<()> {
        let Some(tty) = &self.tty else { return Ok(()) };
        let in_flight = self.view.in_flight.as_ref().map(|in_flight| in_flight.message);
        if in_flight.is_some() && tty.typing.is_none() && tty.vain != in_flight {
            self.tty_entered().await?;
        }
        Ok(())
    }

    /// Esc before any answer puts a message back into the composer, and no transcript tells of it.
    fn given_back(&mut self) {
        let Screen::Prompt(composer) = self.look() else { return };
        let Some(tty) = &mut self.tty else { return };
        let idle = tty.state.as_ref().is_some_and(|state| state.status == Some(Status::Idle));
        let Some((_, text)) = tty.sent.as_ref().filter(|(id, _)| idle && tty.vain == Some(MessageId(*id)))
        else {
            return;
        };
        if composer.text.is_empty() || stands(&composer.text, text) == Some(false) {
            return;
        }
        let mut told = Vec::new();
        tty.tail.taken_back(self.run.decoded, tty.clock.0, &mut told);
        self.told(told);
    }

    /// The turn was interrupted: what claude gives back to the composer is not entered again.
    pub(super) fn typed_in_vain(&mut self) {
        if let Some(tty) = &mut self.tty {
            let typed = tty.typing.take_if(|typing| typing.is_entered());
            tty.vain = typed.map(|typing| typing.message).or(tty.vain);
        }
    }
}
