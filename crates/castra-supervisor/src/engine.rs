//! What all sessions share: store, hubs, host, admission; and who drives which session.

use crate::config::Config;
use crate::host::Host;
use crate::provision::Provision;
use crate::sandbox::Paths;
use crate::sandbox::{Decision, SandboxProbe, Sandboxing};
use crate::session::drive::drive;
use crate::session::hub::{Hub, Hubs};
use crate::session::launch::Place;
use crate::supervisor::pack::Packing;
use crate::task::hub::TaskHub;
use crate::team::hub::TeamHub;
use crate::trouble::Troubles;
use crate::{Error, Result};
use castra_proto::shim::relay::{Exec, Probe};
use castra_proto::{SessionId, SessionSpec, TaskId, Timestamp};
use castra_store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};

/// Between two tries at a session that could not be driven: at first, and doubled up to the last.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRY_LATER: Duration = Duration::from_secs(8);

/// The inside of a supervisor.
pub(crate) struct Engine {
    pub config: Config,
    pub store: Store,
    pub hubs: Arc<Hubs>,
    pub host: Arc<dyn Host>,
    pub probe: Probe,
    pub provision: Provision,
    sandbox: Sandboxing,
    /// This server, in owner columns.
    pub owner: String,
    /// Taken from the store when this supervisor opened; fences every earlier one.
    pub epoch: u64,
    /// As many starts at once as there are cores.
    pub admission: Semaphore,
    /// Sessions that have an actor; `true`: look again before it ends.
    actors: Mutex<HashMap<SessionId, bool>>,
    pub closing: watch::Sender<bool>,
    pub troubles: Troubles,
    pub packing: Packing,
    pub tasks: Arc<TaskHub>,
    pub teams: TeamHub,
    pub hooks: Arc<crate::task::hooks::Desk>,
}

impl Engine {
    /// A task's commit is on disk: whoever waits for it, or for the server-wide sequence, is woken. `shifted`: it is in
    /// another state now, which others in the queue may wait for.
    pub(crate) fn task_committed(&self, task: TaskId, shifted: bool, server_head: Option<u64>) {
        self.tasks.committed(task, shifted);
        if let Some(seq) = server_head {
            self.hubs.announced(seq);
        }
    }

    pub(crate) fn new(
        config: Config,
        store: Store,
        hubs: Arc<Hubs>,
        host: Arc<dyn Host>,
        probe: Probe,
        epoch: u64,
    ) -> Self {
        let starts = config.starts.unwrap_or(probe.cores as usize).max(1);
        Self {
            provision: Provision::new(config.claude.clone(), config.inherited.clone()),
            owner: probe.machine_id.clone(),
            admission: Semaphore::new(starts),
            sandbox: Sandboxing::default(),
            actors: Mutex::default(),
            closing: watch::Sender::new(false),
            troubles: Troubles::default(),
            packing: Packing::default(),
            tasks: Arc::default(),
            teams: TeamHub::default(),
            hooks: Arc::default(),
            config,
            store,
            hubs,
            host,
            probe,
            epoch,
        }
    }

    pub(crate) async fn sandbox(&self) -> Result<&SandboxProbe> {
        Ok(self.sandbox.probe(self.host.as_ref()).await?)
    }

    /// What confines a session of this spec here.
    pub(crate) async fn confine(&self, spec: &SessionSpec, place: &Place) -> Result<(Decision, Paths)> {
        let paths = Paths {
            castra_home: self.probe.home.clone(),
            work: format!("{}/work", place.session_dir),
            home: place.home.clone(),
            user_home: Some(self.probe.user_home.clone()),
            workdir: spec.workdir.clone(),
            add_dirs: spec.add_dirs.clone(),
            files: Some(place.files_dir.clone()),
            ..Paths::default()
        };
        Ok((crate::sandbox::decide(spec.sandbox, self.sandbox().await?, paths.opens_user_home())?, paths))
    }

    /// A path of the host with its links resolved.
    pub(crate) async fn real_path(&self, path: &str) -> Result<Option<String>> {
        let exec = Exec {
            argv: ["realpath", "-e", "--", path].map(str::to_owned).to_vec(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            cwd: "/".into(),
            timeout_ms: 10_000,
        };
        let end = self.host.exec(exec, bytes::Bytes::new(), None).await?;
        Ok((end.code == Some(0)).then(|| end.stdout.trim_end_matches('\n').to_owned()))
    }

    /// The folders that were named lead where they led when they were named: another session's agent may have
    /// put a link in their place since, and the sandbox would open what it points to.
    pub(crate) async fn still_there(&self, named: impl Iterator<Item = &String>) -> Result<()> {
        for path in named {
            if self.real_path(path).await?.as_ref() != Some(path) {
                return Err(Error::with_hint(
                    castra_proto::ErrorCode::InvalidRequest,
                    format!("{path} is gone, or a link leads elsewhere now"),
                    "put the folder back, or start a new session in another one",
                ));
            }
        }
        Ok(())
    }

    /// The session's hub, with a head that is not behind the store.
    pub(crate) async fn hub(&self, id: SessionId) -> Result<Arc<Hub>> {
        let hub = self.hubs.get(id);
        // Read after the hub is registered: what is committed from now on moves the head by itself.
        let head = self.store.head(id).await?.ok_or_else(|| Error::session_not_found(&id.to_string()))?;
        hub.head.send_if_modified(|now| {
            let behind = now.seq < head;
            now.seq = now.seq.max(head);
            behind
        });
        Ok(hub)
    }

    /// Makes sure that somebody drives this session's newest run, and that they look at the store.
    pub(crate) fn drive(self: &Arc<Self>, id: SessionId) {
        {
            let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(again) = actors.get_mut(&id) {
                *again = true;
                drop(actors);
                self.hubs.get(id).poke.notify_one();
                return;
            }
            actors.insert(id, false);
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let mut pause = TRY_AGAIN;
            loop {
                let driven = drive(&engine, id).await;
                if engine.is_done(id, driven) {
                    break;
                }
                if !driven {
                    // A full disk, a host that does not answer: begun again from the store.
                    tokio::time::sleep(pause).await;
                    pause = TRY_LATER.min(pause * 2);
                } else {
                    pause = TRY_AGAIN;
                }
            }
        });
    }

    pub(crate) fn has_actor(&self, id: SessionId) -> bool {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    pub(crate) fn actors(&self) -> usize {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// An actor is about to end. False: a row came meanwhile, it must look once more. Under the lock,
    /// so that no poke falls between its last look and its end.
    fn is_done(&self, id: SessionId, driven: bool) -> bool {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.closing.borrow() {
            actors.remove(&id);
            return true;
        }
        match actors.get_mut(&id) {
            Some(again) if *again || !driven => {
                *again = false;
                false
            }
            _ => {
                actors.remove(&id);
                true
            }
        }
    }

    /// The session's spec with its secret values.
    pub(crate) async fn spec(&self, id: SessionId, redacted: &str) -> Result<SessionSpec> {
        let secrets = self.store.secrets(id).await?;
        crate::redact::restore(redacted, secrets)
    }
}

/// The wall clock; what is ordered by it is for people only.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    #[cfg(feature = "failpoints")]
    let now = now.saturating_add(crate::failpoint::clock_ahead());
    Timestamp(now)
}

pub(crate) fn json_text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::new(castra_proto::ErrorCode::Internal, format!("a value cannot be stored: {error}"))
    })
}
