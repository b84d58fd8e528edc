//! A daemon of its own for each figure, with the flooding fake or the real CLI as `claude`.

use crate::proc;
use crate::wire::{Client, Door};
use anyhow::{Context as _, Result, bail};
use castra_testkit::{Daemon, Session, World};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The executables that are measured: beside this one.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) castra: String,
    pub(crate) flood: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> Result<Self> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| {
            let path = own.with_file_name(name);
            if !path.is_file() {
                bail!("{} is missing: cargo build --release -p castra -p castra-bench", path.display());
            }
            Ok(path)
        };
        let castra = beside("castra")?.to_str().context("a path in UTF-8")?.to_owned();
        Ok(Self { castra, flood: beside("flood-claude")? })
    }

    pub(crate) fn world(&self) -> World {
        self.world_with(&self.flood)
    }

    pub(crate) fn world_with(&self, claude: &Path) -> World {
        World::new(&self.castra, claude, SCRIPT)
    }
}

/// What the scripted model says to the real CLI.
const SCRIPT: &str = "[[rule]]\nname = \"echo\"\nreply.text = \"You said: {{last_user}}\"\n";

pub(crate) struct Rig<'w> {
    pub(crate) world: &'w World,
    pub(crate) daemon: Daemon<'w>,
    pub(crate) door: Door,
}

impl<'w> Rig<'w> {
    pub(crate) fn up(world: &'w World) -> Self {
        let daemon = world.daemon();
        let token = world.cli(["token", "create", "--scope", "admin"]).ok().trim().to_owned();
        let door = Door { addr: daemon.addr(), token };
        Self { world, daemon, door }
    }

    /// A session that can be talked to.
    pub(crate) fn session(&self) -> Session {
        let session = self.begin();
        session.wait_idle();
        session
    }

    pub(crate) fn begin(&self) -> Session {
        self.daemon.session(json!({ "sandbox": "off" }))
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.door)
    }

    pub(crate) fn daemon_pid(&self) -> i32 {
        self.daemon.pid()
    }

    /// Daemon, shims and guards; not what they drive.
    pub(crate) fn castras(&self) -> Vec<i32> {
        let mut pids = self.shims();
        pids.push(self.daemon_pid());
        pids
    }

    /// Shims and guards.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let own = |one: &castra_testkit::proc::Process| {
            let arguments = one.arguments();
            let program = arguments.split(' ').next().unwrap_or_default();
            program.ends_with("/castra-shim")
        };
        self.world.processes().into_iter().filter(own).map(|one| one.pid).collect()
    }

    /// Of the shims, those that read: a guard has no descriptor of a log.
    pub(crate) fn heaviest_shim(&self) -> Result<i32> {
        let weighed =
            self.shims().into_iter().filter_map(|pid| Some((proc::status(pid, "VmRSS").ok()?, pid)));
        weighed.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, pid)| pid).context("a shim")
    }
}

/// The number of the turn's `result` event.
pub(crate) fn result_seq(answer: &Value) -> Result<u64> {
    answer["result"]["seq"].as_u64().with_context(|| format!("a result in {answer}"))
}
