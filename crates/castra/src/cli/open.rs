//! `castra open`: a link that shows a session's terminal in a browser, signed in. Refuses to start a browser.

use super::Ctx;
use super::failure::Failure;
use crate::client::{Client, Target};
use crate::daemon::DaemonFile;
use castra_proto::Session;
use castra_proto::api::{CreateTicket, Scope};
use castra_proto::spec::Mode;
use clap::Args;
use serde_json::json;

#[derive(Args, Debug)]
pub(super) struct OpenArgs {
    /// Session: id, unique prefix, or name; unset: the newest on a terminal
    id: Option<String>,
    /// The browser may look and nothing else
    #[arg(long)]
    read_only: bool,
}

pub(super) async fn open(args: OpenArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let session = match &args.id {
        Some(id) => client.show(id).await?,
        None => newest(&client, &ctx).await?,
    };
    if session.spec.mode != Mode::Terminal {
        let failure = Failure::new("the session is in stream mode and has no terminal");
        return Err(failure.hint("`castra attach ID` shows it as a conversation"));
    }
    let base = base(&client, &ctx)?;
    let scope = args.read_only.then_some(Scope::Read);
    let request = CreateTicket { scope, session_id: Some(session.id) };
    let ticket = client.create_ticket(&request).await?;
    let url = format!("{base}/api/v1/sessions/{}/terminal/#ticket={}", session.id, ticket.ticket);
    let shown = json!({
        "url": url, "session_id": session.id, "scope": ticket.scope, "expires_at": ticket.expires_at,
    });
    ctx.out.either(&shown, || url.clone())?;
    if !ctx.out.json {
        ctx.out.hint("open it within a minute, in one browser; it is good once");
    }
    Ok(())
}

async fn newest(client: &Client, ctx: &Ctx) -> Result<Session, Failure> {
    let on_terminal =
        client.sessions(false, None).await?.into_iter().filter(|s| s.spec.mode == Mode::Terminal);
    let newest = on_terminal.max_by_key(|session| session.created_at).ok_or_else(|| {
        Failure::new("no session runs on a terminal").hint("`castra open ID` opens an ended one as well")
    })?;
    ctx.out.note(&format!("session {}", newest.name.clone().unwrap_or_else(|| newest.id.to_string())));
    Ok(newest)
}

/// Where a browser finds the daemon: the way we came by, or its port.
fn base(client: &Client, ctx: &Ctx) -> Result<String, Failure> {
    let url = match client.target() {
        target @ Target::Url(_) => Some(target.to_string()),
        Target::Home(home) => DaemonFile::running(home).and_then(|daemon| daemon.url),
    };
    url.ok_or_else(|| {
        Failure::new(format!("the daemon of {} listens on no port", ctx.settings.home.display()))
            .hint("`castra down`, then `castra up -d --listen 127.0.0.1:7000`; sessions live on meanwhile")
    })
}
