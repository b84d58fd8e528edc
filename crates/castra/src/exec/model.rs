//! The demo's model as a process of its own: it outlives daemons, so that demo sessions do too, and comes
//! back on the same port, because sessions that live have its address in their environment.

use super::{Error, Identity, background};
use castra_proto::ErrorCode;
use castra_supervisor::{Demo, DemoEndpoint};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a model may take from its start to its address.
const START: Duration = Duration::from_secs(15);

/// `$CASTRA_HOME/model.json`, written by the model itself once it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    #[serde(flatten)]
    pub process: Identity,
    pub port: u16,
    pub key: String,
}

impl ModelFile {
    pub fn path(home: &Path) -> PathBuf {
        home.join("model.json")
    }

    /// The last model of this data folder, alive or not.
    pub fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(home)).ok()?).ok()
    }

    pub fn write(&self, home: &Path) -> std::io::Result<()> {
        write_private(&Self::path(home), &serde_json::to_vec(self)?)
    }

    fn endpoint(&self) -> DemoEndpoint {
        DemoEndpoint { base_url: format!("http://127.0.0.1:{}", self.port), api_key: self.key.clone() }
    }
}

/// Replaces a file by one that only its owner may read, from its first byte on.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&temporary, path)
}

/// The model that `demo` sessions are pointed at.
pub struct DemoModel {
    home: PathBuf,
    /// One start at a time; other daemons are kept out by the data folder's lock.
    starting: tokio::sync::Mutex<()>,
}

impl DemoModel {
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), starting: tokio::sync::Mutex::new(()) }
    }

    fn alive(&self) -> Option<ModelFile> {
        ModelFile::read(&self.home).filter(|model| model.process.is_alive())
    }

    async fn start(&self) -> Result<ModelFile, String> {
        let _one = self.starting.lock().await;
        if let Some(model) = self.alive() {
            return Ok(model);
        }
        let command = self.command().map_err(|error| describe(&error))?;
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|source| describe(&Error::Spawn { what: "the demo's model", source }))?;
        let ready = async {
            loop {
                if let Some(model) = self.alive() {
                    return Ok(model);
                }
                if let Ok(Some(status)) = child.try_wait() {
                    let log = super::start_log(&self.home, "model");
                    let said = std::fs::read_to_string(log).unwrap_or_default();
                    return Err(format!("the demo's model ended at its start ({status}): {}", said.trim()));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // The child is not killed when this handle goes; tokio reaps it while this daemon lives.
        match tokio::time::timeout(START, ready).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("the demo's model did not listen within {} s", START.as_secs())),
        }
    }

    /// Nothing of the daemon's environment goes to the model; its key travels in model.json, not in argv.
    fn command(&self) -> Result<std::process::Command, Error> {
        let mut command = background(&self.home, "model")?;
        command
            .args(["model", "serve", "--for-home"])
            .arg(&self.home)
            .env_clear()
            .env("CASTRA_HOME", &self.home);
        Ok(command)
    }
}

fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Demo for DemoModel {
    fn endpoint(&self) -> BoxFuture<'_, castra_supervisor::Result<DemoEndpoint>> {
        Box::pin(async move {
            match self.alive() {
                Some(model) => Ok(model.endpoint()),
                None => self
                    .start()
                    .await
                    .map(|model| model.endpoint())
                    .map_err(|detail| castra_supervisor::Error::new(ErrorCode::Internal, detail)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn model_json_is_private_and_reads_back() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(ModelFile::read(home.path()), None);
        let model = ModelFile { process: Identity { pid: 7, start_time: 8 }, port: 9, key: "k".into() };
        model.write(home.path()).unwrap();
        let again = ModelFile { port: 10, ..model };
        again.write(home.path()).unwrap();
        assert_eq!(ModelFile::read(home.path()), Some(again));
        let mode = std::fs::metadata(ModelFile::path(home.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_living_model_is_used_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let model = ModelFile { process: Identity::own().unwrap(), port: 4711, key: "k".into() };
        model.write(home.path()).unwrap();
        let endpoint = DemoModel::new(home.path()).endpoint().await.unwrap();
        assert_eq!(endpoint, DemoEndpoint { base_url: "http://127.0.0.1:4711".into(), api_key: "k".into() });
    }
}
