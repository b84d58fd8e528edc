//! Live changes of model, effort and permission mode, which on a terminal are a slash command and a key.

use super::holds;
use crate::Result;
use crate::session::actor::Actor;
use castra_claude::terminal::answer;
use castra_claude::terminal::screen::{DialogKind, Screen, permission_mode};
use castra_claude::terminal::typing::{ENTER, type_command};
use castra_proto::CommandId;
use castra_proto::permission::PermissionAnswer;
use castra_proto::spec::{Home, PermissionMode};
use castra_store::CommandRow;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Goes to the next permission mode.
const SHIFT_TAB: &[u8] = b"\x1b[Z";
/// There are six modes; whoever comes round has seen them all.
const PRESSES: u32 = 8;
/// How long claude may take to show what came of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change that is under way.
pub(super) struct Switching {
    command: CommandId,
    to: To,
    since: Instant,
    presses: u32,
    /// What the command has printed.
    pub(super) said: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    Mode(PermissionMode),
    /// `/model X`, `/effort X`: typed, and entered.
    Command {
        line: String,
        entered: bool,
    },
}

/// What a control request means here.
fn change(args: &Value, home: Home) -> Result<To, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let command = |line: String| {
        if home == Home::User {
            return Err(format!(
                "claude would save it as the default of your own home; `castra send --command ID '{line}'` does so"
            ));
        }
        type_command(&line).map_err(|error| error.to_string())?;
        Ok(To::Command { line, entered: false })
    };
    match args["subtype"].as_str().unwrap_or_default() {
        "set_permission_mode" => {
            let mode = args["mode"].as_str().and_then(PermissionMode::parse);
            mode.map(To::Mode).ok_or_else(|| "there is no such mode".into())
        }
        "set_model" => {
            let model = text(&args["model"]).unwrap_or_else(|| "default".into());
            command(format!("/model {model}"))
        }
        "apply_flag_settings" => match text(&args["settings"]["effortLevel"]) {
            Some(effort) => command(format!("/effort {effort}")),
            None => Err("a terminal takes `effortLevel` only".into()),
        },
        other => Err(format!(
            "a session on a terminal does not take {other:?}; it takes set_permission_mode, set_model and effortLevel"
        )),
    }
}

impl Actor<'_> {
    pub(super) async fn tty_control(&mut self, command: &CommandRow) -> Result<()> {
        let to = match change(&command.args, self.spec.home) {
            Ok(to) => to,
            Err(error) => {
                self.answer_control(command.id, Err(error));
                return Ok(());
            }
        };
        // Not in a turn: a dialog may come at any time, and Shift+Tab in it may allow an edit.
        let fits = matches!(self.look(), Screen::Prompt(composer) if composer.text.is_empty());
        let Some(tty) = &mut self.tty else { return Ok(()) };
        if !fits || tty.is_occupied() {
            return Ok(());
        }
        let since = Instant::now();
        let typed = match &to {
            To::Mode(_) => None,
            To::Command { line, .. } => type_command(line).ok().map(|typed| typed.paste),
        };
        tty.switching = Some(Switching { command: command.id, to, since, presses: 0, said: None });
        match typed {
            Some(paste) => self.write(Uuid::new_v4(), &paste).await,
            None => self.go_on_switching().await,
        }
    }

    fn answer_control(&mut self, id: CommandId, result: Result<Value, String>) {
        self.added.changed |= result.is_ok();
        self.control_answered(&id.to_string(), result);
    }

    pub(super) async fn go_on_switching(&mut self) -> Result<()> {
        let screen = self.look();
        let mode = self.hub.screen.with(|terminal| permission_mode(&terminal.screen_text())).flatten();
        let Some(tty) = &mut self.tty else { return Ok(()) };
        let Some(Switching { command, to, since, presses, said }) = &mut tty.switching else { return Ok(()) };
        let (id, quiet) = (*command, tty.heard.max(*since).elapsed() >= super::QUIET);
        let late = since.elapsed() >= PATIENCE;
        match (to, screen) {
            (To::Mode(to), _) if mode == Some(*to) => {
                let to = *to;
                tty.switching = None;
                self.answer_control(id, Ok(json!({"mode": to})));
            }
            (To::Mode(to), Screen::Prompt(_)) if *presses >= PRESSES && quiet => {
                let error = format!("this terminal has no way to {:?}", to.as_str());
                tty.switching = None;
                self.answer_control(id, Err(error));
            }
            (To::Mode(_), Screen::Prompt(_)) if *presses == 0 || quiet => {
                *presses += 1;
                *since = Instant::now();
                self.write(Uuid::new_v4(), SHIFT_TAB).await?;
            }
            (To::Command { entered, .. }, ref shown @ Screen::Prompt(_))
                if !*entered && quiet && holds(shown) =>
            {
                *entered = true;
                *since = Instant::now();
                self.write(Uuid::new_v4(), ENTER).await?;
            }
            (To::Command { entered: true, .. }, Screen::Dialog(dialog))
                if dialog.kind == DialogKind::SwitchModel && *presses == 0 && quiet =>
            {
                *presses += 1;
                let steps = answer::answer(&dialog, &PermissionAnswer::allow()).unwrap_or_default();
                for step in steps {
                    self.write(Uuid::new_v4(), &step.bytes).await?;
                }
            }
            (To::Command { entered: true, .. }, Screen::Prompt(composer))
                if quiet && composer.text.is_empty() && said.is_some() =>
            {
                let said = said.take().unwrap_or_default();
                tty.switching = None;
                let taken = said.starts_with("Set ");
                self.answer_control(id, if taken { Ok(json!({"said": said})) } else { Err(said) });
            }
            _ if late => {
                tty.switching = None;
                let error = "claude's screen does not show that it was taken; `castra screen ID` shows it";
                self.answer_control(id, Err(error.into()));
            }
            _ => {}
        }
        Ok(())
    }
}
