//! `castra task launch` and the catalogue: definitions listed, shown, put and removed.

use super::{file, follow, pair};
use crate::cli::Ctx;
use crate::cli::escape::{one_line, visible};
use crate::cli::failure::Failure;
use crate::cli::turn::Interrupts;
use castra_proto::task::{Catalogue, KnownDefinition, Launch, Param};
use clap::Args;
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use uuid::Uuid;

#[derive(Args, Debug)]
pub(in crate::cli) struct LaunchArgs {
    /// Definition, as `castra task definitions` lists them
    definition: String,
    /// Values of its parameters
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
    /// The task's name, usable wherever an id is
    #[arg(long)]
    name: Option<String>,
    /// Its warning was read: do not ask
    #[arg(short, long)]
    yes: bool,
    /// Leave it to the daemon, and print the task's id
    #[arg(short, long)]
    detach: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct DefinitionsArgs {
    /// One of them in full
    name: Option<String>,
    /// Hidden ones too
    #[arg(short, long)]
    all: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct DefineArgs {
    /// The definition: TOML, YAML or JSON
    file: PathBuf,
    /// Its name; the file's, when unset
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct UndefineArgs {
    /// Definitions that were put
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn launch(args: LaunchArgs, ctx: Ctx) -> Result<(), Failure> {
    // Before there is anything to interrupt: a Ctrl-C that comes while it is created counts too.
    let interrupts = Interrupts::new()?;
    let client = ctx.client().await?;
    let known = client.definition(&args.definition).await?;
    if let Some(warning) = known.definition.warning.as_ref().filter(|_| !args.yes) {
        confirm(&ctx, warning)?;
    }
    let values = args.values.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    let launch = Launch { values, confirmed: true, task_name: args.name, client_id: None };
    let task = client.launch(&args.definition, &launch, &Uuid::new_v4().to_string()).await?;
    follow::see_through(client, task, args.detach, interrupts, ctx).await
}

/// Asks whoever sits there; whoever does not, has to say so beforehand.
fn confirm(ctx: &Ctx, warning: &str) -> Result<(), Failure> {
    ctx.out.warn(&visible(warning));
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("the definition has a warning, and nobody is there to confirm it")
            .hint("--yes says that it was read"));
    }
    let mut stderr = std::io::stderr();
    let mut answer = String::new();
    write!(stderr, "launch it? [y/N] ").and_then(|()| stderr.flush())?;
    stdin.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("not launched")),
    }
}

pub(super) async fn definitions(args: DefinitionsArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    if let Some(name) = &args.name {
        let known = client.definition(name).await?;
        return ctx.out.either(&known, || describe(&known));
    }
    let catalogue = client.catalogue(args.all).await?;
    if ctx.out.json {
        return ctx.out.json(&catalogue);
    }
    tell_faults(&catalogue, &ctx);
    if catalogue.items.is_empty() {
        let folder = ctx.settings.home.join("tasks");
        ctx.out.note(&format!(
            "no definitions; `castra task define FILE` makes one, and so does a file in {}",
            folder.display()
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = (catalogue.items.iter())
        .map(|one| {
            let of = &one.definition;
            let params: Vec<&str> = of.task.params.keys().map(String::as_str).collect();
            let about = of.description.as_ref().or(of.title.as_ref()).map_or("", String::as_str);
            vec![
                one.name.clone(),
                one_line(&params.join(" "), 40),
                one_line(about, 60),
                one_line(one.file.as_deref().or(one.by.as_deref()).unwrap_or("-"), 60),
            ]
        })
        .collect();
    ctx.out.table(&["NAME", "PARAMETERS", "WHAT", "FROM"], &rows)
}

/// Reads the files anew, and says what is wrong with them.
pub(super) async fn sync(ctx: Ctx) -> Result<(), Failure> {
    let catalogue = ctx.client().await?.catalogue(true).await?;
    if ctx.out.json {
        ctx.out.json(&catalogue)?;
    } else {
        tell_faults(&catalogue, &ctx);
        ctx.out.line(&format!("{} definitions", catalogue.items.len()))?;
    }
    if catalogue.faults.is_empty() { Ok(()) } else { Err(Failure::silent(1)) }
}

fn tell_faults(catalogue: &Catalogue, ctx: &Ctx) {
    for fault in &catalogue.faults {
        ctx.out.warn(&visible(&format!("{}: {}", fault.file, fault.problem)));
    }
}

pub(super) async fn define(args: DefineArgs, ctx: Ctx) -> Result<(), Failure> {
    let mut definition = file::definition(&args.file, &std::env::current_dir()?)?;
    let Some(name) = args.name.or(definition.name.take()) else {
        return Err(Failure::usage("the definition has no name").hint("--name gives it one"));
    };
    let known = ctx.client().await?.put_definition(&name, &definition).await?;
    ctx.out.either(&known, || known.name.clone())
}

pub(super) async fn undefine(args: UndefineArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    for name in &args.names {
        client.delete_definition(name).await?;
        ctx.out.either(&json!({ "removed": name }), || name.clone())?;
    }
    Ok(())
}

fn describe(known: &KnownDefinition) -> String {
    let of = &known.definition;
    let mut lines = vec![("name", known.name.clone())];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("title", of.title.clone());
    add("description", of.description.clone());
    add("warning", of.warning.clone());
    add("from", known.file.clone().or_else(|| known.by.clone()));
    add("hidden", of.hidden.then(|| "yes".into()));
    add("cancellable", (of.cancellable == Some(false)).then(|| "by admins only".into()));
    add("at once", of.max_concurrency.map(|n| n.to_string()));
    for (name, param) in &of.task.params {
        add("parameter", Some(parameter(name, param)));
    }
    add("instructions", of.task.instructions.clone());
    let lines = lines.iter().map(|(name, value)| format!("{name:<13} {}", one_line(value, 2000)));
    lines.collect::<Vec<_>>().join("\n")
}

/// `what: text, needed`, `n: number, 1 to 5, 2 when unset`.
fn parameter(name: &str, param: &Param) -> String {
    let mut said = vec![param.kind.as_str().to_owned()];
    if !param.options.is_empty() {
        said.push(format!("of {}", param.options.join(" | ")));
    }
    match (param.min, param.max) {
        (Some(min), Some(max)) => said.push(format!("{min} to {max}")),
        (Some(min), None) => said.push(format!("from {min} on")),
        (None, Some(max)) => said.push(format!("up to {max}")),
        (None, None) => {}
    }
    match &param.default {
        Some(Value::String(text)) => said.push(format!("{text:?} when unset")),
        Some(default) => said.push(format!("{default} when unset")),
        None if param.required => said.push("needed".into()),
        None => {}
    }
    let about = param.description.as_ref().or(param.label.as_ref());
    let about = about.map(|about| format!(" ({about})")).unwrap_or_default();
    format!("{name}: {}{about}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_told_in_a_line() {
        for (param, expected) in [
            (json!({"kind": "text", "required": true}), "p: text, needed"),
            (
                json!({"kind": "one_of", "options": ["a", "b"], "default": "a"}),
                "p: one_of, of a | b, \"a\" when unset",
            ),
            (
                json!({"kind": "range", "min": 1, "max": 5, "default": 2, "label": "How many"}),
                "p: range, 1 to 5, 2 when unset (How many)",
            ),
            (json!({"kind": "number", "min": 0.5}), "p: number, from 0.5 on"),
        ] {
            assert_eq!(parameter("p", &serde_json::from_value(param).unwrap()), expected);
        }
    }
}
