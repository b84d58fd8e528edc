//! `castra claude`: which claude executables there are, and which one is used.

use super::Ctx;
use super::escape::{one_line, visible};
use super::failure::Failure;
use super::out::Style;
use crate::client::Client;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub(super) enum ClaudeCommand {
    /// The path of the one that is used
    Find,
    /// The version of the one that is used
    Version,
    /// All that were found, in the order in which they are looked for
    #[command(alias = "ls")]
    List,
    /// Install one into castra's cache
    Install {
        /// e.g. 2.1.197; the newest when unset
        version: Option<String>,
    },
    /// Pin a version in castra.toml
    Use { version: String },
    /// Remove one from castra's cache
    Rm { version: String },
}

pub(super) async fn claude(command: ClaudeCommand, ctx: Ctx) -> Result<(), Failure> {
    if let ClaudeCommand::Use { version } = &command {
        return pin(version, &ctx);
    }
    let client = ctx.client().await?;
    match command {
        ClaudeCommand::Find => field(&client, "path", &ctx).await,
        ClaudeCommand::Version => field(&client, "version", &ctx).await,
        ClaudeCommand::List => {
            let found = client.claude_versions().await?;
            if ctx.out.json {
                return ctx.out.json(&json!({ "items": found, "next": null }));
            }
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|one| {
                    let text = |key: &str| one_line(one[key].as_str().unwrap_or("?"), 300);
                    let used = if one["used"] == true { "*" } else { "" };
                    vec![used.into(), text("version"), text("source"), text("path")]
                })
                .collect();
            ctx.out.table(&["", "VERSION", "SOURCE", "PATH"], &rows)
        }
        ClaudeCommand::Install { version } => {
            let installed = install(&client, version.as_deref(), &ctx).await?;
            ctx.out.either(&installed, || {
                let text = |key: &str| one_line(installed[key].as_str().unwrap_or("?"), 300);
                format!("claude {} at {}", text("version"), text("path"))
            })
        }
        ClaudeCommand::Rm { version } => {
            client.claude_remove(&version).await?;
            ctx.out.either(&json!({ "removed": version }), || version.clone())
        }
        ClaudeCommand::Use { .. } => Ok(()),
    }
}

pub(super) async fn used(client: &Client) -> Result<Option<Value>, Failure> {
    Ok(client.claude_versions().await?.into_iter().find(|one| one["used"] == true))
}

/// With its progress on stderr.
pub(super) async fn install(client: &Client, version: Option<&str>, ctx: &Ctx) -> Result<Value, Failure> {
    let progress = |line: &str| ctx.out.note(&ctx.out.paint(Style::Dim, &format!("  {}", visible(line))));
    Ok(client.claude_install(version, progress).await?)
}

async fn field(client: &Client, key: &str, ctx: &Ctx) -> Result<(), Failure> {
    let Some(one) = used(client).await? else {
        return Err(Failure::new("no claude executable was found")
            .hint("`castra claude install` fetches one; CASTRA_CLAUDE_PATH names your own"));
    };
    ctx.out.either(&one, || one_line(one[key].as_str().unwrap_or("?"), 1000))
}

/// Sets `[claude] version` and leaves the rest of the file, comments too, as it is.
fn pin(version: &str, ctx: &Ctx) -> Result<(), Failure> {
    let known = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    if version.is_empty() || !version.chars().all(known) {
        return Err(Failure::usage(format!("`{version}` is not a version")));
    }
    let path = ctx.settings.file_to_write().ok_or_else(|| {
        Failure::new("there is no place for castra.toml: neither XDG_CONFIG_HOME nor HOME is set")
    })?;
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, pinned(&old, version))?;
    ctx.out.hint(&format!(
        "a running daemon reads it at its next start: castra down. `castra claude install {version}` fetches it"
    ));
    ctx.out.either(&json!({ "version": version, "file": path }), || {
        format!("{} now says claude {version}", path.display())
    })
}

fn pinned(old: &str, version: &str) -> String {
    let line = format!("version = \"{version}\"");
    let mut lines: Vec<String> = old.lines().map(String::from).collect();
    let Some(section) = lines.iter().position(|line| line.trim() == "[claude]") else {
        let gap = if lines.is_empty() { "" } else { "\n" };
        return format!("{old}{gap}[claude]\n{line}\n");
    };
    let end = lines[section + 1..]
        .iter()
        .position(|line| line.trim_start().starts_with('['))
        .map_or(lines.len(), |n| section + 1 + n);
    let is_version = |line: &String| {
        line.trim_start().strip_prefix("version").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    match lines[section + 1..end].iter().position(is_version) {
        Some(n) => lines[section + 1 + n] = line,
        None => lines.insert(section + 1, line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::pinned;

    #[test]
    fn a_version_is_pinned_and_nothing_else_changes() {
        let table: &[(&str, &str)] = &[
            ("", "[claude]\nversion = \"2\"\n"),
            ("starts = 1\n", "starts = 1\n\n[claude]\nversion = \"2\"\n"),
            ("[claude]\npath = \"/x\" # mine\n", "[claude]\nversion = \"2\"\npath = \"/x\" # mine\n"),
            (
                "[claude]\n# old\nversion = \"1\"\n[log]\nlevel = \"info\"\n",
                "[claude]\n# old\nversion = \"2\"\n[log]\nlevel = \"info\"\n",
            ),
            ("[claude]\n\n[log]\nversion = 1\n", "[claude]\nversion = \"2\"\n\n[log]\nversion = 1\n"),
        ];
        for (old, expected) in table {
            assert_eq!(pinned(old, "2"), *expected);
        }
    }
}
