//! `castra task get`: a deliverable into a file. Nothing that is there is overwritten unasked.

use crate::cli::Ctx;
use crate::cli::failure::Failure;
use crate::cli::logs::{broke_off, save};
use crate::cli::sessions::size;
use crate::client::api::Download;
use clap::Args;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(in crate::cli) struct GetArgs {
    /// Task: id, unique prefix, or name
    id: String,
    /// The deliverable's path, as `castra task show` has it
    path: String,
    /// Write to this file, `-` is stdout; its own name in this folder when unset
    #[arg(short, long, value_name = "FILE|-")]
    output: Option<PathBuf>,
    /// An older version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Overwrite what is there
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn get(args: GetArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let download = client.get_deliverable(&args.id, &args.path, args.version).await?;
    save_as(download, &args.path, args.output, args.force, &ctx).await
}

/// Into the file that was named, or one of its own name here.
pub(super) async fn save_as(
    mut download: Download,
    path: &str,
    output: Option<PathBuf>,
    force: bool,
    ctx: &Ctx,
) -> Result<(), Failure> {
    if output.as_ref().is_some_and(|output| output.as_os_str() == "-") {
        while let Some(bytes) = download.next().await.map_err(broke_off)? {
            ctx.out.bytes(&bytes)?;
        }
        return Ok(());
    }
    let output = match output {
        Some(output) => output,
        None => own_name(path)?,
    };
    let made = if force { false } else { reserve(&output)? };
    let saved = save(download, &output).await;
    if saved.is_err() && made {
        let _ = std::fs::remove_file(&output);
    }
    let bytes = saved?;
    ctx.out.either(&json!({ "path": output, "bytes": bytes }), || {
        format!("wrote {} ({})", output.display(), size(bytes))
    })
}

/// The name that its agent chose, here.
fn own_name(path: &str) -> Result<PathBuf, Failure> {
    match path.rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => Ok(name.into()),
        _ => Err(Failure::usage(format!("{path:?} has no name of its own; say where it goes with -o FILE"))),
    }
}

/// Takes the name, so that nobody else's file comes there while this one is fetched.
fn reserve(output: &Path) -> Result<bool, Failure> {
    match OpenOptions::new().write(true).create_new(true).open(output) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("{} is there already", output.display()))
                .hint("--force overwrites it; -o FILE writes another one"))
        }
        Err(error) => Err(Failure::new(format!("cannot write {}: {error}", output.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deliverable_gets_the_last_part_of_its_path() {
        for (path, expected) in
            [("report.md", Some("report.md")), ("a/b c.md", Some("b c.md")), ("a/..", None), ("a/", None)]
        {
            assert_eq!(own_name(path).ok(), expected.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.md");
        assert_eq!(reserve(&path), Ok(true));
        let failure = reserve(&path).unwrap_err();
        assert!(failure.message.is_some_and(|said| said.ends_with("is there already")));
    }
}
