//! `castra attach`: a conversation in this terminal, line by line; a terminal session as what it is. Leaving it leaves
//! the session running.

use super::Ctx;
use super::awaited::Awaited;
use super::escape::one_line;
use super::failure::Failure;
use super::input::Lines;
use super::out::Style;
use super::tmux;
use super::tui::{self, DetachKey, Looks};
use super::turn::{Desk, Interrupts, next_line};
use super::view::{Show, TICK, View, Words};
use crate::client::{Client, Error, Item};
use crate::exec::tmux::TmuxName;
use castra_proto::api::SendMessage;
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, OwnKind, RunState, Session};
use clap::Args;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct AttachArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// Show so many of the newest events first
    #[arg(long, default_value_t = 50, value_name = "N")]
    tail: u64,
    /// Only look at a terminal session
    #[arg(long)]
    read_only: bool,
    /// The key that leaves a terminal session: C-\\, C-], …, or none
    #[arg(long, value_name = "KEY", value_parser = DetachKey::parse)]
    detach_key: Option<DetachKey>,
    /// In a tmux session of this name, which others can join: `tmux attach -t NAME`. Ending it ends no session
    #[arg(long, value_name = "NAME", value_parser = TmuxName::parse)]
    tmux: Option<TmuxName>,
    /// Read CASTRA_TOKEN from this file, and remove it
    #[arg(long, value_name = "FILE", hide = true)]
    token_from: Option<PathBuf>,
    /// After a failure, stay until somebody has read it
    #[arg(long, hide = true)]
    hold: bool,
}

pub(super) async fn attach(args: AttachArgs, ctx: Ctx) -> Result<(), Failure> {
    let (hold, out) = (args.hold, ctx.out.clone());
    let Err(failure) = show(args, ctx).await else { return Ok(()) };
    if hold && failure.message.is_some() {
        // A window of its own ends with its program. tmux would keep it (`remain-on-exit failed`), and now and then
        // keeps what has not failed, too.
        super::tell(&failure, &out);
        out.hint("Enter closes this window");
        Lines::of_stdin()?.next().await;
        return Err(Failure::silent(failure.exit));
    }
    Err(failure)
}

async fn show(args: AttachArgs, mut ctx: Ctx) -> Result<(), Failure> {
    if let Some(path) = &args.token_from {
        ctx.token = Some(tmux::receive(path)?);
    }
    let client = ctx.client().await?;
    let session = client.show(&args.id).await?;
    if let Some(name) = &args.tmux {
        tmux::make(&ctx, name, &session, args.read_only)?;
        return tmux::show(&ctx, name, &session);
    }
    if session.spec.mode == Mode::Terminal {
        let detach = detach_key(&ctx, args.detach_key)?;
        return terminal(&ctx, &session, Looks { read_only: args.read_only, detach }).await;
    }
    chat_after(&ctx, &client, &session, session.head_seq.saturating_sub(args.tail)).await
}

/// A session that has just been made: a conversation with it, or its terminal.
pub(super) async fn chat(ctx: &Ctx, client: &Client, session: &Session) -> Result<(), Failure> {
    if session.spec.mode == Mode::Terminal {
        return terminal(ctx, session, Looks { read_only: false, detach: detach_key(ctx, None)? }).await;
    }
    chat_after(ctx, client, session, 0).await
}

async fn terminal(ctx: &Ctx, session: &Session, looks: Looks) -> Result<(), Failure> {
    if ctx.out.json {
        return Err(Failure::usage("a terminal is no JSON")
            .hint(format!("castra logs {} -f --json follows the session", session.id)));
    }
    tui::attach(ctx, &ctx.client_that(false).await?, session, looks).await
}

fn detach_key(ctx: &Ctx, given: Option<DetachKey>) -> Result<DetachKey, Failure> {
    let Some(key) = given else {
        let text = ctx.settings.detach_key();
        return DetachKey::parse(&text)
            .map_err(|expected| Failure::usage(format!("attach.detach_key: `{text}` must be {expected}")));
    };
    Ok(key)
}

/// What the person did.
enum Said {
    Line(String),
    Leave,
    Interrupt,
}

/// A line of one's own that is not meant for the agent.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Quit,
    Interrupt,
    Help,
    Nothing,
    /// To the agent; its own slash commands too.
    Say(&'a str),
}

fn command(line: &str) -> Command<'_> {
    match line.trim() {
        "" => Command::Nothing,
        "/quit" | "/exit" | "/detach" => Command::Quit,
        "/help" => Command::Help,
        // Esc and Enter: a terminal in line mode hands it over as a character.
        "\u{1b}" | "/interrupt" => Command::Interrupt,
        _ => Command::Say(line),
    }
}

const HELP: &str = "Enter sends; while a turn runs it is queued. Ctrl-C or Esc Enter interrupts the turn.\n\
                    /quit, Ctrl-D or Ctrl-\\ leaves; the session goes on. Other /commands are claude's own.";

