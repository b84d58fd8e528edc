//! `castra model`: the scripted model on its own, for demos and for tests of one's own workflows.

use super::Ctx;
use super::failure::{Failure, chain};
use super::out::Out;
use crate::daemon::DaemonFile;
use crate::exec::{self, Identity, ModelFile};
use castra_model::{Model, Script};
use clap::{Args, Subcommand};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

#[derive(Subcommand, Debug)]
pub(super) enum ModelCommand {
    /// Serve a script on loopback until Ctrl-C
    Serve(ServeArgs),
    /// Print the default script, as a start for one's own
    Script,
}

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// A script; the default one when unset
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Append every request to this file, as lines of JSON
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The background model of this data folder
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["script", "port", "log"])]
    for_home: Option<PathBuf>,
}

/// Without requests and without a daemon a background model is not needed any more.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How often a background model looks whether it is still needed.
const LOOK: Duration = Duration::from_secs(2);

pub(super) fn script(out: &Out) -> Result<(), Failure> {
    out.text(Script::DEMO)
}

pub(super) async fn model(command: ModelCommand, ctx: Ctx) -> Result<(), Failure> {
    match command {
        ModelCommand::Script => script(&ctx.out),
        ModelCommand::Serve(args) => match &args.for_home {
            Some(home) => in_background(home).await,
            None => serve(&args, &ctx).await,
        },
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn serve(args: &ServeArgs, ctx: &Ctx) -> Result<(), Failure> {
    let script = match &args.script {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
            Script::parse(&text)
                .map_err(|error| Failure::usage(format!("{}: {}", path.display(), chain(&error))))?
        }
        None => Script::default_demo().map_err(|error| Failure::new(chain(&error)))?,
    };
    let bind = loopback(args.port);
    let started = match &args.log {
        Some(log) => Model::start_logged(script, bind, log).await,
        None => Model::start(script, bind).await,
    };
    let model = started.map_err(|error| Failure::new(chain(&error)))?;
    ctx.out.either(&json!({ "base_url": model.base_url() }), || model.base_url())?;
    ctx.out.hint(&format!("ANTHROPIC_BASE_URL={} ANTHROPIC_API_KEY=anything claude", model.base_url()));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    model.shutdown().await;
    Ok(())
}

/// On the port and with the key of the model before it: sessions that live know those.
async fn in_background(home: &Path) -> Result<(), Failure> {
    exec::detach();
    let before = ModelFile::read(home);
    let key = before
        .as_ref()
        .map_or_else(|| format!("castra-demo-{}", Uuid::new_v4().simple()), |old| old.key.clone());
    // Only sessions of this data folder may talk to it.
    let script = Script::parse(&format!("keys = [\"{key}\"]\n{}", Script::DEMO))
        .map_err(|error| Failure::new(chain(&error)))?;
    let wanted = before.as_ref().map_or(0, |old| old.port);
    let model = match Model::start(script.clone(), loopback(wanted)).await {
        Ok(model) => model,
        // Somebody else has the port by now: new sessions are worth more than the old ones' address.
        Err(_) if wanted != 0 => {
            Model::start(script, loopback(0)).await.map_err(|error| Failure::new(chain(&error)))?
        }
        Err(error) => return Err(Failure::new(chain(&error))),
    };
    let process = Identity::own().ok_or_else(|| Failure::new("cannot read /proc/self/stat"))?;
    let own = ModelFile { process, port: model.addr().port(), key };
    own.write(home).map_err(|error| Failure::new(format!("cannot write model.json: {error}")))?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut needed = Needed { seen: 0, since: Instant::now() };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            () = tokio::time::sleep(LOOK) => {
                let replaced = ModelFile::read(home).is_none_or(|file| file.process != own.process);
                let requests = model.requests().last().map_or(0, |request| request.n);
                let daemon = DaemonFile::running(home).is_some();
                if replaced || !needed.still(requests, daemon, Instant::now()) {
                    break;
                }
            }
        }
    }
    model.shutdown().await;
    Ok(())
}

/// Whether anybody may still want a background model.
struct Needed {
    /// The number of the newest request.
    seen: u64,
    since: Instant,
}

impl Needed {
    fn still(&mut self, requests: u64, daemon: bool, now: Instant) -> bool {
        if requests != self.seen || daemon {
            (self.seen, self.since) = (requests, now);
        }
        now.saturating_duration_since(self.since) < IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_goes_when_nobody_has_wanted_it_for_long() {
        let start = Instant::now();
        let mut needed = Needed { seen: 0, since: start };
        // Minutes, newest request, daemon, whether it stays.
        let table = [
            (1, 0, false, true),
            (20, 0, true, true),
            (34, 0, false, true),
            (34, 7, false, true),
            (48, 7, false, true),
            (49, 7, false, false),
        ];
        for (minutes, requests, daemon, stays) in table {
            let now = start + Duration::from_secs(minutes * 60);
            assert_eq!(needed.still(requests, daemon, now), stays, "after {minutes} minutes");
        }
    }
}
