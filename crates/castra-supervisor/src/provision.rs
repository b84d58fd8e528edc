//! Which claude executable a session runs: found, checked, or installed. Only through a host's trait.
//!
//! Owns the order of looking; refuses to run anything as claude that does not say that it is. Nothing here
//! sees the user's HOME through a program's eyes: `--version` and npm get a folder of castra's own.

mod cache;
mod check;
mod install;

use std::collections::BTreeMap;

use castra_proto::shim::relay::{At, EntryKind, Probe};
use castra_proto::{ErrorCode, Problem};

use tokio::sync::OnceCell;

use crate::host::{Host, HostError, Progress};
use crate::{ClaudeConfig, Error, Install, Result};

pub use cache::Candidate;
use check::Checked;
use install::Flight;

/// A claude that answered to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    /// Absolute, links resolved.
    pub path: String,
    /// As `--version` says it, e.g. `2.1.197`.
    pub version: String,
    pub source: Source,
}

/// Where it was found; the order is the order of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Configured,
    Path,
    /// `~/.local/bin/claude`, where the vendor's script puts it.
    Home,
    /// castra's own.
    Cache,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Path => "path",
            Self::Home => "home",
            Self::Cache => "cache",
        }
    }
}

/// The executables of one host. Remembers what it checked, so that a start costs two `stat`s.
pub struct Provision {
    config: ClaudeConfig,
    /// That host's environment for its user: PATH, proxies, `npm_config_*`.
    inherited: BTreeMap<String, String>,
    /// Only what does not change: its folders and its architecture.
    machine: OnceCell<Probe>,
    checked: Checked,
    flight: Flight,
}

impl Provision {
    pub fn new(config: ClaudeConfig, inherited: BTreeMap<String, String>) -> Self {
        Self {
            config,
            inherited,
            machine: OnceCell::new(),
            checked: Checked::default(),
            flight: Flight::default(),
        }
    }

    /// The executable for a new run, installed when there is none and that is allowed.
    ///
    /// A configured path is the answer or an error, never a hint. Elsewhere what is not claude, or not the
    /// pinned version, is passed over. Errors: `cli_not_found`, `cli_start_failed`, `host_unreachable`.
    pub async fn resolve(&self, host: &dyn Host, progress: Option<Progress>) -> Result<Cli> {
        let machine = self.machine(host).await?;
        if let Some(path) = &self.config.path {
            return self.configured(host, machine, &path.to_string_lossy()).await;
        }
        let mut passed_over = Vec::new();
        if let Some(cli) = self.existing(host, machine, &mut passed_over).await? {
            return Ok(cli);
        }
        if self.config.install == Install::Never {
            return Err(self.nothing(&passed_over));
        }
        self.install_once(host, machine, progress).await
    }

    async fn machine(&self, host: &dyn Host) -> Result<&Probe> {
        self.machine.get_or_try_init(|| async { host.probe().await.map_err(unreachable) }).await
    }

    async fn configured(&self, host: &dyn Host, machine: &Probe, path: &str) -> Result<Cli> {
        let refused = |code, detail| Error::Refused(Problem::new(code, detail).hint(CONFIGURED));
        if !path.starts_with('/') {
            return Err(refused(
                ErrorCode::CliNotFound,
                format!("the configured path {path:?} is not absolute"),
            ));
        }
        match self.check(host, machine, path, Source::Configured).await? {
            None => {
                Err(refused(ErrorCode::CliNotFound, format!("the configured claude is not there: {path}")))
            }
            Some(Err(fault)) => Err(refused(ErrorCode::CliStartFailed, fault)),
            Some(Ok(cli)) => match &self.config.version {
                Some(pinned) if *pinned != cli.version => Err(refused(
                    ErrorCode::CliNotFound,
                    format!("{path} is version {}, and {pinned} is configured", cli.version),
                )),
                _ => Ok(cli),
            },
        }
    }

    /// PATH, the home, the cache. What was there and was not used is told to `passed_over`.
    async fn existing(
        &self,
        host: &dyn Host,
        machine: &Probe,
        passed_over: &mut Vec<String>,
    ) -> Result<Option<Cli>> {
        let mut places: Vec<_> = self.on_path().map(|path| (path, Source::Path)).collect();
        places.extend(in_home(machine).map(|path| (path, Source::Home)));
        places.extend(self.cached(host, machine).await?.into_iter().map(|path| (path, Source::Cache)));
        for (path, source) in places {
            match self.check(host, machine, &path, source).await? {
                None => (),
                Some(Err(fault)) => passed_over.push(fault),
                Some(Ok(cli)) => match &self.config.version {
                    Some(pinned) if *pinned != cli.version => {
                        passed_over.push(format!("{path} is version {}, not {pinned}", cli.version));
                    }
                    _ => return Ok(Some(cli)),
                },
            }
        }
        Ok(None)
    }

    fn nothing(&self, passed_over: &[String]) -> Error {
        let what = match &self.config.version {
            Some(version) => format!("no claude of version {version} was found"),
            None => "no claude was found in PATH, ~/.local/bin or castra's cache".to_owned(),
        };
        let detail =
            if passed_over.is_empty() { what } else { format!("{what}: {}", passed_over.join("; ")) };
        Error::Refused(Problem::new(ErrorCode::CliNotFound, detail).hint(
            "run `castra claude install`, or set `install = \"auto\"` or `path` under [claude] in castra.toml",
        ))
    }

    fn on_path(&self) -> impl Iterator<Item = String> {
        let path = self.inherited.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| format!("{}/claude", dir.trim_end_matches('/')))
    }
}

const CONFIGURED: &str = "correct `path` under [claude] in castra.toml (or CASTRA_CLAUDE_PATH), or remove it: \
    castra then looks in PATH, in ~/.local/bin and in its own cache";

fn in_home(machine: &Probe) -> Option<String> {
    machine.user_home.starts_with('/').then(|| format!("{}/.local/bin/claude", machine.user_home))
}

/// A path as the host's files take it: links above the last name are the operator's.
fn at(path: &str) -> At {
    match path.rsplit_once('/') {
        Some(("", name)) => At::dir("/", name),
        Some((dir, name)) => At::dir(dir, name),
        None => At::dir("/", path),
    }
}

/// What is at a path; nothing where it, or a folder above it, is not there or cannot be read.
async fn look(host: &dyn Host, path: &str) -> Result<Option<castra_proto::shim::relay::Entry>> {
    match host.files().stat(at(path)).await {
        Ok(entry) => Ok(entry.filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Link))),
        Err(HostError::Relay(_)) => Ok(None),
        Err(error) => Err(unreachable(error)),
    }
}

/// The host did not answer, or not as it must.
fn unreachable(error: HostError) -> Error {
    let code = match &error {
        HostError::Relay(relay) if relay.errno() == Some(ENOSPC) => ErrorCode::DiskFull,
        HostError::Relay(_) => ErrorCode::CliStartFailed,
        HostError::Unreachable(_) | HostError::Conn(_) => ErrorCode::HostUnreachable,
    };
    Error::new(code, error.to_string())
}

/// Linux's number, on every architecture.
const ENOSPC: i32 = 28;

/// A program's words, in one short line without what a terminal would obey.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(300).collect()
}