async fn chat_after(ctx: &Ctx, client: &Client, session: &Session, after: u64) -> Result<(), Failure> {
    let id = session.id.to_string();
    let mut view =
        View::new(ctx.out.clone(), if ctx.out.json { Show::Events } else { Show::Everything }, Words::Stdout);
    view.progress.show_input = true;
    let echoed = !ctx.out.json && ctx.out.stderr_tty && Lines::are_echoed();
    if echoed {
        view.expect_typing();
    }
    let mut desk = Desk::new(Some(Lines::of_stdin()?));
    let mut interrupts = Interrupts::new()?;
    let mut quit = signal(SignalKind::quit())?;
    let title = session.name.as_deref().unwrap_or(&id);
    view.note(
        &ctx.out
            .paint(Style::Dim, &format!("session {} ({}); /help, /quit", one_line(title, 80), session.state)),
    )?;

    let mut follow = client.follow(&id, after);
    let mut state = session.state;
    let mut busy = session.busy;
    let mut awaited = Awaited::default();
    desk.look(client, &id, &mut view).await?;
    let mut ticks = tokio::time::interval(TICK);
    // Whoever thought about a question for a minute is not shown that minute's frames at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        if follow.last() >= session.head_seq && !busy && awaited.is_empty() && !desk.is_asking() {
            view.prompt()?;
        }
        let said = tokio::select! {
            item = follow.next() => {
                match item? {
                    None => {
                        view.note("the session was removed")?;
                        return Ok(());
                    }
                    Some(Item::Partial(partial)) => {
                        busy = true;
                        view.partial(&partial)?;
                    }
                    Some(Item::Reconnected) => {
                        view.note("(the daemon was away and is back; nothing was missed)")?;
                        desk.look(client, &id, &mut view).await?;
                    }
                    Some(Item::Event(event)) => {
                        let asks = [OwnKind::PermissionRequested, OwnKind::PermissionAnswered, OwnKind::RequiresAction];
                        view.event(&event)?;
                        if asks.into_iter().any(|own| event.kind.is(own)) && event.seq >= session.head_seq {
                            desk.look(client, &id, &mut view).await?;
                        }
                        if event.kind.is(OwnKind::State)
                            && let Some(to) = state_after(event.data.get())
                        {
                            if to == RunState::Running && !busy {
                                view.restart_clock();
                            }
                            (state, busy) = (to, matches!(to, RunState::Running | RunState::RequiresAction));
                            if to.is_final() {
                                view.note(&format!("the run has {to}; `castra resume {id}` continues"))?;
                            }
                        }
                        awaited.event(&event, busy, state.is_final());
                    }
                }
                continue;
            }
            line = next_line(&mut desk.lines) => line.map_or(Said::Leave, Said::Line),
            () = interrupts.next() => Said::Interrupt,
            _ = quit.recv() => Said::Leave,
            _ = ticks.tick(), if busy && view.spins() && !desk.is_asking() => {
                view.tick("working");
                continue;
            }
        };
        if matches!(said, Said::Line(_)) {
            view.line_typed();
        }
        match said {
            Said::Leave => break,
            Said::Interrupt => interrupt(client, &id, busy, &mut view).await?,
            Said::Line(line) if desk.is_asking() && command(&line) != Command::Quit => {
                desk.take(&line, client, &id, &mut view).await?;
            }
            Said::Line(line) => match command(&line) {
                Command::Quit => break,
                Command::Help => view.note(HELP)?,
                Command::Nothing => {}
                Command::Interrupt => interrupt(client, &id, busy, &mut view).await?,
                Command::Say(text) => {
                    let message = SendMessage { text: Some(text.into()), ..Default::default() };
                    match client.send(&id, &message, &Uuid::new_v4().to_string()).await {
                        Ok(accepted) => {
                            // Its event is read after this.
                            if echoed {
                                view.progress.typed_here(accepted.message_id);
                            }
                            awaited.accepted(accepted.message_id, busy);
                            if busy {
                                view.note("(queued until the turn is over)")?;
                            }
                        }
                        Err(Error::Refused(problem)) => refused(&problem, state, &id, &mut view)?,
                        Err(error) => return Err(error.into()),
                    }
                }
            },
        }
    }
    if !state.is_final() {
        view.note(&format!("the session goes on; `castra attach {id}` returns to it"))?;
    }
    Ok(())
}

fn state_after(data: &str) -> Option<RunState> {
    let data: serde_json::Value = serde_json::from_str(data).ok()?;
    RunState::parse(data["to"].as_str()?)
}

fn refused(
    problem: &castra_proto::Problem,
    state: RunState,
    id: &str,
    view: &mut View,
) -> Result<(), Failure> {
    view.note(&one_line(&problem.to_string(), 500))?;
    if state.is_final() || matches!(problem.code, ErrorCode::SessionEnded | ErrorCode::SessionLost) {
        view.out.hint(&format!("castra resume {id}"));
    }
    Ok(())
}

async fn interrupt(client: &Client, id: &str, busy: bool, view: &mut View) -> Result<(), Failure> {
    if !busy {
        return view.note("nothing is running; Ctrl-D or /quit leaves");
    }
    match client.act(id, "interrupt").await {
        Ok(_) => view.note("(interrupted)"),
        Err(Error::Refused(problem)) => view.note(&problem.to_string()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_for_the_agent() {
        let table: &[(&str, Command<'_>)] = &[
            ("", Command::Nothing),
            ("  ", Command::Nothing),
            ("/quit", Command::Quit),
            (" /exit ", Command::Quit),
            ("\u{1b}", Command::Interrupt),
            ("/help", Command::Help),
            ("/compact", Command::Say("/compact")),
            ("  indented", Command::Say("  indented")),
            ("say /quit", Command::Say("say /quit")),
        ];
        for (line, expected) in table {
            assert_eq!(command(line), *expected, "{line:?}");
        }
    }

    #[test]
    fn the_state_that_an_event_tells() {
        let table = [
            (r#"{"from":"idle","to":"running","cause":"x"}"#, Some(RunState::Running)),
            (r#"{"flag":"stale"}"#, None),
            ("nonsense", None),
        ];
        for (data, expected) in table {
            assert_eq!(state_after(data), expected, "{data}");
        }
    }
}
