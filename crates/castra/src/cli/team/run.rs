//! `castra team run`: a flow, step by step, of a team that is there or of one that is made for it.

use super::talk::{Once, Patience, Waiting, exit_of, tell_all, text};
use super::{Laid, Of, build};
use crate::cli::Ctx;
use crate::cli::failure::{Failure, INTERRUPTED, TIMED_OUT};
use crate::cli::out::{Out, Style};
use crate::cli::turn::Interrupts;
use crate::client::Client;
use castra_proto::team::{AnswerState, FlowRun, RunFlow, StepRun};
use clap::Args;
use std::path::{Path, PathBuf};
use uuid::Uuid;

#[derive(Args, Debug)]
pub(in crate::cli) struct RunArgs {
    /// A team file, or a team: id, unique prefix, or name
    #[arg(value_name = "FILE|TEAM")]
    of: String,
    /// What `{message}` stands for in the flow; `-` reads it from stdin
    message: Option<String>,
    /// The conversation, in every step that names none
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Keep the team that was made of a file
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    laid: Laid,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    patience: Patience,
}

/// A file is what exists as one, or is called like one.
fn is_file(of: &str) -> bool {
    let path = Path::new(of);
    let called =
        path.extension().is_some_and(|end| ["toml", "yaml", "yml", "json"].iter().any(|e| end == *e));
    of == "-" || called || path.is_file()
}

pub(super) async fn run(args: RunArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let (key, message) = (args.once.key(), args.message.map(text).transpose()?);
    let request = RunFlow { message, key: args.key };
    let mut waiting = Waiting::new(&client, &ctx.out, &args.patience);
    if !is_file(&args.of) {
        if args.laid.demo || args.laid.name.is_some() || args.keep {
            return Err(Failure::usage(
                "--demo, --name and --keep are for a file, not for a team that is there",
            ));
        }
        let of = Of { team: Some(args.of) };
        return follow(&client, &of.find(&client).await?, &request, &key, &mut waiting, &ctx.out).await;
    }
    let spec = build(&PathBuf::from(&args.of), args.laid, &std::env::current_dir()?)?;
    if spec.flow.is_empty() {
        return Err(Failure::usage(format!("{} has no flow", args.of)).hint("name its steps under `flow`"));
    }
    // Before there is anything to interrupt: a Ctrl-C while the agents start removes the team too, once it is there.
    let mut interrupts = Interrupts::new()?;
    let team = client.create_team(&spec, false, &Uuid::new_v4().to_string()).await?.id.to_string();
    let done = tokio::select! {
        done = follow(&client, &team, &request, &key, &mut waiting, &ctx.out) => done,
        () = interrupts.next() => Err(Failure::silent(INTERRUPTED)),
    };
    if args.keep {
        ctx.out.hint(&format!("castra team status {team}"));
        return done;
    }
    match (done, client.remove_team(&team, true).await) {
        (Err(error), Err(left)) => {
            ctx.out.warn(&format!("the team {team} was not removed: {left}"));
            Err(error)
        }
        (done, removed) => {
            removed?;
            done
        }
    }
}

async fn follow(
    client: &Client,
    team: &str,
    request: &RunFlow,
    key: &str,
    waiting: &mut Waiting<'_>,
    out: &Out,
) -> Result<(), Failure> {
    let mut seen = 0;
    let run: FlowRun = loop {
        let run = client.run_flow(team, request, key, waiting.slice(), seen).await?;
        let over = run.steps.iter().filter(|step| step.state != AnswerState::Waiting).count();
        if !out.json {
            for step in run.steps.iter().take(over).skip(seen) {
                tell(step, run.of, out)?;
            }
        }
        seen = over;
        if waiting.is_over(run.state, run.steps.iter().flat_map(|step| &step.answers)).await? {
            break run;
        }
    };
    if out.json {
        out.json(&run)?;
    }
    let last = run.steps.last();
    match run.state {
        AnswerState::Answered => Ok(()),
        AnswerState::Failed => exit_of(last.map(|step| step.answers.as_slice()).unwrap_or_default()),
        AnswerState::Waiting => {
            if let Some(step) = last.filter(|step| !out.json && step.state == AnswerState::Waiting) {
                tell(step, run.of, out)?;
            }
            Err(Failure::silent(TIMED_OUT))
        }
    }
}

/// Which step it is on stderr, its answers on stdout.
fn tell(step: &StepRun, of: u32, out: &Out) -> Result<(), Failure> {
    let agents: Vec<&str> = step.answers.iter().map(|answer| answer.agent.as_str()).collect();
    let name = step.as_.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let line = format!("step {} of {of}{name} ({})", step.n, agents.join(", "));
    out.note(&out.paint(Style::Dim, &line));
    tell_all(&step.answers, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name() {
        for (of, file) in
            [("team.toml", true), ("x/y.yaml", true), ("-", true), ("review", false), ("0192", false)]
        {
            assert_eq!(is_file(of), file, "{of}");
        }
    }
}
