//! `castra send`, `wait` and `control`: words to a session, and waiting for what comes of them.

use super::Ctx;
use super::failure::{Failure, INTERRUPTED, TIMED_OUT};
use super::input::Lines;
use super::run::{exit_failure, finish};
use super::spec::text_or_file;
use super::turn::{Desk, Ended, to_the_end};
use super::view::View;
use crate::client::{Client, Item};
use castra_proto::api::{Control, IfBusy, Priority, SendMessage};
use castra_proto::{OwnKind, RunState, Session};
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::Read as _;
use std::time::Duration;
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// What to say; `-` reads it from stdin
    text: String,
    /// TEXT is a slash command: run it. To a terminal session any other text that begins with `/` is text
    #[arg(long, conflicts_with = "context")]
    command: bool,
    /// Wait for the answer and print it; with SECONDS at most so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    wait: Option<u64>,
    /// Sent before the text; `-` reads stdin
    #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    context: Option<String>,
    /// While a turn runs: queue, reject, steer (join the turn) or interrupt
    #[arg(long, value_name = "WHAT", value_parser = if_busy, default_value = "queue")]
    if_busy: IfBusy,
    /// claude's own queue priority: now, next or later
    #[arg(long, value_parser = priority, hide_short_help = true)]
    priority: Option<Priority>,
    /// The same key twice is one message
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct WaitArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// At most so long, e.g. 90s, 10m
    #[arg(long, value_name = "DURATION", value_parser = super::spec::duration)]
    timeout: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// e.g. set_model, mcp_status, get_context_usage
    subtype: String,
    /// Fields of the request; values are JSON where they read as JSON, else text
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
}

fn if_busy(text: &str) -> Result<IfBusy, &'static str> {
    serde_json::from_value(json!(text)).map_err(|_| "queue, reject, steer or interrupt")
}

fn priority(text: &str) -> Result<Priority, &'static str> {
    serde_json::from_value(json!(text)).map_err(|_| "now, next or later")
}

pub(super) async fn send(args: SendArgs, ctx: Ctx) -> Result<(), Failure> {
    let cwd = std::env::current_dir()?;
    let stdin = || -> Result<String, Failure> {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        Ok(text)
    };
    if args.text == "-" && args.context.as_deref() == Some("-") {
        return Err(Failure::usage("only one of the text and --context can be stdin"));
    }
    let text = if args.text == "-" { stdin()? } else { args.text };
    let context = match args.context.as_deref() {
        Some("-") => Some(stdin()?),
        Some(given) => Some(text_or_file(given, &cwd)?),
        None => None,
    };
    let message = SendMessage {
        text: (!args.command).then(|| text.clone()),
        command: args.command.then_some(text),
        content: None,
        context,
        if_busy: args.if_busy,
        priority: args.priority,
    };
    let client = ctx.client().await?;
    let session = client.show(&args.id).await?;
    let id = session.id.to_string();
    let key = args.key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let accepted = client.send(&id, &message, &key).await?;
    let Some(seconds) = args.wait else {
        return ctx.out.either(&accepted, || accepted.message_id.to_string());
    };
    let mut view = View::for_answer(ctx.out.clone());
    let mut desk = Desk::new(if ctx.out.stderr_tty { Lines::of_terminal() } else { None });
    let after = accepted.seq.saturating_sub(1);
    let waiting = to_the_end(&client, &session, accepted.message_id, after, &mut view, &mut desk);
    let ended = match seconds {
        0 => waiting.await?,
        seconds => match tokio::time::timeout(Duration::from_secs(seconds), waiting).await {
            Ok(ended) => ended?,
            Err(_) => {
                return Err(Failure::new(format!("no answer within {seconds} s"))
                    .hint(format!("it is still coming: castra logs {id} -f"))
                    .exit(TIMED_OUT));
            }
        },
    };
    match ended {
        Ended::Message(message) => finish(&message, &ctx.out, &mut view),
        Ended::Session(session) => Err(exit_failure(session.exit.as_ref(), &id)),
        Ended::Left => Err(Failure::silent(INTERRUPTED)),
    }
}

pub(super) async fn wait(args: WaitArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let session = client.show(&args.id).await?;
    let waiting = until_idle(&client, session);
    let session = match args.timeout {
        None => waiting.await?,
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), waiting).await {
            Ok(session) => session?,
            Err(_) => return Err(Failure::new(format!("not idle within {seconds} s")).exit(TIMED_OUT)),
        },
    };
    ctx.out.either(&session, || format!("{} {}", session.id, session.state))?;
    match session.state {
        RunState::Lost => Err(exit_failure(session.exit.as_ref(), &session.id.to_string())),
        _ => Ok(()),
    }
}

/// Returns when no turn runs and nothing is queued, or the run is over.
async fn until_idle(client: &Client, mut session: Session) -> Result<Session, Failure> {
    let id = session.id.to_string();
    let mut follow = client.follow(&id, session.head_seq);
    loop {
        let idle = session.state == RunState::Idle && !session.busy && session.queued == 0;
        if idle || session.state.is_final() {
            return Ok(session);
        }
        // Only what can have changed the answer is worth asking for it.
        loop {
            match follow.next().await? {
                None => return Err(Failure::new("the session was removed")),
                Some(Item::Reconnected) => break,
                Some(Item::Event(event))
                    if [OwnKind::State, OwnKind::Queued, OwnKind::Exit, OwnKind::InputDelivered]
                        .into_iter()
                        .any(|own| event.kind.is(own)) =>
                {
                    break;
                }
                Some(_) => {}
            }
        }
        session = client.show(&id).await?;
    }
}

pub(super) async fn control(args: ControlArgs, ctx: Ctx) -> Result<(), Failure> {
    let fields = fields(&args.fields)?;
    let client = ctx.client().await?;
    let answer = client.control(&args.id, &Control { subtype: args.subtype, fields }).await?;
    if !ctx.out.json && !answer.ok {
        return Err(Failure::new(answer.error.unwrap_or_else(|| "claude refused it".into())));
    }
    if ctx.out.json {
        ctx.out.json(&answer)?;
    } else {
        let response = answer.response.as_ref().unwrap_or(&Value::Null);
        ctx.out.line(&serde_json::to_string_pretty(response).map_err(std::io::Error::from)?)?;
    }
    if answer.ok { Ok(()) } else { Err(Failure::silent(1)) }
}

fn fields(given: &[String]) -> Result<Map<String, Value>, Failure> {
    given
        .iter()
        .map(|field| {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("`{field}` must be KEY=VALUE")))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            Ok((name.to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_json_where_they_read_as_json() {
        let given =
            ["model=sonnet", "n=5", "on=true", "list=[1]", "text=a=b", "quoted=\"5\""].map(String::from);
        assert_eq!(
            Value::Object(fields(&given).unwrap()),
            json!({"model":"sonnet","n":5,"on":true,"list":[1],"text":"a=b","quoted":"5"})
        );
        assert_eq!(fields(&["x".into()]).unwrap_err(), Failure::usage("`x` must be KEY=VALUE"));
    }
}
