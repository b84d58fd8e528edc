//! `castra task block`, `blocks` and `unblock`, and what a filter on the command line is.

use crate::cli::Ctx;
use crate::cli::escape::one_line;
use crate::cli::failure::Failure;
use crate::cli::sessions::now;
use crate::cli::spec::duration;
use castra_proto::Timestamp;
use castra_proto::task::CreateBlock;
use castra_supervisor::task::document;
use clap::Args;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(in crate::cli) struct BlockArgs {
    /// Which tasks, as JSON: '{"labels.team": "blue"}'; every one when unset
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    filter: Option<Value>,
    /// What those are told who want to launch one
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Until this long is over; unset: until it is lifted
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<u64>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct UnblockArgs {
    /// Launch blocks, as `castra task blocks` lists them
    #[arg(required = true, value_name = "BLOCK-ID")]
    ids: Vec<String>,
}

/// Understood here already: what is wrong is told with its place before anything is asked.
pub(super) fn filter(text: &str) -> Result<Value, String> {
    document::read(text).map_err(|error| {
        let problem = error.problem();
        let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}{hint}", problem.detail.trim_start_matches("filter: "))
    })?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) async fn block(args: BlockArgs, ctx: Ctx) -> Result<(), Failure> {
    let until = args.time.map(|s| Timestamp(now().0.saturating_add_unsigned(s.saturating_mul(1_000_000))));
    let request = CreateBlock { filter: args.filter, reason: args.reason, until };
    let block = ctx.client().await?.create_block(&request).await?;
    ctx.out.either(&block, || block.id.to_string())?;
    if !ctx.out.json {
        ctx.out.hint(&format!("`castra task unblock {}` lifts it", block.id));
    }
    Ok(())
}

pub(super) async fn blocks(ctx: Ctx) -> Result<(), Failure> {
    let blocks = ctx.client().await?.blocks().await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": blocks, "next": null }));
    }
    if blocks.is_empty() {
        ctx.out.note("no launch blocks: every task may begin");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = blocks
        .iter()
        .map(|block| {
            vec![
                block.id.to_string(),
                block.until.map_or_else(|| "-".into(), |until| until.to_string()),
                block.by.clone(),
                block
                    .filter
                    .as_ref()
                    .map_or_else(|| "every task".into(), |filter| one_line(&filter.to_string(), 60)),
                one_line(&block.reason, 60),
            ]
        })
        .collect();
    ctx.out.table(&["ID", "UNTIL", "BY", "FILTER", "REASON"], &rows)
}

pub(super) async fn unblock(args: UnblockArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    for id in &args.ids {
        client.delete_block(id).await?;
        ctx.out.either(&json!({ "lifted": id }), || id.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_understood_before_it_is_sent() {
        assert_eq!(filter(r#"{"labels.team": "blue"}"#), Ok(json!({"labels.team": "blue"})));
        for (text, part) in [("team=blue", "not JSON"), (r#"{"team": 1}"#, "a task has no `team`")] {
            assert!(filter(text).is_err_and(|said| said.contains(part)), "{text}");
        }
    }
}
