//! The only place of this crate that starts processes: the daemon in the background, the demo's model,
//! systemctl, tmux. Everything that belongs to a session is started elsewhere.

mod identity;
mod model;
pub mod tmux;

pub use identity::Identity;
pub(crate) use model::write_private;
pub use model::{DemoModel, ModelFile};

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write {path}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error("cannot start {what}")]
    Spawn { what: &'static str, source: std::io::Error },
    /// In its own words.
    #[error("tmux: {0}")]
    Tmux(String),
}

/// Said by a background process that finds the data folder's lock taken (EX_TEMPFAIL): whoever started it
/// has lost a race and waits for the winner.
pub const EXIT_LOCKED: u8 = 75;

/// This binary. One that was replaced on disk while running is still reachable through /proc.
fn own_image() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// Output of a background process before its own log is open: a panic, a refused start.
pub fn start_log(home: &Path, what: &str) -> PathBuf {
    home.join("log").join(format!("{what}.start"))
}

/// A background child: its own session comes from `detach` in the child, for a `pre_exec` would need
/// `unsafe`; it must not lead a process group already, or setsid fails.
fn background(home: &Path, what: &'static str) -> Result<Command, Error> {
    let path = start_log(home, what);
    let open = || {
        std::fs::create_dir_all(home.join("log"))?;
        let file = std::fs::File::create(&path)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().map_err(|source| Error::Log { path: path.clone(), source })?;
    let mut command = Command::new(own_image());
    command.current_dir(home).stdin(Stdio::null()).stdout(out).stderr(err);
    Ok(command)
}

/// Starts `castra up` in the background with the environment of this process, which it filters later.
/// `env` is laid over it. The caller waits for the socket.
pub fn start_daemon<S: AsRef<OsStr>>(
    home: &Path,
    env: &[(String, String)],
    args: &[S],
) -> Result<Child, Error> {
    let mut command = background(home, "daemon")?;
    command.args(["up", "--detached"]).args(args).envs(env.iter().map(|(name, value)| (name, value)));
    command.spawn().map_err(|source| Error::Spawn { what: "the daemon", source })
}

/// Leaves the session and terminal of whoever started this process. Harmless if that is done already.
pub fn detach() {
    let _ = rustix::process::setsid();
}

/// `systemctl --user ARGS`: what it printed, or why it failed.
pub fn systemctl(args: &[&str]) -> Result<String, String> {
    let output = Command::new("systemctl").arg("--user").args(args).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
