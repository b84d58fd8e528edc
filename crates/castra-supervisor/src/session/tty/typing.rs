//! Messages into the composer: a paste, quiet, then Enter, which alone makes it a message that is with claude.
//!
//! An Enter may be lost, and one that was merely slow must not come twice: a blank, whose effect can be seen, comes
//! between them (docs/terminal.md).

use super::{QUIET, UNHEARD};
use crate::Result;
use crate::engine::now;
use crate::failpoint::failpoint;
use crate::session::actor::Actor;
use crate::session::view::OpenCommand;
use castra_claude::fact::{Fact, Lifecycle};
use castra_claude::tail::{Told, command_output, command_result};
use castra_claude::terminal::screen::{Composer, Screen};
use castra_claude::terminal::signal::Status;
use castra_claude::terminal::typing::{ENTER, PROBE, Typed, TypingError, stands, type_command, type_text};
use castra_proto::api::SendMessage;
use castra_proto::shim::Reason;
use castra_proto::{MessageId, RunState};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

const ENTERS: u32 = 5;
/// Clears a composer of one line. Alone in its write, as any key: claude takes several characters for pasted text.
const CLEAR: &[u8] = b"\x15";
/// Clears one of several lines. In an empty one it arms the exit, and a second then ends claude.
const CLEAR_ALL: &[u8] = b"\x03";
/// After which a key that ends claude when it is pressed twice may be pressed again.
const DISARMED: Duration = Duration::from_secs(3);
/// Silence for each 100 kB of a text on top of [`QUIET`]: an end that is repeated in it is on the screen early.
const QUIET_PER_100_KB: Duration = Duration::from_secs(1);
/// After which a text that does not come to stand in the composer is pasted anew, and how often.
const UNSEEN: Duration = Duration::from_secs(20);
const PASTES: u32 = 3;
/// After which a message that was entered, of which no transcript tells and which stands nowhere, is given up.
const LOST: Duration = Duration::from_secs(10);
/// After which a slash command that began no turn has none: as long as claude's records may come late.
const SETTLED: Duration = Duration::from_millis(1_500);

/// A message on its way into the composer.
pub(super) struct Typing {
    pub(super) message: MessageId,
    typed: Typed,
    /// As claude's transcript will have it.
    text: String,
    is_command: bool,
    step: Step,
    since: Instant,
    pastes: u32,
    enters: u32,
    /// The last key written was [`CLEAR_ALL`].
    cleared: bool,
    /// Where the cursor stood before the blank.
    cursor: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What an earlier daemon typed may still be on its way: a blank was typed, and when the cursor moves all before it
    /// was taken.
    Sounding,
    /// The composer is being cleared.
    Clearing,
    Pasted,
    Entered,
    /// A blank was typed, to see whether the composer takes anything.
    Probed,
}

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

impl Typing {
    fn new(message: MessageId, body: &str, step: Step) -> Option<Self> {
        let body: SendMessage = serde_json::from_str(body).ok()?;
        Some(Self {
            message,
            typed: typed(&body).ok()?,
            text: text_of(&body),
            is_command: body.command.is_some(),
            step,
            since: Instant::now(),
            pastes: 0,
            enters: 0,
            cleared: false,
            cursor: None,
        })
    }

    fn is_entered(&self) -> bool {
        matches!(self.step, Step::Entered | Step::Probed)
    }

