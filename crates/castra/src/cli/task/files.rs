//! `castra task upload` and `castra task files`: files into a task, and out of its workspace.

use super::get::save_as;
use crate::cli::Ctx;
use crate::cli::escape::one_line;
use crate::cli::failure::Failure;
use crate::cli::sessions::size;
use clap::Args;
use serde_json::json;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;

#[derive(Args, Debug)]
pub(in crate::cli) struct UploadArgs {
    /// Task: id, unique prefix, or name
    id: String,
    /// Files; `-` is stdin, and needs --name
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<PathBuf>,
    /// What it is called there; its own name when unset
    #[arg(long)]
    name: Option<String>,
    /// Replace another file of that name
    #[arg(long)]
    replace: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct FilesArgs {
    /// Task: id, unique prefix, or name
    id: String,
    /// A file of the folder that its agent works in; a folder, or nothing, is listed
    #[arg(default_value = "")]
    path: String,
    /// Write the file to this one, `-` is stdout; its own name in this folder when unset
    #[arg(short, long, value_name = "FILE|-")]
    output: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn upload(args: UploadArgs, ctx: Ctx) -> Result<(), Failure> {
    if args.name.is_some() && args.files.len() > 1 {
        return Err(Failure::usage("--name is one name; hand the files in one by one"));
    }
    let client = ctx.client().await?;
    for file in &args.files {
        let name = args.name.clone().or_else(|| own_name(file)).ok_or_else(|| {
            Failure::usage(format!("{} has no name; give it one with --name", file.display()))
        })?;
        let mut content = Vec::new();
        if file.as_os_str() == "-" {
            std::io::stdin().read_to_end(&mut content)?;
        } else {
            content = std::fs::read(file)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
        }
        let key = Uuid::new_v4().to_string();
        let uploaded = client.upload(&args.id, &name, content.into(), args.replace, &key).await?;
        ctx.out
            .either(&uploaded, || format!("{} ({})", one_line(&uploaded.path, 500), size(uploaded.size)))?;
    }
    Ok(())
}

fn own_name(file: &Path) -> Option<String> {
    if file.as_os_str() == "-" { None } else { Some(file.file_name()?.to_str()?.to_owned()) }
}

pub(super) async fn files(args: FilesArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let folder = args.path.is_empty() || args.path.ends_with('/');
    if !folder {
        let download = client.get_task_file(&args.id, &args.path).await?;
        // A folder comes as its entries, a file as an attachment.
        if download.is_file() {
            return save_as(download, &args.path, args.output, args.force, &ctx).await;
        }
    }
    if args.output.is_some() {
        return Err(Failure::usage(format!("{:?} is a folder, which is listed", args.path)));
    }
    let page = client.list_task_files(&args.id, &args.path).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": page.items, "next": null }));
    }
    for entry in &page.items {
        let folder = if entry["kind"] == "dir" { "/" } else { "" };
        let size = entry["size"].as_u64().map(size).unwrap_or_default();
        let name = one_line(entry["name"].as_str().unwrap_or_default(), 500);
        ctx.out.line(&format!("{size:>10}  {name}{folder}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_handed_in_under_its_own_name() {
        for (file, name) in [("a/b c.txt", Some("b c.txt")), ("x", Some("x")), ("-", None), ("..", None)] {
            assert_eq!(own_name(Path::new(file)).as_deref(), name, "{file}");
        }
    }
}
