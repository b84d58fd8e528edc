//! `castra task`: its verbs, and the short ones among them. What runs longer is in the modules below.

mod blocks;
pub(super) mod file;
mod files;
mod follow;
mod get;
mod launch;
mod nearest;
pub(super) mod pages;
mod tree;

use super::Ctx;
use super::escape::one_line;
use super::failure::{Failure, TIMED_OUT};
use super::sessions::{ago, now, size};
use super::spec::duration;
use castra_proto::task::{CancelTask, CancelTasks, Level};
use castra_proto::{Task, TaskState, Timestamp};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use uuid::Uuid;

pub(crate) use file::definition_file;
pub(super) use file::task_of_file;

#[derive(Subcommand, Debug)]
pub(super) enum TaskCommand {
    /// Create a task and follow it to its end: progress on stderr, its result on stdout
    Run(RunArgs),
    /// Create a task, and print its id
    New(FileArgs),
    /// List tasks
    List(ListArgs),
    /// One task in full
    Show(OneArg),
    /// A task and all that is below it
    Tree(OneArg),
    /// End tasks: their agents are interrupted, may come to rest, and are stopped
    Cancel(CancelArgs),
    /// Go on with a task that is over: another attempt in the same session
    Resume(OneArg),
    /// Begin a task that is over anew, in a fresh session
    Retry(OneArg),
    /// Remove tasks that are over, with their deliverables and sessions
    Rm(ManyArgs),
    /// Read a task's log
    Logs(LogsArgs),
    /// Wait until a task is over, or has handed something over
    Wait(WaitArgs),
    /// Download a deliverable
    Get(get::GetArgs),
    /// Launch a definition, and follow it to its end
    Launch(launch::LaunchArgs),
    /// The catalogue of tasks that are launched by name
    Definitions(launch::DefinitionsArgs),
    /// Put a definition into the catalogue
    Define(launch::DefineArgs),
    /// Remove definitions from the catalogue
    Undefine(launch::UndefineArgs),
    /// Read the files of definitions anew, and say what is wrong with them
    Sync,
    /// Hold tasks back: they are not begun until this is lifted
    Block(blocks::BlockArgs),
    /// List launch blocks
    Blocks,
    /// Lift launch blocks
    Unblock(blocks::UnblockArgs),
    /// Hand files in: they lie in its `uploads/`, and its agent is told
    Upload(files::UploadArgs),
    /// Download a file of its workspace, or list a folder
    Files(files::FilesArgs),
    /// Print the JSON Schema of a task file
    Schema,
    /// Print what agents are told of reporting
    Protocol,
}

#[derive(Args, Debug)]
pub(super) struct OneArg {
    /// Task: id, unique prefix, name, or PARENT/NAME
    id: String,
}

