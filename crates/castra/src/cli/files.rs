//! `castra files`: into and out of a session's `work/`.

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use super::logs::{broke_off, save};
use clap::Subcommand;
use serde_json::json;
use std::io::Read as _;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(super) enum FilesCommand {
    /// Upload a file; `-` is stdin
    Put {
        /// Session: id, unique prefix, or name
        id: String,
        file: PathBuf,
        /// Where it goes, beneath work/; its own name when unset
        path: Option<String>,
    },
    /// Download a file
    Get {
        /// Session: id, unique prefix, or name
        id: String,
        path: String,
        /// Write to this file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List a folder
    Ls {
        /// Session: id, unique prefix, or name
        id: String,
        #[arg(default_value = "")]
        path: String,
    },
}

pub(super) async fn files(command: FilesCommand, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    match command {
        FilesCommand::Put { id, file, path } => {
            let mut content = Vec::new();
            let name = if file.as_os_str() == "-" {
                std::io::stdin().read_to_end(&mut content)?;
                None
            } else {
                content = std::fs::read(&file)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
                file.file_name().and_then(|name| name.to_str()).map(String::from)
            };
            let path = path
                .or(name)
                .ok_or_else(|| Failure::usage("say where it goes: castra files put ID FILE PATH"))?;
            let bytes = content.len() as u64;
            client.put_file(&id, &path, content.into()).await?;
            ctx.out.either(&json!({ "path": path, "bytes": bytes }), || {
                format!("{path} ({})", super::sessions::size(bytes))
            })
        }
        FilesCommand::Get { id, path, output } => {
            let mut download = client.get_file(&id, &path).await?;
            let Some(output) = output else {
                while let Some(bytes) = download.next().await.map_err(broke_off)? {
                    ctx.out.bytes(&bytes)?;
                }
                return Ok(());
            };
            let bytes = save(download, &output).await?;
            ctx.out.either(&json!({ "path": output, "bytes": bytes }), || {
                format!("wrote {} ({})", output.display(), super::sessions::size(bytes))
            })
        }
        FilesCommand::Ls { id, path } => {
            let entries = client.list_files(&id, &path).await?;
            if ctx.out.json {
                return ctx.out.json(&json!({ "items": entries, "next": null }));
            }
            for entry in &entries {
                let folder = if entry["kind"] == "dir" { "/" } else { "" };
                let size = entry["size"].as_u64().map(super::sessions::size).unwrap_or_default();
                let name = one_line(entry["name"].as_str().unwrap_or_default(), 500);
                ctx.out.line(&format!("{size:>10}  {name}{folder}"))?;
            }
            Ok(())
        }
    }
}
