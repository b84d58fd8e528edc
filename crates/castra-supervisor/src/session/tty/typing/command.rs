//! Slash commands, which need not leave a trace in a transcript: what they printed, and where they end.

use crate::engine::now;
use crate::session::actor::Actor;
use castra_claude::fact::Fact;
use castra_claude::tail::{Told, command_output, command_result};
use castra_claude::terminal::screen::Screen;
use std::time::Duration;

/// After which a slash command that began no turn has none: as long as claude's records may come late.
const SETTLED: Duration = Duration::from_millis(1_500);

impl Actor<'_> {
    /// A slash command's own words, which are its result if it begins no turn.
    pub(in super::super) fn note_output(&mut self, told: &Told) {
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
    pub(super) fn command_over(&mut self) {
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
    pub(in super::super) fn has_command(&self) -> bool {
        self.view.terminal.command.is_some()
    }
}
