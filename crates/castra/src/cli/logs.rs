//! `castra logs` and `castra export`: events, exact bytes, and whole sessions in a file.

use super::Ctx;
use super::failure::Failure;
use super::progress::describe;
use crate::client::Item;
use crate::client::api::Download;
use castra_proto::Event;
use clap::{Args, ValueEnum};
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(super) struct LogsArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only events after this number
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    after: u64,
    /// The exact bytes that went in and out; secrets are masked
    #[arg(long, conflicts_with = "after")]
    raw: bool,
    /// With --raw: only what was written to claude
    #[arg(long = "in", requires = "raw", conflicts_with = "out")]
    in_: bool,
    /// With --raw: only what claude wrote
    #[arg(long, requires = "raw")]
    out: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Session: id, unique prefix, or name
    id: String,
    #[arg(long, value_enum, default_value = "stream-json")]
    format: ExportFormat,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on until the run's exit
    #[arg(short, long)]
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Every line that claude wrote
    StreamJson,
    /// claude's own JSONL
    Transcript,
    /// castra's events
    Json,
    /// For people
    Markdown,
}

pub(super) async fn logs(args: LogsArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    if args.raw {
        let direction = match (args.in_, args.out) {
            (true, _) => "in",
            (_, true) => "out",
            _ => "both",
        };
        return print(client.raw_log(&args.id, direction, args.follow).await?, &ctx).await;
    }
    if args.follow {
        let mut follow = client.follow(&args.id, args.after);
        while let Some(item) = follow.next().await? {
            match item {
                Item::Event(event) => line(&event, &ctx)?,
                Item::Partial(_) => {}
                Item::Reconnected => ctx.out.note("(the daemon was away and is back; nothing was missed)"),
            }
        }
        return Ok(());
    }
    let mut after = args.after;
    loop {
        let page = client.events(&args.id, after, 1000).await?;
        page.items.iter().try_for_each(|event| line(event, &ctx))?;
        match (page.items.last(), page.next) {
            (Some(last), Some(_)) => after = last.seq,
            _ => return Ok(()),
        }
    }
}

fn line(event: &Event, ctx: &Ctx) -> Result<(), Failure> {
    if ctx.out.json {
        return ctx.out.json(event);
    }
    let at = event.at.to_string();
    let clock = at.get(11..19).unwrap_or_default();
    let text = describe(event, ctx.out.width().saturating_sub(38));
    let kind = super::escape::one_line(event.kind.as_str(), 20);
    ctx.out.line(format!("{:>6}  {clock}  {kind:<20}  {text}", event.seq).trim_end())
}

async fn print(mut download: Download, ctx: &Ctx) -> Result<(), Failure> {
    while let Some(bytes) = download.next().await.map_err(broke_off)? {
        ctx.out.bytes(&bytes)?;
    }
    Ok(())
}

pub(super) fn broke_off(error: hyper::Error) -> Failure {
    Failure::new(format!("the daemon broke off: {error}")).hint("what was written so far is not complete")
}

/// Into a file beside the target, which gets its name when it is complete.
pub(super) async fn save(mut download: Download, path: &Path) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = std::fs::File::create(&temporary).map_err(failed)?;
    let mut written = 0;
    let outcome = loop {
        match download.next().await {
            Ok(Some(bytes)) => match file.write_all(&bytes) {
                Ok(()) => written += bytes.len() as u64,
                Err(error) => break Err(failed(error)),
            },
            Ok(None) => {
                break file.sync_all().and_then(|()| std::fs::rename(&temporary, path)).map_err(failed);
            }
            Err(error) => break Err(broke_off(error)),
        }
    };
    if outcome.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    outcome.map(|()| written)
}

pub(super) async fn export(args: ExportArgs, ctx: Ctx) -> Result<(), Failure> {
    let format = match args.format {
        ExportFormat::StreamJson => "stream-json",
        ExportFormat::Transcript => "transcript",
        ExportFormat::Json => "json",
        ExportFormat::Markdown => "markdown",
    };
    let download = ctx.client().await?.export(&args.id, format, args.follow).await?;
    match &args.output {
        None => print(download, &ctx).await,
        Some(path) => {
            let bytes = save(download, path).await?;
            let told = serde_json::json!({ "path": path, "bytes": bytes });
            ctx.out.either(&told, || format!("wrote {} ({})", path.display(), super::sessions::size(bytes)))
        }
    }
}
