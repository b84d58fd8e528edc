//! `castra hook`: what a command hook may do while it runs. Finds its task and its token in the environment that castra
//! gave it.

use super::Ctx;
use super::failure::Failure;
use super::logs::broke_off;
use super::spec::duration;
use castra_proto::task::{HookExec, HookProgress, HookText};
use clap::{Args, Subcommand};
use std::io::Read as _;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(super) enum HookCommand {
    /// Run a program where the agent works, outside its sandbox; exits as it does
    Exec(ExecArgs),
    /// Write a file of the agent's folder
    Put(PutArgs),
    /// Print a file of the agent's folder; without a path what is handed over
    Get(GetArgs),
    /// Say how far the task is
    Progress(ProgressArgs),
    /// Say something to the agent
    Send(SendArgs),
}

#[derive(Args, Debug)]
pub(super) struct ExecArgs {
    /// What it may take; 60s when unset
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<u64>,
    /// Give it this command's stdin
    #[arg(short, long)]
    interactive: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "ARG")]
    argv: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct PutArgs {
    /// What is written; `-` is stdin
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Where, relative to the agent's folder
    path: String,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// Relative to the agent's folder
    path: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ProgressArgs {
    /// 0 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=100))]
    percent: Option<u8>,
    message: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    /// What the agent hears; `-` is stdin
    text: String,
}

pub(super) async fn hook(command: HookCommand, ctx: Ctx) -> Result<(), Failure> {
    let missing = |name: &str| {
        Failure::usage(format!("{name} is not set: this is for commands of a task's hooks"))
            .hint("`castra task schema` prints how a task names its hooks")
    };
    let var = |name: &str| ctx.settings.var(name).map(str::to_owned).ok_or_else(|| missing(name));
    let (task, token) = (var("CASTRA_TASK")?, var("CASTRA_HOOK_TOKEN")?);
    // A daemon that was started for it would not know the token.
    let client = Ctx { token: Some(token), no_daemon_start: true, ..ctx.clone() }.client().await?;
    match command {
        HookCommand::Exec(args) => {
            // Of a hook it is what the hook was told.
            let stdin = args.interactive.then(read_stdin).transpose()?;
            let stdin = stdin.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let request = HookExec { argv: args.argv, stdin, timeout_s: args.timeout };
            let end = client.hook_exec(&task, &request).await?;
            ctx.out.bytes(end.stdout.as_bytes())?;
            ctx.out.raw_note(&end.stderr);
            match (end.timed_out, end.code) {
                (false, Some(0)) => Ok(()),
                (true, _) => Err(Failure::new("its time was over").exit(124)),
                (false, Some(code)) => Err(Failure::silent(u8::try_from(code).unwrap_or(1))),
                (false, None) => Err(Failure::new("it was killed")),
            }
        }
        HookCommand::Put(args) => {
            let content = match args.file.as_os_str() == "-" {
                true => read_stdin()?,
                false => std::fs::read(&args.file)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", args.file.display())))?,
            };
            Ok(client.hook_put(&task, &args.path, content.into()).await?)
        }
        HookCommand::Get(args) => {
            let mut download = client.hook_get(&task, args.path.as_deref()).await?;
            while let Some(bytes) = download.next().await.map_err(broke_off)? {
                ctx.out.bytes(&bytes)?;
            }
            Ok(())
        }
        HookCommand::Progress(args) => {
            if args.percent.is_none() && args.message.is_none() {
                return Err(Failure::usage("say a percentage, or what is done"));
            }
            let said = HookProgress { percent: args.percent, message: args.message };
            Ok(client.hook_progress(&task, &said).await?)
        }
        HookCommand::Send(args) => {
            let text = match &*args.text {
                "-" => String::from_utf8_lossy(&read_stdin()?).into_owned(),
                _ => args.text,
            };
            Ok(client.hook_send(&task, &HookText { text }).await?)
        }
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
    Ok(bytes)
}
