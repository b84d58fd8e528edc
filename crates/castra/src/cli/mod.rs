//! The command line: verbs, and what all of them share. A verb's arguments live beside its code.

mod ask;
mod attach;
mod awaited;
mod claude;
mod demo;
mod doctor;
mod escape;
mod failure;
mod files;
mod hook;
mod input;
mod keyboard;
mod logs;
mod model;
mod open;
mod out;
mod pages;
mod permissions;
mod progress;
mod run;
mod say;
mod schedule;
mod service;
mod sessions;
mod settings;
mod spec;
mod task;
mod team;
mod tmux;
mod tokens;
mod tui;
mod turn;
mod upkeep;
mod view;

use crate::client::{self, Client, Target};
use crate::config::{FlagValue, Inputs, Settings};
use crate::daemon;
use clap::{Args, Parser, Subcommand};
use failure::Failure;
use out::{Out, Style};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use task::definition_file;

/// Claude Code as supervised sessions: whatever process, link or machine goes away, nothing is lost.
#[derive(Parser, Debug)]
#[command(name = "castra", version, max_term_width = 100)]
#[command(after_help = "ID is the id of a session, task or team, a unique prefix of it, or its name.\n\
    Exit codes: 0 done, 1 failed, 2 usage, 124 timed out, 130 interrupted.\n\
    New here? `castra demo` shows it all, without an account.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Global {
    /// Data as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Read this castra.toml
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    config: Option<PathBuf>,
    /// Fail rather than start a daemon when none runs
    #[arg(long, global = true, hide_short_help = true)]
    no_daemon_start: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon: in the foreground, or with -d in the background
    Up(service::UpArgs),
    /// Stop the daemon; sessions live on
    Down(service::DownArgs),
    /// One prompt to its answer
    Run(Box<run::RunArgs>),
    /// List sessions
    Ps(sessions::PsArgs),
    /// One session in full
    Show(sessions::OneArg),
    /// Say something to a session
    Send(say::SendArgs),
    /// Wait until a session is idle or over
    Wait(say::WaitArgs),
    /// Read a session's events, or its exact bytes
    Logs(logs::LogsArgs),
    /// The live conversation in this terminal
    Attach(attach::AttachArgs),
    /// What a terminal session shows, as text
    Screen(keyboard::ScreenArgs),
    /// Type keys into a terminal session
    Type(keyboard::TypeArgs),
    /// A link to a session's terminal for a browser
    Open(open::OpenArgs),
    /// End the turn that is running
    Interrupt(sessions::OneArg),
    /// Stop a session's claude; `resume` continues later
    Stop(sessions::ManyArgs),
    /// Continue an ended session, or adopt one of claude's own conversations
    Resume(sessions::ResumeArgs),
    /// A new session with the same history
    Fork(sessions::ForkArgs),
    /// Begin a new conversation in the same session
    Clear(sessions::OneArg),
    /// Remove ended sessions
    Rm(sessions::RmArgs),
    /// Write a session to a file
    Export(logs::ExportArgs),
    /// Allow what a session asks for
    Approve(permissions::ApproveArgs),
    /// Refuse what a session asks for
    Deny(permissions::DenyArgs),
    /// What a session waits for
    Permissions(sessions::OneArg),
    /// Send a control request of the CLI
    Control(say::ControlArgs),
    /// Put, get and list files of a session
    #[command(subcommand)]
    Files(files::FilesCommand),
    /// Models, commands and account, as claude tells them
    Info(sessions::OneArg),
    /// claude's own conversations on this machine
    Sessions(sessions::TranscriptsArgs),
    /// Tasks: from instructions to deliverables and an outcome
    #[command(subcommand)]
    Task(Box<task::TaskCommand>),
    /// What a command of a task's hooks may do while it runs
    #[command(subcommand)]
    Hook(hook::HookCommand),
    /// Teams: named agents that are asked side by side, and given each other's answers
    #[command(subcommand)]
    Team(Box<team::TeamCommand>),
    /// Tasks by the clock
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// API tokens
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// The claude executables that castra uses
    #[command(subcommand)]
    Claude(claude::ClaudeCommand),
    /// Every setting, its value and where it comes from
    Config,
    /// What castra needs, and what is missing
    Doctor(doctor::DoctorArgs),
    /// A short tour with the real CLI and a scripted model: no account, no cost
    Demo(demo::DemoArgs),
    /// The scripted model
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Remove what retention allows
    Prune(upkeep::PruneArgs),
    /// Check the data folder
    Check,
    /// Write a copy of the store
    Backup(upkeep::BackupArgs),
    /// Print completions for a shell
    Completions(pages::CompletionsArgs),
    /// Print the manual page
    Man,
    /// List error codes
    Errors,
}

/// What every command is given.
#[derive(Clone)]
pub struct Ctx {
    out: Out,
    settings: Settings,
    /// Of CASTRA_TOKEN, or handed over by another castra.
    token: Option<String>,
    no_daemon_start: bool,
}

impl Ctx {
    /// A daemon that answers: CASTRA_URL's, or this data folder's, which is started when it does not run.
    async fn client(&self) -> Result<Client, Failure> {
        self.client_that(true).await
    }

    /// The same. `says`: that the daemon went away is told on stderr; not where that is in use otherwise.
    async fn client_that(&self, says: bool) -> Result<Client, Failure> {
        let token = self.token.as_deref();
        if let Some(url) = self.settings.var("CASTRA_URL") {
            let client = Client::new(Target::url(url)?).with_token(token);
            return Ok(client.with_recovery(Arc::new(|| {
                Box::pin(async {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Ok(())
                })
            })));
        }
        let target = Target::Home(self.settings.home.clone());
        if !daemon::answers(&self.settings.home).await {
            if self.no_daemon_start {
                return Err(failure::not_running(&target));
            }
            daemon::start(&self.settings, &[]).await?;
        }
        Ok(Client::new(target).with_token(token).with_recovery(self.recovery(says)))
    }

