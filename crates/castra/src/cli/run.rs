//! `castra run`: one prompt to its answer.

use super::failure::{Failure, INTERRUPTED, TIMED_OUT};
use super::input::Lines;
use super::out::{Out, Style};
use super::spec::{Around, SpecArgs, text_or_file};
use super::turn::{Desk, Ended, to_the_end};
use super::view::{Show, View, Words};
use super::{Ctx, attach, tmux, tui};
use crate::client::Client;
use crate::exec::tmux::TmuxName;
use castra_proto::api::{Message, MessageState, SendMessage, TurnResult};
use castra_proto::session::{Exit, ExitCause};
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, RunState, Session};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Read as _};
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// What to say; `-` reads it from stdin. Without one on a terminal: a conversation
    prompt: Option<String>,
    /// Sent before the prompt; `-` reads stdin. With a prompt and a pipe, stdin is the context
    #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    context: Option<String>,
    /// Leave it to the daemon, and print the session's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the session when it has ended
    #[arg(long)]
    rm: bool,
    /// Leave claude running after the answer, for `castra send`
    #[arg(long, conflicts_with = "rm")]
    keep: bool,
    /// The TUI in a tmux session of this name, from the start; implies --mode terminal and --keep
    #[arg(long, value_name = "NAME", value_parser = TmuxName::parse, conflicts_with = "rm")]
    tmux: Option<TmuxName>,
    /// What is printed on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output_format: Format,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The answer
    Text,
    /// The result as one JSON object
    Json,
    /// Every event as a line of JSON, as it comes
    StreamJson,
}

/// The prompt, and what was said beside it.
struct Said {
    prompt: Option<String>,
    context: Option<String>,
}

pub(super) async fn run(args: RunArgs, ctx: Ctx) -> Result<(), Failure> {
    let cwd = std::env::current_dir()?;
    let mut out = ctx.out.clone();
    let format =
        if out.json && args.output_format == Format::Text { Format::Json } else { args.output_format };
    out.json = format != Format::Text;
    let words = words(args.prompt, args.context, &cwd, args.detach || args.tmux.is_some())?;
    let around = Around { cwd: &cwd, env: &|name| std::env::var(name).ok() };
    let mode = args.spec.mode;
    let mut spec = args.spec.build(&around)?;
    // Otherwise this command removes it, once it has read how it ended.
    spec.ephemeral |= args.rm && args.detach;
    if let Some(name) = &args.tmux {
        if mode == Some(Mode::Stream) {
            return Err(Failure::usage("--tmux shows a terminal; leave out --mode stream"));
        }
        tmux::free(name)?;
        spec.mode = Mode::Terminal;
        spec.tmux = Some(name.to_string());
    } else if let (None, Mode::Terminal, false) = (&words.prompt, spec.mode, args.detach) {
        tui::check()?;
    }
    let schema = spec.output_schema.is_some();
    let resumes = spec.continue_ || spec.resume.is_some();

    let client = ctx.client().await?;
    let session = client.create(&spec, &Uuid::new_v4().to_string()).await?;
    let id = session.id.to_string();
    if resumes && out.stderr_tty {
        out.note(&out.paint(Style::Dim, &format!("continuing session {id}")));
    }
    if let Some(name) = &args.tmux {
        view_or_nothing(&ctx, &client, name, &session, resumes).await?;
    }
    // With a view there is a place for a conversation, also without a terminal here.
    let shown_here = args.tmux.as_ref().filter(|_| !args.detach && here_is_a_terminal());
    let Some(prompt) = words.prompt else {
        if let Some(name) = shown_here {
            return tmux::show(&ctx, name, &session);
        }
        if args.detach || args.tmux.is_some() {
            return out.either(&session, || id);
        }
        return attach::chat(&ctx, &client, &session).await;
    };
    let message = SendMessage { text: Some(prompt), context: words.context, ..Default::default() };
    let accepted = client.send(&id, &message, &Uuid::new_v4().to_string()).await?;
    if let Some(name) = shown_here {
        return tmux::show(&ctx, name, &session);
    }
    if args.detach {
        return out.either(&json!({"session_id": id, "message_id": accepted.message_id}), || id);
    }

    let mut view = match format {
        Format::StreamJson => View::new(out.clone(), Show::Events, Words::Stderr),
        _ => View::for_answer(out.clone()),
    };
    let mut desk = Desk::new(if out.stderr_tty { Lines::of_terminal() } else { None });
    // From the start of what is new: a conversation that goes on does not tell its history again.
    let after = if resumes { accepted.seq.saturating_sub(1) } else { 0 };
    let ended = to_the_end(&client, &session, accepted.message_id, after, &mut view, &mut desk).await;
    let outcome = match ended {
        Ok(Ended::Left) => {
            view.note(&format!("the session goes on; `castra attach {id}` returns to it"))?;
            return Err(Failure::silent(INTERRUPTED));
        }
        Ok(Ended::Message(message)) => answered(&message, schema, format, &mut view),
        Ok(Ended::Session(session)) => over(&session, format, &mut view),
        // Also where nobody reads any more, as behind `| head`: what was started is still ended.
        Err(failure) => Err(failure),
    };
    drop(view);
    // What this command started it ends; a session that ran before is somebody else's.
    let ours = !resumes || matches!(session.state, RunState::Queued | RunState::Starting);
    if args.rm {
        match client.remove(&id, true).await {
            Err(error)
                if error.problem().is_some_and(|problem| problem.code == ErrorCode::SessionNotFound) => {}
            other => other?,
        }
    } else if ours && !args.keep && args.tmux.is_none() {
        match client.act(&id, "stop").await {
            Ok(_) => {}
            Err(error) if error.problem().is_some() => {}
            Err(error) => return outcome.and(Err(error.into())),
        }
    }
    outcome
}

