//! `castra prune`, `check` and `backup`.

use super::Ctx;
use super::escape::visible;
use super::failure::Failure;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct PruneArgs {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist
    path: PathBuf,
}

pub(super) async fn prune(args: PruneArgs, ctx: Ctx) -> Result<(), Failure> {
    let removed = ctx.client().await?.prune(args.dry_run).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": removed, "dry_run": args.dry_run }));
    }
    for id in &removed {
        ctx.out.line(id.as_str().unwrap_or_default())?;
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    ctx.out.note(&format!("{} sessions {verb}", removed.len()));
    Ok(())
}

pub(super) async fn check(ctx: Ctx) -> Result<(), Failure> {
    let damage = ctx.client().await?.check().await?;
    if ctx.out.json {
        ctx.out.json(&json!({ "items": damage }))?;
    } else if damage.is_empty() {
        ctx.out.line("all is well")?;
    } else {
        for line in &damage {
            ctx.out.line(&visible(line.as_str().unwrap_or_default()))?;
        }
    }
    if damage.is_empty() { Ok(()) } else { Err(Failure::silent(1)) }
}

pub(super) async fn backup(args: BackupArgs, ctx: Ctx) -> Result<(), Failure> {
    // The daemon has a folder of its own.
    let path = std::env::current_dir()?.join(&args.path);
    let text = path.to_str().ok_or_else(|| Failure::usage("the path is not UTF-8"))?;
    ctx.client().await?.backup(text).await?;
    ctx.out.either(&json!({ "path": path }), || format!("wrote {}", path.display()))
}
