//! `castra doctor`: a line and a remedy for everything that castra needs.

use super::Ctx;
use super::escape::{one_line, visible};
use super::failure::Failure;
use super::input::Lines;
use super::out::Style;
use super::turn::{Desk, Ended, to_the_end};
use super::view::View;
use crate::client::Client;
use crate::daemon::{self, DaemonFile};
use castra_proto::SessionSpec;
use castra_proto::api::SendMessage;
use castra_proto::spec::Home;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Also make one turn with your own login. It costs money, and asks first
    #[arg(long)]
    live: bool,
    /// With --live: do not ask
    #[arg(short, long, requires = "live")]
    yes: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    name: String,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

pub(super) async fn doctor(args: DoctorArgs, ctx: Ctx) -> Result<(), Failure> {
    let mut findings = vec![data_folder(&ctx)];
    let client = match ctx.client().await {
        Ok(client) => {
            findings.push(running(&ctx));
            findings.extend(client.doctor().await?.iter().map(finding));
            Some(client)
        }
        Err(failure) => {
            findings.push(Finding {
                name: "daemon".into(),
                ok: false,
                detail: failure.message.unwrap_or_default(),
                remedy: failure.hint,
            });
            None
        }
    };
    let mut seen = std::collections::HashSet::new();
    // The daemon may look at the same things from its side; what was seen first is said once.
    findings.retain(|finding| seen.insert(finding.name.clone()));
    if args.live
        && let Some(client) = &client
    {
        findings.push(live(client, args.yes, &ctx).await?);
    }
    if ctx.out.json {
        ctx.out.json(&serde_json::json!({ "items": findings }))?;
    } else {
        for finding in &findings {
            tell(finding, &ctx)?;
        }
    }
    if findings.iter().all(|finding| finding.ok) { Ok(()) } else { Err(Failure::silent(1)) }
}

fn tell(finding: &Finding, ctx: &Ctx) -> Result<(), Failure> {
    let mark = if finding.ok { "ok  " } else { "FAIL" };
    let detail = one_line(&finding.detail, 500);
    ctx.out.line(&format!("{mark}  {:<12}  {detail}", one_line(&finding.name, 12)))?;
    match &finding.remedy {
        Some(remedy) if !finding.ok => ctx.out.line(&format!("      {:<12}  → {}", "", visible(remedy))),
        _ => Ok(()),
    }
}

fn finding(item: &Value) -> Finding {
    let text = |key: &str| item[key].as_str().map(String::from);
    Finding {
        name: text("name").unwrap_or_default(),
        ok: item["ok"] == true,
        detail: text("detail").unwrap_or_default(),
        remedy: text("remedy"),
    }
}

/// Looked at from here too: without it there is no daemon to ask.
fn data_folder(ctx: &Ctx) -> Finding {
    let home = &ctx.settings.home;
    match daemon::prepare_home(home) {
        Ok(()) => Finding {
            name: "data folder".into(),
            ok: true,
            detail: format!("{}, yours alone", home.display()),
            remedy: None,
        },
        Err(error) => {
            let failure = Failure::from(error);
            Finding {
                name: "data folder".into(),
                ok: false,
                detail: failure.message.unwrap_or_default(),
                remedy: failure.hint,
            }
        }
    }
}

fn running(ctx: &Ctx) -> Finding {
    let file = DaemonFile::running(&ctx.settings.home);
    let own = env!("CARGO_PKG_VERSION");
    let (ok, detail, remedy) = match &file {
        None => (true, "answers".into(), None),
        Some(file) if file.version == own => (true, format!("pid {}, version {own}", file.process.pid), None),
        Some(file) => (
            false,
            format!("pid {} is version {}, this is {own}", file.process.pid, file.version),
            Some("castra down; the next command starts the new one, and sessions live on".into()),
        ),
    };
    Finding { name: "daemon".into(), ok, detail, remedy }
}

/// One turn of the real thing: never run by tests.
async fn live(client: &Client, yes: bool, ctx: &Ctx) -> Result<Finding, Failure> {
    ctx.out.warn("--live makes one turn with your own login: it costs money (usually less than a cent)");
    if !yes {
        let Some(mut lines) = Lines::of_terminal() else {
            return Err(Failure::usage("nobody is here to agree").hint("castra doctor --live --yes"));
        };
        ctx.out.raw_note("go on? [y/N] ");
        let line = lines.next().await.unwrap_or_default();
        if !matches!(line.trim().to_lowercase().as_str(), "y" | "yes") {
            return Err(Failure::new("not done"));
        }
    }
    let spec =
        SessionSpec { home: Home::User, ephemeral: true, tools: Some(Vec::new()), ..Default::default() };
    let session = client.create(&spec, &Uuid::new_v4().to_string()).await?;
    let id = session.id.to_string();
    let message =
        SendMessage { text: Some("Answer with the single word: pong".into()), ..Default::default() };
    let accepted = client.send(&id, &message, &Uuid::new_v4().to_string()).await?;
    let mut view = View::for_answer(ctx.out.clone());
    let mut desk = Desk::new(None);
    let ended = to_the_end(client, &session, accepted.message_id, 0, &mut view, &mut desk).await;
    drop(view);
    client.remove(&id, true).await?;
    let (ok, detail) = match ended? {
        Ended::Message(message) => match message.result {
            Some(result) => {
                (result.ok, format!("{} (${:.4}, {:.1} s)", result.text, result.cost_usd, result.duration_s))
            }
            None => (false, "the turn was interrupted".into()),
        },
        Ended::Session(session) => {
            (false, super::run::exit_failure(session.exit.as_ref(), &id).message.unwrap_or_default())
        }
        Ended::Left => (false, "interrupted".into()),
    };
    ctx.out.note(&ctx.out.paint(Style::Dim, "the session was removed again"));
    let remedy = (!ok).then(|| "log in with `claude`, or set ANTHROPIC_API_KEY by --env".to_owned());
    Ok(Finding { name: "live".into(), ok, detail, remedy })
}
