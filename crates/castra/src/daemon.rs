//! The daemon's life: its data folder, its start in front or behind, its readiness, its end.
//! What it serves is `http`, what it knows is the supervisor.

mod definitions;
pub mod log;
pub mod unit;

use crate::client::{self, Client, Target};
use crate::config::Settings;
use crate::exec::{self, Identity};
use crate::http;
use castra_proto::ErrorCode;
use castra_supervisor::Supervisor;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {path} as castra's data folder")]
    Home { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a folder")]
    NotAFolder { path: PathBuf },
    #[error("{path} belongs to uid {owner}, not to you (uid {you})")]
    Foreign { path: PathBuf, owner: u32, you: u32 },
    #[error("{path} is open to others (mode {mode:04o})")]
    Open { path: PathBuf, mode: u32 },
    #[error("another daemon holds {home}")]
    Running { home: PathBuf, other: Option<Box<DaemonFile>> },
    #[error(transparent)]
    Supervisor(castra_supervisor::Error),
    #[error(transparent)]
    Listen(#[from] http::ListenError),
    #[error("{0}")]
    Serve(String),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Spawn(#[from] exec::Error),
    #[error("no daemon runs for {home}")]
    NotRunning { home: PathBuf },
    #[error("the daemon ended while it started ({status}): {said}")]
    StartFailed { status: String, said: String },
    #[error("the daemon did not answer within {seconds} s")]
    StartTimeout { seconds: u64 },
    #[error("the daemon (pid {pid}) did not end within {seconds} s")]
    StopTimeout { pid: i32, seconds: u64 },
    #[error("cannot signal the daemon (pid {pid})")]
    Signal { pid: i32, source: std::io::Error },
}

/// `$CASTRA_HOME/daemon.json`: which daemon runs and where it listens. It is removed when the daemon ends
/// in order; a file that names a dead process tells of a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonFile {
    #[serde(flatten)]
    pub process: Identity,
    pub version: String,
    pub socket: PathBuf,
    /// The TCP address, with the port that was really bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl DaemonFile {
    fn path(home: &Path) -> PathBuf {
        home.join("daemon.json")
    }

    /// What the last daemon wrote, alive or not.
    pub fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(home)).ok()?).ok()
    }

    pub fn running(home: &Path) -> Option<Self> {
        Self::read(home).filter(|file| file.process.is_alive())
    }

    fn write(&self, home: &Path) -> Result<(), Error> {
        let path = Self::path(home);
        let json = serde_json::to_vec(self).map_err(std::io::Error::from);
        json.and_then(|json| exec::write_private(&path, &json))
            .map_err(|source| Error::Write { path, source })
    }
}

/// Creates the data folder, mode 0700, or refuses one that others can enter or own.
pub fn prepare_home(home: &Path) -> Result<(), Error> {
    let failed = |source| Error::Home { path: home.into(), source };
    if let Some(parent) = home.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(home) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed(source)),
    }
    let meta = std::fs::metadata(home).map_err(failed)?;
    let you = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return Err(Error::NotAFolder { path: home.into() });
    }
    if meta.uid() != you {
        return Err(Error::Foreign { path: home.into(), owner: meta.uid(), you });
    }
    match meta.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(Error::Open { path: home.into(), mode }),
        _ => Ok(()),
    }
}

/// Runs the daemon until SIGTERM, SIGINT or a request to end. `ready` is called once everything answers.
pub async fn serve(settings: &Settings, ready: impl FnOnce(&DaemonFile)) -> Result<(), Error> {
    let home = &settings.home;
    prepare_home(home)?;
    raise_descriptors();
    castra_supervisor::return_large_blocks();
    // Signals first: one that comes during recovery must end this daemon in order too.
    let signals = Signals::new().map_err(|error| Error::Serve(error.to_string()))?;
    let mut config = settings.supervisor();
    config.demo = Some(Arc::new(exec::DemoModel::new(home)));
    config.definitions = Some(Arc::new(definitions::Folders::of(settings)));
    config.webhooks = Some(Arc::new(crate::webhook::Sender::default()));
    let supervisor = Supervisor::open(config).await.map_err(|error| match error.problem().code {
        ErrorCode::Conflict => {
            Error::Running { home: home.clone(), other: DaemonFile::running(home).map(Box::new) }
        }
        _ => Error::Supervisor(error),
    })?;
    let served = listen(settings, supervisor.clone(), signals, ready).await;
    // Only now, and also after an error: the lock goes last, when nothing is served any more.
    let _ = std::fs::remove_file(DaemonFile::path(home));
    supervisor.close().await;
    served
}

async fn listen(
    settings: &Settings,
    supervisor: Supervisor,
    signals: Signals,
    ready: impl FnOnce(&DaemonFile),
) -> Result<(), Error> {
    let home = &settings.home;
    // TCP first: a port in use ends the start before anybody can have connected to the socket.
    let tcp = match settings.listen() {
        Some(address) => Some(http::bind_tcp(address, settings.insecure_listen()).await?),
        None => None,
    };
    let listen = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
    let unix = http::bind_unix(home)?;
    let file = DaemonFile {
        process: Identity::own().ok_or_else(|| Error::Serve("cannot read /proc/self/stat".into()))?,
        version: env!("CARGO_PKG_VERSION").into(),
        socket: home.join("castra.sock"),
        listen,
        url: listen.map(|address| format!("http://{address}")),
    };
    file.write(home)?;
    tracing::info!(pid = file.process.pid, socket = %file.socket.display(), listen = ?file.listen, "ready");
    // Both sockets are bound: whoever connects now is answered as soon as `serve` accepts.
    ready(&file);
    let served = http::serve(supervisor, http::Listeners { unix, tcp }, signals.end()).await;
    served.map_err(|error| Error::Serve(error.to_string()))
}

