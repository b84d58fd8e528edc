//! Verbs on whole sessions: list, show, stop, resume, fork, remove; and claude's own conversations.

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use super::out::Style;
use castra_proto::api::{Fork, Resume, TranscriptInfo};
use castra_proto::session::Trouble;
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, Session, SessionSpec, Timestamp};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct OneArg {
    /// Session: id, unique prefix, or name
    pub(super) id: String,
}

#[derive(Args, Debug)]
pub(super) struct ResumeArgs {
    /// Session: id, unique prefix, or name; or the id of one of claude's own conversations
    id: String,
    /// From now on as a stream, or on a terminal
    #[arg(long, value_name = "stream|terminal", value_parser = super::spec::mode)]
    mode: Option<Mode>,
}

#[derive(Args, Debug)]
pub(super) struct ManyArgs {
    /// Sessions: ids, unique prefixes, or names
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct PsArgs {
    /// Ended ones too
    #[arg(short, long)]
    all: bool,
    /// Only with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct ForkArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// A name for the new one
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct RmArgs {
    /// Sessions: ids, unique prefixes, or names
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Stop it first if it runs
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(super) struct TranscriptsArgs {
    /// Conversations of this folder; the current one when unset
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    cwd: Option<PathBuf>,
    /// Of all folders
    #[arg(long)]
    all: bool,
    #[arg(long, default_value_t = 10, value_name = "N")]
    limit: usize,
}

pub(super) async fn ps(args: PsArgs, ctx: Ctx) -> Result<(), Failure> {
    let sessions = ctx.client().await?.sessions(args.all, args.label.as_deref()).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": sessions, "next": null }));
    }
    if args.quiet {
        return sessions.iter().try_for_each(|session| ctx.out.line(&session.id.to_string()));
    }
    if sessions.is_empty() {
        let more = if args.all { "" } else { "; `castra ps -a` shows ended ones too" };
        ctx.out.note(&format!("no sessions{more}"));
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<String>> = sessions.iter().map(|session| row(session, now)).collect();
    ctx.out.table(&["ID", "NAME", "STATE", "SINCE", "TURNS", "COST", "ACTIVITY"], &rows)
}

pub(super) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

fn row(session: &Session, now: Timestamp) -> Vec<String> {
    let mut state = session.state.to_string();
    if session.flags.stale.is_some() {
        state.push_str(" stale");
    }
    if session.flags.degraded.is_some() {
        state.push_str(" degraded");
    }
    if session.flags.trouble.is_some() {
        state.push_str(" trouble");
    }
    if session.queued > 0 {
        state.push_str(&format!(" +{}", session.queued));
    }
    vec![
        session.id.to_string(),
        one_line(session.name.as_deref().unwrap_or("-"), 24),
        state,
        ago(now.seconds_since(session.since)),
        session.turns.to_string(),
        format!("${:.2}", session.cost_usd),
        session.last_activity.as_ref().map_or_else(String::new, |activity| one_line(&activity.text, 60)),
    ]
}

/// A length of time as people say it.
pub(super) fn ago(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86_400 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

pub(super) async fn show(args: OneArg, ctx: Ctx) -> Result<(), Failure> {
    let session = ctx.client().await?.show(&args.id).await?;
    ctx.out.either(&session, || describe(&session, now()))
}

fn describe(session: &Session, now: Timestamp) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("id", session.id.to_string()),
        ("name", session.name.clone().unwrap_or_else(|| "-".into())),
        ("state", format!("{} for {}", session.state, ago(now.seconds_since(session.since)))),
        ("turn", format!("{} of {} done", session.turn.n, session.turns)),
        ("cost", format!("${:.4}", session.cost_usd)),
        ("permissions", session.permission_mode.clone()),
        ("host", session.host.clone()),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("activity", session.last_activity.as_ref().map(|activity| activity.text.clone()));
    add("queued", (session.queued > 0).then(|| session.queued.to_string()));
    add("folder", session.cwd.clone());
    add("model", session.model.clone());
    add("effort", session.effort.clone());
    add("claude", session.claude_version.clone());
    add("conversation", session.claude_session_id.map(|id| id.to_string()));
    add("pid", session.pid.map(|pid| pid.to_string()));
    add("stale", session.flags.stale.map(|since| format!("the host has not answered since {since}")));
    add("degraded", session.flags.degraded.map(|since| format!("the disk is full since {since}")));
    let trouble = |trouble: &Trouble| format!("{} (since {})", trouble.reason, trouble.since);
    add("trouble", session.flags.trouble.as_ref().map(trouble));
    let kind = serde_json::to_value(session.sandbox.kind).ok();
    let reason = session.sandbox.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    add("sandbox", kind.and_then(|kind| kind.as_str().map(|kind| format!("{kind}{reason}"))));
    for request in &session.pending {
        let what = super::progress::argument(&request.input);
        add("waits for", Some(format!("{} {} ({})", request.tool, what, request.request_id)));
    }
    if let Some(exit) = &session.exit {
        let cause = serde_json::to_value(exit.cause).ok().and_then(|cause| cause.as_str().map(String::from));
        let detail = exit.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        add("ended", cause.map(|cause| format!("{cause}{detail}")));
    }
    let lines: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<13} {}", one_line(value, 2000))).collect();
    lines.join("\n")
}

pub(super) async fn act(ids: &[String], verb: &str, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    for id in ids {
        let session = client.act(id, verb).await?;
        ctx.out.either(&session, || format!("{} {}", session.id, session.state))?;
    }
    Ok(())
}

/// A session of castra's, else one of claude's own conversations, which is adopted.
pub(super) async fn resume(args: ResumeArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let session = match client.resume(&args.id, &Resume { mode: args.mode }).await {
        Ok(session) => session,
        Err(error)
            if error.problem().is_some_and(|problem| {
                matches!(problem.code, ErrorCode::SessionNotFound | ErrorCode::NotFound)
            }) =>
        {
            let id: uuid::Uuid = match args.id.parse() {
                Ok(id) => id,
                Err(_) => return Err(error.into()),
            };
            let spec = SessionSpec { mode: args.mode.unwrap_or_default(), ..SessionSpec::default() };
            let session = client.adopt(&id.to_string(), &spec).await?;
            ctx.out.note(&ctx.out.paint(Style::Dim, "adopted one of claude's own conversations"));
            session
        }
        Err(error) => return Err(error.into()),
    };
    ctx.out.either(&session, || format!("{} {}", session.id, session.state))
}

pub(super) async fn fork(args: ForkArgs, ctx: Ctx) -> Result<(), Failure> {
    let session = ctx.client().await?.fork(&args.id, &Fork { name: args.name }).await?;
    if session.spec.workdir.is_some() {
        ctx.out.warn("both sessions work in the same folder");
    }
    ctx.out.either(&session, || session.id.to_string())
}

pub(super) async fn rm(args: RmArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    for id in &args.ids {
        client.remove(id, args.force).await.map_err(|error| {
            let runs = error.problem().is_some_and(|problem| problem.code == ErrorCode::Conflict);
            let failure = Failure::from(error);
            if runs && failure.hint.is_none() {
                failure.hint("`castra rm -f` stops it first")
            } else {
                failure
            }
        })?;
        ctx.out.either(&json!({ "removed": id }), || id.clone())?;
    }
    Ok(())
}

pub(super) async fn info(args: OneArg, ctx: Ctx) -> Result<(), Failure> {
    let info = ctx.client().await?.info(&args.id).await?;
    if ctx.out.json {
        return ctx.out.json(&info);
    }
    let pretty = serde_json::to_string_pretty(&info).map_err(std::io::Error::from)?;
    ctx.out.line(&pretty)
}

pub(super) async fn transcripts(args: TranscriptsArgs, ctx: Ctx) -> Result<(), Failure> {
    let here = std::env::current_dir()?;
    let cwd = (!args.all).then(|| args.cwd.map_or_else(|| here.clone(), |folder| here.join(folder)));
    let cwd = cwd.map(|folder| std::fs::canonicalize(&folder).unwrap_or(folder));
    let cwd = cwd.as_ref().map(|folder| folder.to_string_lossy().into_owned());
    let found = ctx.client().await?.transcripts(cwd.as_deref(), args.limit).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": found, "next": null }));
    }
    if found.is_empty() {
        ctx.out.note("no conversations; --all looks in all folders");
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .filter_map(|item| serde_json::from_value::<TranscriptInfo>(item).ok())
        .map(|info| {
            let said = info.title.or(info.first_input).unwrap_or_default();
            let session = info.session_id.map_or_else(|| "-".into(), |id| id.to_string());
            vec![
                info.id,
                ago(now.seconds_since(info.modified)),
                size(info.size),
                session,
                one_line(&said, 60),
            ]
        })
        .collect();
    ctx.out.table(&["CONVERSATION", "AGE", "SIZE", "SESSION", "ABOUT"], &rows)
}

/// Bytes as people say them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        let times = [(-1.0, "0s"), (59.9, "59s"), (60.0, "1m"), (7200.0, "2h"), (200_000.0, "2d")];
        for (seconds, expected) in times {
            assert_eq!(ago(seconds), expected);
        }
        let sizes =
            [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3_100_000_000, "3.1 GB")];
        for (bytes, expected) in sizes {
            assert_eq!(size(bytes), expected);
        }
    }
}
