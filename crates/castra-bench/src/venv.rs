//! What stands beside castra in a figure and comes from PyPI: one venv under target/, filled on the first run.

use crate::report::progress;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) struct Venv(PathBuf);

impl Venv {
    pub(crate) fn find() -> Result<Self> {
        let own = std::env::current_exe()?;
        Ok(Self(own.ancestors().nth(2).context("a target folder")?.join("venv")))
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.0.join("bin/python")
    }

    /// What this line of Python prints; none when it fails, as it does where there is no venv yet.
    pub(crate) fn says(&self, line: &str) -> Option<String> {
        let said = Command::new(self.python()).args(["-c", line]).stderr(Stdio::null()).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Installs one package of this version; `more` are arguments of pip's.
    pub(crate) fn install(&self, package: &str, more: &[&str]) -> Result<()> {
        progress(&format!("installing {package} into {}", self.0.display()));
        let made = Command::new("python3").args(["-m", "venv"]).arg(&self.0).status()?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let installed = || Command::new(self.python()).args(pip).args(more).arg(package).status();
        if !made.success() || !installed()?.success() {
            bail!("{package} cannot be installed");
        }
        Ok(())
    }
}
