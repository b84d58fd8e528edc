//! `castra demo`: the newcomer's tour. The real CLI, a scripted model, one permission, one answer.

use super::Ctx;
use super::claude::{install, used};
use super::failure::{Failure, INTERRUPTED};
use super::out::Style;
use super::run::{exit_failure, finish};
use super::turn::{Desk, Ended, to_the_end};
use super::view::{Show, View, Words};
use crate::config::FlagValue;
use castra_proto::SessionSpec;
use castra_proto::api::SendMessage;
use clap::Args;
use std::path::PathBuf;
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Keep the demo's data in this folder
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

impl DemoArgs {
    pub(super) fn flags(&self) -> Vec<FlagValue> {
        let home = self.home.as_ref().map(|home| ("home", "--home", home.display().to_string()));
        home.into_iter().collect()
    }
}

/// In the default script it makes the model use a tool that needs a permission.
const PROMPT: &str = "write a haiku to haiku.txt";

pub(super) async fn demo(args: DemoArgs, ctx: Ctx) -> Result<(), Failure> {
    let step = |text: &str| ctx.out.note(&ctx.out.paint(Style::Bold, text));
    step("castra runs Claude Code as sessions that outlive everything above them. A short tour:");

    step("\n1. The daemon");
    let client = ctx.client().await?;
    ctx.out.note(&format!("  it runs, its data is in {}", ctx.settings.home.display()));

    step("\n2. The Claude Code CLI");
    let claude = match used(&client).await? {
        Some(claude) => claude,
        None => {
            ctx.out.note("  there is none yet; installing it");
            install(&client, None, &ctx).await?
        }
    };
    let text = |key: &str| super::escape::one_line(claude[key].as_str().unwrap_or("?"), 300);
    ctx.out.note(&format!("  claude {} at {}", text("version"), text("path")));

    step("\n3. A session: the real CLI against a scripted model, so nobody needs an account");
    let spec = SessionSpec { demo: true, ..Default::default() };
    let session = client.create(&spec, &Uuid::new_v4().to_string()).await?;
    let id = session.id.to_string();
    ctx.out.note(&format!("  session {id}\n  > {PROMPT}\n"));
    let message = SendMessage { text: Some(PROMPT.into()), ..Default::default() };
    let accepted = client.send(&id, &message, &Uuid::new_v4().to_string()).await?;

    let words = match (ctx.out.stdout_tty, ctx.out.stderr_tty) {
        (true, true) if !ctx.out.json => Words::Stdout,
        (_, true) => Words::Stderr,
        (_, false) => Words::Nowhere,
    };
    let mut view = View::new(ctx.out.clone(), Show::Everything, words);
    let mut desk = Desk::for_demo();
    let ended = to_the_end(&client, &session, accepted.message_id, 0, &mut view, &mut desk).await?;
    match ended {
        Ended::Message(message) => finish(&message, &ctx.out, &mut view)?,
        Ended::Session(session) => return Err(exit_failure(session.exit.as_ref(), &id)),
        Ended::Left => return Err(Failure::silent(INTERRUPTED)),
    }
    drop(view);
    if !desk.has_answered() {
        return Err(Failure::new("the demo's model asked for no permission, as it should have")
            .hint(format!("castra logs {id} tells what happened")));
    }
    client.act(&id, "stop").await?;

    let castra = castra_here(args.home.as_deref());
    step("\nWhat to try next");
    for (command, what) in [
        ("run --demo 'list the files'".to_owned(), "a prompt of your own to the scripted model"),
        ("run --demo".to_owned(), "a conversation; say `help` to it"),
        (format!("logs {id}"), "everything that happened just now"),
        (format!("resume {id}"), "continue this conversation"),
        ("run 'what is this folder?' --home user".to_owned(), "the real model, with your own login"),
        ("ps -a".to_owned(), "all sessions"),
        ("down".to_owned(), "stop the daemon; sessions live on"),
    ] {
        ctx.out.note(&format!("  {:<60} {what}", format!("{castra} {command}")));
    }
    Ok(())
}

/// How a command must be typed to reach the same data.
fn castra_here(home: Option<&std::path::Path>) -> String {
    match home {
        Some(home) => format!("CASTRA_HOME={} castra", home.display()),
        None => "castra".into(),
    }
}
