//! `castra up` and `castra down`.

use super::Ctx;
use super::failure::{Failure, chain};
use crate::config::FlagValue;
use crate::daemon::{self, DaemonFile, log, unit};
use crate::exec::{self, ModelFile};
use clap::Args;
use serde_json::json;
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct UpArgs {
    /// Serve HTTP on this address too; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Allow --listen beyond loopback, without TLS
    #[arg(long)]
    insecure_listen: bool,
    /// In the background; returns when it answers
    #[arg(short, long)]
    detach: bool,
    /// Install a systemd user unit, and start it
    #[arg(long, conflicts_with = "detach")]
    install: bool,
    /// With --install: print the unit
    #[arg(long, requires = "install")]
    dry_run: bool,
    /// Log more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// This is the background process itself
    #[arg(long, hide = true)]
    detached: bool,
}

#[derive(Args, Debug)]
pub(super) struct DownArgs {
    /// Also end the demo's model
    #[arg(long)]
    model: bool,
    /// Remove the systemd user unit
    #[arg(long)]
    uninstall: bool,
}

impl UpArgs {
    pub(super) fn flags(&self) -> Vec<FlagValue> {
        let mut flags: Vec<FlagValue> = Vec::new();
        flags.extend(self.listen.clone().map(|value| ("listen", "--listen", value)));
        flags.extend(self.insecure_listen.then(|| ("insecure_listen", "--insecure-listen", "true".into())));
        flags.extend(self.log_format.clone().map(|value| ("log.format", "--log-format", value)));
        flags
    }

    /// The same again for a process behind this one, or a unit.
    fn passed_on(&self) -> Vec<String> {
        let mut args = Vec::new();
        for (flag, value) in [("--listen", &self.listen), ("--log-format", &self.log_format)] {
            args.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        args.extend(self.insecure_listen.then(|| "--insecure-listen".to_owned()));
        args.extend((0..self.verbose).map(|_| "-v".to_owned()));
        args
    }
}

pub(super) async fn up(args: UpArgs, ctx: Ctx) -> Result<(), Failure> {
    if args.install {
        return install(&args, &ctx);
    }
    if args.detach {
        let before = DaemonFile::running(&ctx.settings.home);
        daemon::start(&ctx.settings, &args.passed_on()).await?;
        let Some(file) = DaemonFile::running(&ctx.settings.home) else {
            return Err(Failure::new("the daemon has ended again").hint("its log is in $CASTRA_HOME/log/"));
        };
        if before.is_some() && args.listen.is_some() {
            ctx.out.warn("a daemon was running already; it keeps its own settings");
        }
        return ready(&ctx, &file);
    }
    if args.detached {
        exec::detach();
    }
    let settings = &ctx.settings;
    // Before the log is opened in it.
    daemon::prepare_home(&settings.home)?;
    let file = args.detached.then(|| settings.home.join("log/castra.log"));
    log::init(&settings.log_level(), args.verbose, settings.log_is_json(), file.as_deref())
        .map_err(|error| Failure::usage(chain(&error)))?;
    let announce = |file: &DaemonFile| {
        // Nobody has to read this line: the daemon runs on.
        let _ = ready(&ctx, file);
    };
    match daemon::serve(settings, announce).await {
        Err(error @ daemon::Error::Running { .. }) if args.detached => {
            Err(Failure::from(error).exit(exec::EXIT_LOCKED))
        }
        other => Ok(other?),
    }
}

fn ready(ctx: &Ctx, file: &DaemonFile) -> Result<(), Failure> {
    ctx.out.either(file, || {
        let url = file.url.as_ref().map_or_else(String::new, |url| format!(" and {url}"));
        format!("castra is up (pid {}) at {}{url}", file.process.pid, file.socket.display())
    })
}

pub(super) async fn down(args: DownArgs, ctx: Ctx) -> Result<(), Failure> {
    if args.uninstall {
        uninstall(&ctx)?;
    }
    let home = &ctx.settings.home;
    let ended = match daemon::stop(home).await {
        Ok(process) => Some(process.pid),
        Err(daemon::Error::NotRunning { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut model = None;
    if args.model
        && let Some(file) = ModelFile::read(home).filter(|file| file.process.is_alive())
    {
        daemon::end(file.process, Duration::from_secs(10)).await?;
        model = Some(file.process.pid);
    }
    let told = json!({ "daemon": ended, "model": model });
    ctx.out.either(&told, || match ended {
        Some(pid) => format!("the daemon (pid {pid}) has ended; sessions live on"),
        None => "no daemon was running".into(),
    })
}

fn unit_path(ctx: &Ctx) -> Result<std::path::PathBuf, Failure> {
    unit::path(ctx.settings.var("XDG_CONFIG_HOME"), ctx.settings.var("HOME"))
        .ok_or_else(|| Failure::new("neither XDG_CONFIG_HOME nor HOME is set"))
}

fn install(args: &UpArgs, ctx: &Ctx) -> Result<(), Failure> {
    let exe = std::env::current_exe()?;
    let env: Vec<(String, String)> = [("CASTRA_HOME".to_owned(), ctx.settings.home.display().to_string())]
        .into_iter()
        .chain(ctx.settings.file.iter().map(|file| ("CASTRA_CONFIG".to_owned(), file.display().to_string())))
        .chain(ctx.settings.var("PATH").map(|path| ("PATH".to_owned(), path.to_owned())))
        .collect();
    let text = unit::text(&exe, &env, &args.passed_on());
    let path = unit_path(ctx)?;
    if args.dry_run {
        ctx.out.note(&format!("{} would be:", path.display()));
        return ctx.out.text(&text);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, text)?;
    let started =
        exec::systemctl(&["daemon-reload"]).and_then(|_| exec::systemctl(&["enable", "--now", unit::NAME]));
    if let Err(why) = &started {
        ctx.out.warn(&format!("systemd did not take it: {why}"));
        ctx.out.hint(&format!("when it runs: systemctl --user enable --now {}", unit::NAME));
    }
    let told = json!({ "unit": path, "started": started.is_ok() });
    ctx.out.either(&told, || format!("wrote {}", path.display()))
}

fn uninstall(ctx: &Ctx) -> Result<(), Failure> {
    let path = unit_path(ctx)?;
    if let Err(why) = exec::systemctl(&["disable", "--now", unit::NAME]) {
        ctx.out.warn(&format!("systemd: {why}"));
    }
    match std::fs::remove_file(&path) {
        Ok(()) => ctx.out.note(&format!("removed {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ctx.out.note(&format!("{} does not exist", path.display()));
        }
        Err(error) => return Err(error.into()),
    }
    // systemd may be absent; then there is nothing to be told.
    let _ = exec::systemctl(&["daemon-reload"]);
    Ok(())
}