/// The view in tmux; without it, since its name was taken in the meantime, not the new session either.
async fn view_or_nothing(
    ctx: &Ctx,
    client: &Client,
    name: &TmuxName,
    session: &Session,
    resumes: bool,
) -> Result<(), Failure> {
    let made = tmux::make(ctx, name, session, false);
    if made.is_err() && !resumes {
        client.remove(&session.id.to_string(), true).await?;
    }
    made
}

fn here_is_a_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The prompt and the context, of which one may come from stdin.
fn words(
    prompt: Option<String>,
    context: Option<String>,
    cwd: &std::path::Path,
    may_be_none: bool,
) -> Result<Said, Failure> {
    let piped = !std::io::stdin().is_terminal();
    let from_stdin = || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    };
    let (prompt, context) = match (prompt.as_deref(), context.as_deref()) {
        (Some("-"), Some("-")) => {
            return Err(Failure::usage("only one of prompt and --context can be stdin"));
        }
        (Some("-"), context) => {
            (Some(from_stdin()?), context.map(|text| text_or_file(text, cwd)).transpose()?)
        }
        (prompt, Some("-")) => (prompt.map(String::from), Some(from_stdin()?)),
        (prompt, Some(text)) => (prompt.map(String::from), Some(text_or_file(text, cwd)?)),
        (Some(prompt), None) if piped && is_pipe() => (Some(prompt.into()), Some(from_stdin()?)),
        (Some(prompt), None) => (Some(prompt.into()), None),
        (None, None) if piped => (Some(from_stdin()?), None),
        (None, None) => (None, None),
    };
    let blank = |text: &String| text.trim().is_empty();
    let context = context.filter(|text| !blank(text));
    match &prompt {
        Some(text) if blank(text) && may_be_none => Ok(Said { prompt: None, context }),
        Some(text) if blank(text) => Err(Failure::usage("there is no prompt")
            .hint("castra run 'what to do', or on a terminal without one")),
        _ => Ok(Said { prompt, context }),
    }
}

/// Somebody wrote into it: a pipe or a file. An inherited socket or /dev/null is nobody's context, and
/// reading one that never ends would hang.
fn is_pipe() -> bool {
    use rustix::fs::{FileType, fstat};
    fstat(std::io::stdin()).is_ok_and(|stat| {
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::RegularFile)
    })
}