    /// A daemon that went away in the middle: said once if at all, then waited for or started again.
    fn recovery(&self, says: bool) -> client::Recover {
        const PATIENCE: Duration = Duration::from_secs(60);
        let ctx = self.clone();
        let said = Arc::new(AtomicBool::new(!says));
        Arc::new(move || {
            let (ctx, said) = (ctx.clone(), said.clone());
            Box::pin(async move {
                if !said.swap(true, Ordering::Relaxed) {
                    ctx.out.note(&ctx.out.paint(Style::Yellow, "the daemon is away; waiting for it"));
                }
                daemon::back(&ctx.settings, !ctx.no_daemon_start, PATIENCE)
                    .await
                    .map_err(|error| client::Error::Recover(failure::chain(&error)))?;
                said.store(!says, Ordering::Relaxed);
                Ok(())
            })
        })
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, mistakes to stderr; either may have no reader any more.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let out = Out::new(cli.global.json);
    let exit = match dispatch(cli, out.clone()) {
        Ok(()) => 0,
        Err(failure) => tell(&failure, &out),
    };
    // Not `return`: a thread may be blocked in a read of the terminal, and nothing is left to be done.
    std::process::exit(i32::from(exit))
}

fn tell(failure: &Failure, out: &Out) -> u8 {
    if let Some(message) = &failure.message {
        let error = out.paint(Style::Red, "error:");
        out.note(&format!("{error} {}", escape::visible(message)));
    }
    if let Some(hint) = &failure.hint {
        out.hint(&escape::visible(hint));
    }
    failure.exit
}

fn dispatch(cli: Cli, out: Out) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    // These need neither settings nor a runtime.
    match &command {
        Command::Completions(args) => return pages::completions(args, &out),
        Command::Man => return pages::man(&out),
        Command::Errors => return pages::errors(&out),
        Command::Model(model::ModelCommand::Script) => return model::script(&out),
        Command::Task(command) => {
            if let Some(page) = task::page(command) {
                return out.text(&page);
            }
        }
        Command::Team(command) if matches!(**command, team::TeamCommand::Schema) => {
            return out.text(&task::pages::team_schema());
        }
        _ => {}
    }
    let mut flags: Vec<FlagValue> = Vec::new();
    match &command {
        Command::Up(args) => flags.extend(args.flags()),
        Command::Demo(args) => flags.extend(args.flags()),
        _ => {}
    }
    let settings = Settings::resolve(Inputs::gather(global.config, flags))?;
    let token = settings.var("CASTRA_TOKEN").map(String::from);
    let ctx = Ctx { out, settings, token, no_daemon_start: global.no_daemon_start };
    let is_daemon = matches!(&command, Command::Up(_));
    let mut builder = if is_daemon {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(perform(command, ctx));
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn perform(command: Command, ctx: Ctx) -> Result<(), Failure> {
    match command {
        Command::Up(args) => service::up(args, ctx).await,
        Command::Down(args) => service::down(args, ctx).await,
        Command::Run(args) => run::run(*args, ctx).await,
        Command::Ps(args) => sessions::ps(args, ctx).await,
        Command::Show(args) => sessions::show(args, ctx).await,
        Command::Send(args) => say::send(args, ctx).await,
        Command::Wait(args) => say::wait(args, ctx).await,
        Command::Logs(args) => logs::logs(args, ctx).await,
        Command::Attach(args) => attach::attach(args, ctx).await,
        Command::Screen(args) => keyboard::screen(args, ctx).await,
        Command::Type(args) => keyboard::type_keys(args, ctx).await,
        Command::Open(args) => open::open(args, ctx).await,
        Command::Interrupt(args) => sessions::act(&[args.id], "interrupt", ctx).await,
        Command::Stop(args) => sessions::act(&args.ids, "stop", ctx).await,
        Command::Resume(args) => sessions::resume(args, ctx).await,
        Command::Fork(args) => sessions::fork(args, ctx).await,
        Command::Clear(args) => sessions::act(&[args.id], "clear", ctx).await,
        Command::Rm(args) => sessions::rm(args, ctx).await,
        Command::Export(args) => logs::export(args, ctx).await,
        Command::Approve(args) => permissions::approve(args, ctx).await,
        Command::Deny(args) => permissions::deny(args, ctx).await,
        Command::Permissions(args) => permissions::list(args, ctx).await,
        Command::Control(args) => say::control(args, ctx).await,
        Command::Files(command) => files::files(command, ctx).await,
        Command::Info(args) => sessions::info(args, ctx).await,
        Command::Sessions(args) => sessions::transcripts(args, ctx).await,
        Command::Task(command) => task::task(*command, ctx).await,
        Command::Hook(command) => hook::hook(command, ctx).await,
        Command::Team(command) => team::team(*command, ctx).await,
        Command::Schedule(command) => schedule::schedule(command, ctx).await,
        Command::Token(command) => tokens::tokens(command, ctx).await,
        Command::Claude(command) => claude::claude(command, ctx).await,
        Command::Config => settings::config(ctx),
        Command::Doctor(args) => doctor::doctor(args, ctx).await,
        Command::Demo(args) => demo::demo(args, ctx).await,
        Command::Model(command) => model::model(command, ctx).await,
        Command::Prune(args) => upkeep::prune(args, ctx).await,
        Command::Check => upkeep::check(ctx).await,
        Command::Backup(args) => upkeep::backup(args, ctx).await,
        Command::Completions(_) | Command::Man | Command::Errors => Ok(()),
    }
}

#[cfg(test)]
mod tests;
