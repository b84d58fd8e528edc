//! `castra team send`, `ask`, `route` and `fanout`: what is said, and waiting for the answer to just that.

use super::Of;
use crate::cli::Ctx;
use crate::cli::failure::{Failure, TIMED_OUT};
use crate::cli::out::Out;
use crate::cli::spec::duration;
use crate::client::{Client, Error};
use castra_proto::ErrorCode;
use castra_proto::team::{Answer, AnswerState, AskAgent, Fanout, RouteAnswer};
use clap::Args;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct Said {
    agent: String,
    /// What to say; `-` reads it from stdin
    text: String,
    /// The conversation: each key has one of its own
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Sent before the text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    context: Option<String>,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    once: Once,
}

#[derive(Args, Debug)]
pub(super) struct Once {
    /// The same key twice is one request: asked again, it gets the one answer
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    idempotency_key: Option<String>,
}

impl Once {
    pub(super) fn key(&self) -> String {
        self.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string())
    }
}

#[derive(Args, Debug)]
pub(super) struct Patience {
    /// Wait at most this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<u64>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SendArgs {
    #[command(flatten)]
    said: Said,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AskArgs {
    #[command(flatten)]
    said: Said,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RouteArgs {
    /// What --from is asked first; without --from, what is given on. `-` reads it from stdin
    #[arg(required_unless_present = "from")]
    message: Option<String>,
    /// The agent whose answer is given on: to MESSAGE, or its newest one
    #[arg(long, value_name = "AGENT")]
    from: Option<String>,
    /// The agent that it is given to
    #[arg(long, value_name = "AGENT")]
    to: String,
    /// What is said instead of the bare answer: `{message}` is replaced by it, other braces are text
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    wrap: Option<String>,
    /// The conversation, with both
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct FanoutArgs {
    /// What to ask; `-` reads it from stdin
    text: String,
    /// Only these, separated by commas
    #[arg(long, value_name = "AGENTS", value_delimiter = ',')]
    agents: Vec<String>,
    /// The conversation, with each of them
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn text(given: String) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

impl Said {
    fn message(&self) -> Result<AskAgent, Failure> {
        Ok(AskAgent {
            text: text(self.text.clone())?,
            context: self.context.clone(),
            key: self.key.clone(),
            ..AskAgent::default()
        })
    }
}

pub(super) async fn send(args: SendArgs, ctx: Ctx) -> Result<(), Failure> {
    let (said, client) = (args.said, ctx.client().await?);
    let team = said.of.find(&client).await?;
    let answer = client.ask_agent(&team, &said.agent, &said.message()?, &said.once.key(), 0).await?;
    let id = answer.message_id.map(|id| id.to_string());
    ctx.out.either(&answer, || id.unwrap_or_default())
}

pub(super) async fn ask(args: AskArgs, ctx: Ctx) -> Result<(), Failure> {
    let (said, client) = (args.said, ctx.client().await?);
    let (team, message, key) = (said.of.find(&client).await?, said.message()?, said.once.key());
    let mut waiting = Waiting::new(&client, &ctx.out, &args.patience);
    let asking = async |wait| client.ask_agent(&team, &said.agent, &message, &key, wait).await;
    let answer = waiting.till_over(asking, |answer| (answer.state, vec![answer])).await?;
    tell_one(&answer, &ctx.out)
}

pub(super) async fn route(args: RouteArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let (team, key) = (args.of.find(&client).await?, args.once.key());
    let request = RouteAnswer {
        from: args.from,
        text: args.message.map(text).transpose()?,
        to: args.to,
        wrap: args.wrap,
        key: args.key,
    };
    let mut waiting = Waiting::new(&client, &ctx.out, &args.patience);
    let routing = async |wait| client.route(&team, &request, &key, wait).await;
    let routed = waiting
        .till_over(routing, |routed| (routed.state, routed.asked.iter().chain(&routed.answer).collect()))
        .await?;
    if ctx.out.json {
        ctx.out.json(&routed)?;
    }
    // What was given on is no answer of the last one; where nothing was, its error is what there is to say.
    match routed.answer.as_ref().or(routed.asked.as_ref()) {
        Some(answer) if !ctx.out.json => tell_one(answer, &ctx.out),
        Some(answer) => failed(answer).map_or(Ok(()), |failure| Err(Failure::silent(failure.exit))),
        None => Ok(()),
    }
}

pub(super) async fn fanout(args: FanoutArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let (team, key) = (args.of.find(&client).await?, args.once.key());
    let request = Fanout { text: text(args.text)?, agents: args.agents, key: args.key };
    let mut waiting = Waiting::new(&client, &ctx.out, &args.patience);
    let asking = async |wait| client.fan_out(&team, &request, &key, wait).await;
    let answers = waiting.till_over(asking, |all| (all.state, all.answers.iter().collect())).await?;
    if ctx.out.json {
        ctx.out.json(&answers)?;
    } else {
        tell_all(&answers.answers, &ctx.out)?;
    }
    exit_of(&answers.answers)
}

/// Waits in slices, so that who waits for a person is told, and a daemon that went away is waited for.
pub(super) struct Waiting<'a> {
    client: &'a Client,
    out: &'a Out,
    until: Option<Instant>,
    sliced: bool,
    told: BTreeSet<String>,
}

impl<'a> Waiting<'a> {
    const FIRST: u64 = 3;
    const LATER: u64 = 30;

    pub(super) fn new(client: &'a Client, out: &'a Out, patience: &Patience) -> Self {
        let until = patience.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Self { client, out, until, sliced: false, told: BTreeSet::new() }
    }

    /// Seconds to wait now.
    pub(super) fn slice(&mut self) -> u64 {
        let slice = if std::mem::replace(&mut self.sliced, true) { Self::LATER } else { Self::FIRST };
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        // Rounded up: a wait of 0 would be asked for again and again.
        left.map_or(slice, |left| slice.min(left.as_millis().div_ceil(1000) as u64))
    }

    /// Asks again, as the same request, until it is over or there is no time. `stands`: how it is, and with whom.
    async fn till_over<T>(
        &mut self,
        ask: impl AsyncFn(u64) -> Result<T, Error>,
        stands: impl Fn(&T) -> (AnswerState, Vec<&Answer>),
    ) -> Result<T, Error> {
        loop {
            let said = ask(self.slice()).await?;
            let (state, answers) = stands(&said);
            if self.is_over(state, answers).await? {
                return Ok(said);
            }
        }
    }

    /// Whether there is nothing to wait for, or no time.
    pub(super) async fn is_over(
        &mut self,
        state: AnswerState,
        answers: impl IntoIterator<Item = &Answer>,
    ) -> Result<bool, Error> {
        if state != AnswerState::Waiting || self.until.is_some_and(|until| Instant::now() >= until) {
            return Ok(true);
        }
        for answer in answers.into_iter().filter(|answer| answer.state == AnswerState::Waiting) {
            let Some(id) = answer.session_id else { continue };
            let session = self.client.show(&id.to_string()).await?;
            for request in session.pending {
                if self.told.insert(request.request_id) {
                    self.out.note(&format!("{} waits for an answer: castra approve {id}", answer.agent));
                }
            }
        }
        Ok(false)
    }
}

/// An answer on stdout, or its failure.
fn tell_one(answer: &Answer, out: &Out) -> Result<(), Failure> {
    if out.json {
        out.json(answer)?;
        return failed(answer).map_or(Ok(()), |failure| Err(Failure::silent(failure.exit)));
    }
    match failed(answer) {
        None => out.line(answer.text.as_deref().unwrap_or_default()),
        Some(failure) => Err(failure),
    }
}

/// Answers on stdout, each under its agent's name, and what failed on stderr.
pub(super) fn tell_all(answers: &[Answer], out: &Out) -> Result<(), Failure> {
    for answer in answers {
        match failed(answer) {
            None => {
                out.line(&format!("{}:\n{}\n", answer.agent, answer.text.as_deref().unwrap_or_default()))?
            }
            Some(failure) => {
                let message = failure.message.unwrap_or_default();
                out.warn(&format!("{}: {}", answer.agent, crate::cli::escape::visible(&message)));
            }
        }
    }
    Ok(())
}

/// Of several: how the worst of them exits. Everything has been said.
pub(super) fn exit_of(answers: &[Answer]) -> Result<(), Failure> {
    let exits: Vec<u8> = answers.iter().filter_map(failed).map(|failure| failure.exit).collect();
    match exits.as_slice() {
        [] => Ok(()),
        exits if exits.iter().all(|exit| *exit == TIMED_OUT) => Err(Failure::silent(TIMED_OUT)),
        _ => Err(Failure::silent(1)),
    }
}

/// Why there is no answer. The agent's name is for the caller to say.
fn failed(answer: &Answer) -> Option<Failure> {
    match answer.state {
        AnswerState::Answered => None,
        AnswerState::Waiting => {
            let session = answer.session_id.map(|id| id.to_string()).unwrap_or_default();
            let failure = Failure::new("no answer within the time");
            Some(failure.hint(format!("it is still coming: castra logs {session} -f")).exit(TIMED_OUT))
        }
        AnswerState::Failed => Some(match answer.error.clone() {
            Some(problem) if problem.code == ErrorCode::Timeout => Failure::from(problem).exit(1),
            Some(problem) => problem.into(),
            None => Failure::new("no answer"),
        }),
    }
}