/// The message has its end: the answer on stdout, or why there is none.
pub(super) fn finish(message: &Message, out: &Out, view: &mut View) -> Result<(), Failure> {
    let format = if out.json { Format::Json } else { Format::Text };
    answered(message, false, format, view)
}

fn answered(message: &Message, schema: bool, format: Format, view: &mut View) -> Result<(), Failure> {
    let session = message.session_id;
    if format == Format::Json {
        view.out.json(message)?;
    }
    let Some(result) = &message.result else {
        return Err(match message.state {
            MessageState::Withdrawn => Failure::new("the message was withdrawn before it was delivered"),
            _ => Failure::new("the turn was interrupted")
                .hint(format!("castra run --resume {session} continues"))
                .exit(INTERRUPTED),
        });
    };
    if message.state == MessageState::Interrupted {
        return Err(Failure::new("the turn was interrupted")
            .hint(format!("castra run --resume {session} continues"))
            .exit(INTERRUPTED));
    }
    if !result.ok {
        return Err(failed(result));
    }
    if format == Format::Text {
        match &result.structured_output {
            Some(value) if schema => view.answer(&value.to_string())?,
            None if schema => {
                return Err(Failure::new(
                    "claude gave an answer, and not in the form that --schema asks for",
                )
                .hint(format!("castra logs {session} has it")));
            }
            _ => view.answer(&result.text)?,
        }
    }
    if view.out.stderr_tty {
        let line = view.out.paint(Style::Dim, &summary(result, &session.to_string()));
        view.note(&line)?;
    }
    Ok(())
}

fn failed(result: &TurnResult) -> Failure {
    match &result.error {
        Some(problem) => problem.clone().into(),
        None if result.text.is_empty() => Failure::new(result.subtype.clone()),
        None => Failure::new(result.text.clone()),
    }
}

fn summary(result: &TurnResult, session: &str) -> String {
    let turns = if result.num_turns == 1 { "1 turn".into() } else { format!("{} turns", result.num_turns) };
    format!("✓ ${:.4} · {:.1} s · {turns} · session {session}", result.cost_usd, result.duration_s)
}

/// The run is over and the message is not: what there is of an answer, and the reason.
fn over(session: &Session, format: Format, view: &mut View) -> Result<(), Failure> {
    let text = view.progress.words_so_far().to_owned();
    if format == Format::Json {
        view.out.json(&json!({
            "session_id": session.id, "ok": false, "text": text,
            "exit": session.exit.as_ref().map_or(Value::Null, |exit| json!(exit)),
        }))?;
    } else if format == Format::Text && !text.is_empty() {
        view.answer(&text)?;
    }
    Err(exit_failure(session.exit.as_ref(), &session.id.to_string()))
}