#[derive(Args, Debug)]
pub(super) struct ManyArgs {
    /// Tasks: ids, unique prefixes, or names
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// A task file, and what is laid over it.
#[derive(Args, Debug)]
pub(super) struct FileArgs {
    /// The task: TOML, YAML or JSON; `-` reads YAML or JSON from stdin
    file: PathBuf,
    /// A name, usable wherever an id is
    #[arg(long)]
    name: Option<String>,
    /// A parameter's value; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
    /// The folder that the agent works in; a fresh one when unset
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// The real CLI against a scripted model: no account, no cost
    #[arg(long)]
    demo: bool,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Leave it to the daemon, and print the task's id
    #[arg(short, long)]
    detach: bool,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Those that are over too
    #[arg(short, long)]
    all: bool,
    /// Only in one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<TaskState>,
    /// Only with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Option<String>,
    /// Only those that this means, as JSON: '{"metadata.cost": {"gt": 5}}'
    #[arg(long, value_name = "FILTER", value_parser = blocks::filter)]
    filter: Option<Value>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct CancelArgs {
    /// Tasks: ids, unique prefixes, or names
    #[arg(required_unless_present = "filter", value_name = "ID")]
    ids: Vec<String>,
    /// All that are not over and that this means, as JSON: '{"labels.team": "blue"}'
    #[arg(long, value_name = "FILTER", conflicts_with = "ids", value_parser = blocks::filter)]
    filter: Option<Value>,
    /// With --filter: return when all of them are over, or after this long
    #[arg(long, value_name = "TIME", requires = "filter", value_parser = duration)]
    wait: Option<u64>,
    /// For whoever looks later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What the agent has to come to rest by itself; 5s when unset
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct LogsArgs {
    /// Task: id, unique prefix, or name
    id: String,
    /// Go on with what comes, until the task is over
    #[arg(short, long)]
    follow: bool,
    /// The least level: debug, info, event, warning, error
    #[arg(long, default_value = "info", value_parser = level)]
    level: Level,
}

#[derive(Args, Debug)]
pub(super) struct WaitArgs {
    /// Task: id, unique prefix, or name
    id: String,
    /// Until it has handed this over
    #[arg(long, value_name = "PATH")]
    deliverable: Option<String>,
    /// At most this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<u64>,
}

pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

fn label(text: &str) -> Result<String, &'static str> {
    pair(text).map(|_| text.into())
}

fn state(text: &str) -> Result<TaskState, String> {
    TaskState::parse(text)
        .ok_or_else(|| format!("one of {}", TaskState::ALL.map(TaskState::as_str).join(", ")))
}

fn level(text: &str) -> Result<Level, &'static str> {
    Level::parse(text).ok_or("debug, info, event, warning or error")
}

/// What needs neither settings nor a daemon.
pub(super) fn page(command: &TaskCommand) -> Option<String> {
    match command {
        TaskCommand::Schema => Some(pages::schema_text()),
        TaskCommand::Protocol => Some(pages::protocol()),
        _ => None,
    }
}

pub(super) async fn task(command: TaskCommand, ctx: Ctx) -> Result<(), Failure> {
    match command {
        TaskCommand::Run(args) => follow::run(args, ctx).await,
        TaskCommand::New(args) => {
            let spec = file::build(args, &std::env::current_dir()?)?;
            let task = ctx.client().await?.create_task(&spec, &Uuid::new_v4().to_string()).await?;
            ctx.out.either(&task, || task.id.to_string())
        }
        TaskCommand::List(args) => list(args, ctx).await,
        TaskCommand::Show(args) => {
            let task = ctx.client().await?.task(&args.id).await?;
            ctx.out.either(&task, || describe(&task, now()))
        }
        TaskCommand::Tree(args) => tree::tree(&args.id, ctx).await,
        TaskCommand::Cancel(args) => cancel(args, ctx).await,
        TaskCommand::Resume(args) => act(&args.id, "resume", ctx).await,
        TaskCommand::Retry(args) => act(&args.id, "retry", ctx).await,
        TaskCommand::Rm(args) => {
            let client = ctx.client().await?;
            for id in &args.ids {
                client.remove_task(id).await?;
                ctx.out.either(&json!({ "removed": id }), || id.clone())?;
            }
            Ok(())
        }
        TaskCommand::Logs(args) => follow::logs(args, ctx).await,
        TaskCommand::Wait(args) => follow::wait(args, ctx).await,
        TaskCommand::Get(args) => get::get(args, ctx).await,
        TaskCommand::Launch(args) => launch::launch(args, ctx).await,
        TaskCommand::Definitions(args) => launch::definitions(args, ctx).await,
        TaskCommand::Define(args) => launch::define(args, ctx).await,
        TaskCommand::Undefine(args) => launch::undefine(args, ctx).await,
        TaskCommand::Sync => launch::sync(ctx).await,
        TaskCommand::Block(args) => blocks::block(args, ctx).await,
        TaskCommand::Blocks => blocks::blocks(ctx).await,
        TaskCommand::Unblock(args) => blocks::unblock(args, ctx).await,
        TaskCommand::Upload(args) => files::upload(args, ctx).await,
        TaskCommand::Files(args) => files::files(args, ctx).await,
        TaskCommand::Schema | TaskCommand::Protocol => Ok(()),
    }
}

async fn act(id: &str, verb: &str, ctx: Ctx) -> Result<(), Failure> {
    let task = ctx.client().await?.act_on_task(id, verb).await?;
    ctx.out.either(&task, || format!("{} {}", task.id, task.state))
}

async fn cancel(args: CancelArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    if let Some(filter) = args.filter {
        let request = CancelTasks { filter, reason: args.reason, grace_s: args.grace, wait_s: args.wait };
        let done = client.cancel_tasks(&request).await?;
        if done.asked.is_empty() && !ctx.out.json {
            ctx.out.note("no task is meant that is not over");
        }
        if !done.refused.is_empty() {
            ctx.out.warn(&format!("{} of them are not to be cancelled", done.refused.len()));
        }
        let ids = || done.asked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if ctx.out.json || !done.asked.is_empty() {
            ctx.out.either(&done, ids)?;
        }
        return match done.open.len() {
            open if open > 0 && args.wait.is_some() => {
                Err(Failure::new(format!("{open} of them are not over yet")).exit(TIMED_OUT))
            }
            _ => Ok(()),
        };
    }
    let request = CancelTask { reason: args.reason, grace_s: args.grace };
    for id in &args.ids {
        let task = client.cancel_task(id, &request).await?;
        ctx.out.either(&task, || format!("{} {}", task.id, task.state))?;
        if !ctx.out.json && !task.state.is_final() {
            ctx.out.hint(&format!("`castra task wait {}` waits until it is over", task.id));
        }
    }
    Ok(())
}

async fn list(args: ListArgs, ctx: Ctx) -> Result<(), Failure> {
    let tasks =
        ctx.client().await?.tasks(args.all, &args.state, args.label.as_deref(), args.filter.as_ref()).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": tasks, "next": null }));
    }
    if args.quiet {
        return tasks.iter().try_for_each(|task| ctx.out.line(&task.id.to_string()));
    }
    if tasks.is_empty() {
        let more = if args.all { "" } else { "; `castra task list -a` shows those that are over too" };
        ctx.out.note(&format!("no tasks{more}"));
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<String>> = tasks.iter().map(|task| row(task, now)).collect();
    ctx.out.table(&["ID", "NAME", "STATE", "SINCE", "ATTEMPT", "PROGRESS", "WHAT"], &rows)
}

fn row(task: &Task, now: Timestamp) -> Vec<String> {
    let percent = task.progress.percent.map_or_else(|| "-".into(), |percent| format!("{percent}%"));
    let reason = task.reason.as_ref().map(|reason| reason.message.as_str());
    let what = reason.or(task.result.as_deref()).or(task.progress.message.as_deref());
    vec![
        task.id.to_string(),
        one_line(task.name.as_deref().unwrap_or("-"), 24),
        task.state.to_string(),
        ago(now.seconds_since(task.since)),
        task.attempt.to_string(),
        percent,
        one_line(what.unwrap_or_default(), 60),
    ]
}

fn describe(task: &Task, now: Timestamp) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("id", task.id.to_string()),
        ("name", task.name.clone().unwrap_or_else(|| "-".into())),
        ("state", format!("{} for {}", task.state, ago(now.seconds_since(task.since)))),
        ("attempt", task.attempt.to_string()),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    let percent = task.progress.percent.map(|percent| format!("{percent}%"));
    let progress: Vec<String> = percent.into_iter().chain(task.progress.message.clone()).collect();
    add("progress", (!progress.is_empty()).then(|| progress.join(" ")));
    add("reason", task.reason.as_ref().map(|reason| reason.message.clone()));
    add("result", task.result.clone());
    add("session", task.session_id.map(|id| id.to_string()));
    add("instructions", task.spec.instructions.clone());
    for label in &task.labels {
        add("label", Some(format!("{}={}", label.0, label.1)));
    }
    add("parent", task.parent.map(|id| id.to_string()));
    add("depends on", (!task.spec.depends_on.is_empty()).then(|| task.spec.depends_on.join(", ")));
    for child in &task.children {
        let name = child.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        add("child", Some(format!("{}{name} ({})", child.id, child.state)));
    }
    for one in &task.deliverables {
        let version = if one.version > 1 { format!(", version {}", one.version) } else { String::new() };
        add("deliverable", Some(format!("{} ({}, {}{version})", one.path, size(one.size), one.media_type)));
    }
    let mut text: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<13} {}", one_line(value, 2000))).collect();
    let tail = task.reason.as_ref().map(|reason| reason.tail.as_slice()).unwrap_or_default();
    text.extend(tail.iter().map(|line| format!("{:<13} {}", "last seen", one_line(line, 2000))));
    text.join("\n")
}