    /// The composer has taken all of it. Nothing is entered into a dialog that has come meanwhile, or into what nobody
    /// knows; and silence alone is no proof, since claude reads on while it draws nothing.
    fn stands(&self, heard: Instant, screen: &Screen) -> bool {
        let (Screen::Prompt(composer) | Screen::Busy(composer)) = screen else { return false };
        let long = QUIET_PER_100_KB.mul_f64(self.text.len() as f64 / 100_000.0);
        heard > self.since
            && heard.elapsed() >= QUIET + long
            && !composer.text.is_empty()
            && match self.is_command {
                true => composer.text.starts_with(self.text.trim()),
                false => stands(&composer.text, &self.text) != Some(false),
            }
    }
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
        let composer = match self.look() {
            Screen::Prompt(composer) => composer,
            // A turn runs: only what is to join it comes here.
            Screen::Busy(composer) if self.view.busy() => composer,
            _ => return Ok(()),
        };
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
        let (screen, cursor) = (self.look(), self.cursor());
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let Some(typing) = &tty.typing else { return Ok(()) };
        let (id, step, since, enters) = (typing.message, typing.step, typing.since, typing.enters);
        let quiet = tty.is_quiet(since);
        let stands = typing.stands(tty.heard, &screen);
        let mut cleared = false;
        let next = match step {
            Step::Sounding if quiet && (cursor != typing.cursor || since.elapsed() >= UNSEEN) => match screen
            {
                Screen::Prompt(_) | Screen::Busy(_) => {
                    self.write(Uuid::new_v4(), CLEAR).await?;
                    Step::Clearing
                }
                _ => return Ok(()),
            },
            Step::Clearing if quiet => match &screen {
                Screen::Prompt(composer) if composer.shell => {
                    // An empty line leaves the shell mode by Backspace.
                    self.write(Uuid::new_v4(), b"\x7f").await?;
                    Step::Clearing
                }
                Screen::Prompt(composer) | Screen::Busy(composer) if !composer.text.is_empty() => {
                    let several = composer.text.contains('\n') || composer.text.starts_with("[Pasted text #");
                    if several && since.elapsed() < DISARMED && typing.cleared {
                        return Ok(());
                    }
                    // A turn that runs is interrupted by it.
                    let several = several && matches!(screen, Screen::Prompt(_));
                    self.write(Uuid::new_v4(), if several { CLEAR_ALL } else { CLEAR }).await?;
                    cleared = several;
                    Step::Clearing
                }
                Screen::Prompt(_) | Screen::Busy(_) => {
                    let paste = typing.typed.paste.clone();
                    self.write(Uuid::new_v4(), &paste).await?;
                    Step::Pasted
                }
                _ => return Ok(()),
            },
            Step::Pasted if stands => {
                tty.sent = Some((id.0, typing.text.clone()));
                failpoint!("write.before");
                self.write(id.0, ENTER).await?;
                failpoint!("write.after");
                Step::Entered
            }
            // A dialog took the paste, or somebody at the keyboard changed it.
            Step::Pasted
                if tty.heard.max(since).elapsed() >= UNSEEN && matches!(screen, Screen::Prompt(_)) =>
            {
                if typing.pastes >= PASTES {
                    tty.typing = None;
                    self.undeliverable(id.0, Reason::Unsupported);
                    return Ok(());
                }
                Step::Clearing
            }
            Step::Entered if since.elapsed() >= UNHEARD && enters < ENTERS => match screen {
                // It still stands there: was Enter lost, or is claude slow? A blank tells.
                Screen::Prompt(composer) if !composer.text.is_empty() => {
                    self.write(Uuid::new_v5(&id.0, format!("probe {enters}").as_bytes()), PROBE).await?;
                    Step::Probed
                }
                // A slash command need not leave a trace: its end is found by the screen.
                Screen::Prompt(_) if since.elapsed() >= LOST && self.is_at_rest() && !self.has_command() => {
                    self.lost_message(id);
                    return Ok(());
                }
                _ => return Ok(()),
            },
            Step::Probed if quiet => match screen {
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
            typing.pastes += u32::from(next == Step::Pasted);
            typing.cleared = cleared;
            typing.step = next;
            typing.since = Instant::now();
        }
        Ok(())
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

    /// A slash command's own words, which are its result if it begins no turn.
    pub(super) fn note_output(&mut self, told: &Told) {
        let switching = self.tty.as_mut().and_then(|tty| tty.switching.as_mut());
        if switching.is_none() && self.view.terminal.command.is_none() {
            return;
        }
        if let Some(output) = command_output(&told.line.data) {
            match (switching, &mut self.view.terminal.command) {
                (Some(switching), _) => switching.said = Some(output),
                (None, Some(open)) => open.output = output,
                (None, None) => {}
            }
        }
        if matches!(told.line.fact, Fact::Result(_)) {
            self.view.terminal.command = None;
        }
    }

    /// A slash command that began no turn is over when claude waits at its prompt again.
    fn command_over(&mut self) {
        let Some(open) = &self.view.terminal.command else { return };
        let Some(tty) = &self.tty else { return };
        let taken = match self.look() {
            Screen::Prompt(composer) => composer.text.is_empty(),
            _ => false,
        };
        let idle = self.is_at_rest();
        let since = tty.typing.as_ref().map(|typing| typing.since);
        let settled = tty.heard.max(since.unwrap_or(tty.heard)).elapsed() >= SETTLED;
        if !(taken && idle && settled) {
            return;
        }
        let when = (self.run.decoded, tty.clock.0);
        let line = command_result(&open.output, self.view.claude_session_id, when);
        let message = open.message;
        self.view.terminal.command = None;
        if let Some(tty) = &mut self.tty {
            tty.typing = None;
            tty.sent = None;
        }
        let replay = Fact::UserReplay { uuid: Some(message.0) };
        self.view.apply_fact(replay, now(), &self.given, &mut self.added);
        self.view.apply(line, &self.given, &mut self.added);
    }

    /// Whether a slash command waits for its end.
    pub(super) fn has_command(&self) -> bool {
        self.view.terminal.command.is_some()
    }
}