/// Descriptors that the daemon asks for: every connection is one, every live session a few. No more, because
/// claude inherits the number, and programs that close all they might have take their time with millions.
const DESCRIPTORS: u64 = 64 << 10;

/// Raises the soft limit, which is 1,024 on most systems, as far as the hard one allows. Best effort: being out
/// of descriptors is waited out.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
    if limit.current.is_some_and(|soft| soft < wanted) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
        tracing::debug!(?limit, wanted, ?raised, "descriptors");
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn end(mut self) {
        let by = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(by, "ending; sessions live on");
    }
}

/// Recovery reads every session that was alive; beyond this something is wrong.
const START: Duration = Duration::from_secs(60);

/// Whether a daemon answers at the socket. A refusal is an answer: an agent is told no, not that nobody is there.
pub async fn answers(home: &Path) -> bool {
    let client = Client::new(Target::Home(home.into()));
    let health = tokio::time::timeout(Duration::from_secs(5), client.health()).await;
    matches!(health, Ok(Ok(_) | Err(client::Error::Refused(_))))
}

/// Returns when a daemon answers, having started one if there was none. Several starters may run at once:
/// the data folder's lock lets one of their daemons through, and all wait for that one's socket.
pub async fn start(settings: &Settings, args: &[String]) -> Result<(), Error> {
    let home = &settings.home;
    prepare_home(home)?;
    let began = Instant::now();
    let mut child: Option<std::process::Child> = None;
    loop {
        if answers(home).await {
            return Ok(());
        }
        match &mut child {
            // A daemon that is alive but busy recovering is waited for, not doubled.
            None if DaemonFile::running(home).is_some() => {}
            None => child = Some(exec::start_daemon(home, &settings.absolute_env(), args)?),
            Some(started) => match started.try_wait() {
                Ok(Some(status)) if status.code() == Some(exec::EXIT_LOCKED.into()) => {
                    // Lost the race. Should the winner die as well, the next round starts another.
                    child = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(Some(status)) => {
                    let said = std::fs::read_to_string(exec::start_log(home, "daemon")).unwrap_or_default();
                    let said = said.trim().trim_start_matches("error: ").to_owned();
                    return Err(Error::StartFailed { status: status.to_string(), said });
                }
                _ => {}
            },
        }
        if began.elapsed() > START {
            return Err(Error::StartTimeout { seconds: START.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// After the daemon was lost in the middle of something: one that crashed is started again, one that was
/// stopped is waited for, since whoever stopped it meant it.
pub async fn back(settings: &Settings, may_start: bool, patience: Duration) -> Result<(), Error> {
    let home = &settings.home;
    let began = Instant::now();
    while !answers(home).await {
        let crashed = DaemonFile::read(home).is_some_and(|file| !file.process.is_alive());
        if crashed && may_start {
            return start(settings, &[]).await;
        }
        if began.elapsed() > patience {
            return Err(Error::NotRunning { home: home.clone() });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Ends the daemon of this data folder, and returns when its process is gone. Sessions live on.
pub async fn stop(home: &Path) -> Result<Identity, Error> {
    const END: Duration = Duration::from_secs(30);
    let running = DaemonFile::running(home).ok_or_else(|| Error::NotRunning { home: home.into() })?;
    end(running.process, END).await?;
    Ok(running.process)
}

/// SIGTERM to this very process, then its end.
pub async fn end(process: Identity, patience: Duration) -> Result<(), Error> {
    match process.signal(Signal::TERM) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Signal { pid: process.pid, source }),
    }
    let began = Instant::now();
    while process.is_alive() {
        if began.elapsed() > patience {
            return Err(Error::StopTimeout { pid: process.pid, seconds: patience.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_data_folder_is_made_private_and_an_open_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("a/b/castra");
        prepare_home(&home).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        prepare_home(&home).unwrap();
        for open in [0o750, 0o701, 0o777] {
            std::fs::set_permissions(&home, std::fs::Permissions::from_mode(open)).unwrap();
            assert!(matches!(prepare_home(&home), Err(Error::Open { mode, .. }) if mode == open));
            assert_eq!(mode(&home), open, "nothing is repaired silently");
        }
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(prepare_home(&file), Err(Error::NotAFolder { .. })));
    }

    #[test]
    fn a_dead_process_in_daemon_json_is_not_running() {
        let home = tempfile::tempdir().unwrap();
        let me = Identity::own().unwrap();
        let file = DaemonFile {
            process: me,
            version: "1".into(),
            socket: home.path().join("castra.sock"),
            listen: Some("127.0.0.1:4711".parse().unwrap()),
            url: Some("http://127.0.0.1:4711".into()),
        };
        file.write(home.path()).unwrap();
        assert_eq!(DaemonFile::running(home.path()), Some(file.clone()));
        let dead = DaemonFile { process: Identity { start_time: me.start_time + 1, ..me }, ..file };
        dead.write(home.path()).unwrap();
        assert_eq!(DaemonFile::running(home.path()), None);
        assert_eq!(DaemonFile::read(home.path()), Some(dead));
    }

    #[tokio::test]
    async fn a_process_is_ended_and_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Identity::of(child.id().try_into().unwrap()).unwrap();
        let reaped = std::thread::spawn(move || child.wait().unwrap());
        end(process, Duration::from_secs(20)).await.unwrap();
        reaped.join().unwrap();
        end(process, Duration::from_secs(20)).await.unwrap();
    }
}