/// Why a run that was waited for ended.
pub(super) fn exit_failure(exit: Option<&Exit>, session: &str) -> Failure {
    let Some(exit) = exit else {
        return Failure::new("the session ended before the answer")
            .hint(format!("castra logs {session} tells more"));
    };
    let (text, code) = match exit.cause {
        ExitCause::Stopped => ("the session was stopped before the answer", 1),
        ExitCause::Finished => ("claude ended before the answer", ErrorCode::CliExited.exit_code()),
        ExitCause::Crashed => ("claude ended before the answer", ErrorCode::CliExited.exit_code()),
        ExitCause::SpawnFailed => ("claude could not be started", ErrorCode::CliStartFailed.exit_code()),
        ExitCause::StartTimeout => ("claude did not start in time", TIMED_OUT),
        ExitCause::Timeout => ("a limit of time was reached", TIMED_OUT),
        ExitCause::MaxTurns => ("the number of turns was reached", 1),
        ExitCause::BudgetExceeded => ("the budget is spent", 1),
        ExitCause::MemoryLimit => ("the limit of memory was reached", 1),
        ExitCause::Lost => ("the run was lost", 1),
    };
    let mut text = text.to_owned();
    if let Some(detail) = &exit.detail {
        text.push_str(": ");
        text.push_str(detail);
    } else if let Some(code) = exit.code.filter(|_| exit.cause == ExitCause::Crashed) {
        text.push_str(&format!(" (exit code {code})"));
    } else if let Some(signal) = exit.signal.filter(|_| exit.cause == ExitCause::Crashed) {
        text.push_str(&format!(" (signal {signal})"));
    }
    Failure::new(text)
        .hint(format!("castra logs {session} tells more; castra resume {session} continues"))
        .exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::session::Reaped;
    use castra_proto::{MessageId, Problem, SessionId, Timestamp};

    fn view() -> View {
        let mut out = Out::new(true);
        out.stderr_tty = false;
        View::new(out, Show::Nothing, Words::Stderr)
    }

    fn message(state: MessageState, result: Option<TurnResult>) -> Message {
        Message { message_id: MessageId::now(), session_id: SessionId::now(), state, seq: 1, result }
    }

    fn result(ok: bool, error: Option<Problem>, text: &str) -> TurnResult {
        TurnResult {
            seq: 2,
            ok,
            subtype: "success".into(),
            text: text.into(),
            structured_output: None,
            error,
            cost_usd: 0.0123,
            duration_s: 4.25,
            num_turns: 3,
            usage: Value::Null,
        }
    }

    #[test]
    fn a_turn_that_failed_is_never_called_a_success() {
        let refused = Problem::new(ErrorCode::AuthFailed, "API Error: 401");
        let late = Problem::new(ErrorCode::Timeout, "too late");
        type Outcome = Result<(), (u8, &'static str)>;
        let table: &[(Message, Outcome)] = &[
            (message(MessageState::Answered, Some(result(true, None, ""))), Ok(())),
            (
                message(MessageState::Answered, Some(result(false, Some(refused), "API Error: 401"))),
                Err((1, "API Error: 401 (auth_failed)")),
            ),
            (
                message(MessageState::Answered, Some(result(false, Some(late), ""))),
                Err((124, "too late (timeout)")),
            ),
            (message(MessageState::Answered, Some(result(false, None, "odd"))), Err((1, "odd"))),
            (message(MessageState::Interrupted, None), Err((130, "the turn was interrupted"))),
            (
                message(MessageState::Interrupted, Some(result(true, None, "half"))),
                Err((130, "the turn was interrupted")),
            ),
            (
                message(MessageState::Withdrawn, None),
                Err((1, "the message was withdrawn before it was delivered")),
            ),
        ];
        for (message, expected) in table {
            let outcome = answered(message, false, Format::StreamJson, &mut view())
                .map_err(|failure| (failure.exit, failure.message.unwrap_or_default()));
            assert_eq!(outcome, expected.map_err(|(exit, text)| (exit, text.to_owned())), "{message:?}");
        }
    }

    #[test]
    fn ends_of_a_run_and_their_exit_codes() {
        let exit = |cause, code, detail: Option<&str>| Exit {
            cause,
            code,
            signal: None,
            tail_lost: false,
            reaped: Reaped::Proved,
            detail: detail.map(String::from),
            at: Timestamp(0),
        };
        let table: &[(Option<Exit>, u8, &str)] = &[
            (None, 1, "the session ended before the answer"),
            (Some(exit(ExitCause::Timeout, None, None)), 124, "a limit of time was reached"),
            (Some(exit(ExitCause::StartTimeout, None, None)), 124, "claude did not start in time"),
            (
                Some(exit(ExitCause::Crashed, Some(3), None)),
                1,
                "claude ended before the answer (exit code 3)",
            ),
            (
                Some(exit(ExitCause::SpawnFailed, None, Some("no such file"))),
                1,
                "claude could not be started: no such file",
            ),
            (Some(exit(ExitCause::Stopped, Some(0), None)), 1, "the session was stopped before the answer"),
        ];
        for (exit, code, text) in table {
            let failure = exit_failure(exit.as_ref(), "S");
            assert_eq!((failure.exit, failure.message.as_deref()), (*code, Some(*text)));
        }
    }

    #[test]
    fn the_last_line() {
        assert_eq!(summary(&result(true, None, ""), "S"), "✓ $0.0123 · 4.2 s · 3 turns · session S");
    }
}
