//! The supervisor about itself: health, metrics, requirements, retention, claude's versions.

use super::Supervisor;
use crate::engine::now;
use crate::host::Progress;
use crate::session::launch::Place;
use crate::{Error, Result};
use castra_proto::{ErrorCode, SessionId, SessionSpec, Timestamp};
use castra_store::StoreError;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what retention allows to go.
const HOUSE: Duration = Duration::from_secs(600);
/// Idempotency keys are promised for a day.
const KEYS_KEPT_S: i64 = 24 * 3600;
const SERVER_EVENTS_KEPT: u32 = 100_000;

impl Supervisor {
    /// claude's own answer to `initialize`: models, commands, agents, account.
    pub async fn info(&self, id: SessionId) -> Result<Value> {
        let row = self.row(id).await?;
        let run = self.engine.store.run(id, row.newest_run).await?;
        let info = run.and_then(|run| run.meta.get("initialize").cloned());
        info.ok_or_else(|| {
            Error::with_hint(
                ErrorCode::NotFound,
                "claude has not answered `initialize` yet",
                "try again when it is idle",
            )
        })
    }

    /// Whether this process, or one of its ancestors, belongs to a session: then it is an agent.
    ///
    /// # Errors
    /// When that cannot be told; whoever gets this is to be refused.
    pub fn session_of_pid(&self, pid: i32) -> std::io::Result<Option<SessionId>> {
        crate::host::session_of_pid(pid)
    }

    pub async fn health(&self) -> Result<Value> {
        let counts = self.engine.store.counts().await?;
        let sessions: serde_json::Map<_, _> =
            counts.sessions.iter().map(|(state, n)| (state.to_string(), json!(n))).collect();
        Ok(json!({
            "status": "ok",
            "version": self.engine.config.build,
            "pid": std::process::id(),
            "home": self.engine.config.home,
            "epoch": self.engine.epoch,
            "stream_id": self.engine.store.stream_id(),
            "driven": self.engine.actors(),
            "sessions": sessions,
        }))
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> Result<String> {
        let counts = self.engine.store.counts().await?;
        let mut out = String::from(
            "# HELP castra_sessions Sessions by the state of their newest run.\n# TYPE castra_sessions gauge\n",
        );
        for (state, n) in &counts.sessions {
            let _ = writeln!(out, "castra_sessions{{state=\"{state}\"}} {n}");
        }
        let gauges = [
            ("castra_events", "Events in the store.", counts.events),
            ("castra_messages_undelivered", "Messages that wait for claude.", counts.undelivered_messages),
            ("castra_commands_open", "Commands that are not done.", counts.open_commands),
            ("castra_database_bytes", "Size of the database file.", counts.database_bytes),
            ("castra_sessions_driven", "Sessions that this daemon drives.", self.engine.actors() as u64),
            (
                "castra_starts_free",
                "Starts that may begin now.",
                self.engine.admission.available_permits() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        Ok(out)
    }

    /// What retention would remove (`dry_run`), or has removed. Only ended sessions, and nothing that a
    /// caller brought.
    pub async fn prune(&self, dry_run: bool) -> Result<Vec<SessionId>> {
        let engine = &self.engine;
        let policy = &engine.config.retention;
        let ended = engine.store.ended_before(Timestamp(i64::MAX), u32::MAX).await?;
        let mut going = BTreeSet::new();
        let mut kept = Vec::new();
        for session in ended {
            let row = self.row(session.id).await?;
            let spec: SessionSpec = serde_json::from_str(&row.spec).unwrap_or_default();
            let age = now().seconds_since(session.updated_at);
            let old = |limit: Option<u64>| limit.is_some_and(|limit| age > limit as f64);
            if old(policy.max_age_s) || old(spec.ttl_s) {
                going.insert(session.id);
            } else {
                kept.push(session);
            }
        }
        // Oldest first: the oldest of those that are too many go.
        if let Some(max) = policy.max_sessions {
            let over = kept.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
            going.extend(kept.drain(..over).map(|session| session.id));
        }
        if let Some(max) = policy.max_bytes {
            let mut total = 0;
            for session in kept.iter().rev() {
                total += engine.store.size(session.id).await?.bytes;
                if total > max {
                    going.insert(session.id);
                }
            }
        }
        if !dry_run {
            for id in &going {
                super::lifecycle::remove_ended(engine, *id).await?;
            }
            while engine.store.purge(10_000).await? > 0 {}
        }
        Ok(going.into_iter().collect())
    }

    /// Retention and forgetting, from time to time, for as long as the supervisor lives.
    pub(super) fn keep_house(&self) {
        let engine = self.engine.clone();
        let house = self.clone();
        tokio::spawn(async move {
            let mut closing = engine.closing.subscribe();
            loop {
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => return,
                    () = tokio::time::sleep(HOUSE) => {}
                }
                engine.hubs.sweep();
                let before = Timestamp(now().0 - KEYS_KEPT_S * 1_000_000);
                let done = async {
                    house.prune(false).await?;
                    house.forget_outlived().await?;
                    engine.store.forget_before(before, SERVER_EVENTS_KEPT).await?;
                    Ok::<_, Error>(())
                };
                if let Err(error) = done.await {
                    tracing::warn!(%error, "housekeeping failed; it is tried again later");
                }
            }
        });
    }

    /// A line per requirement: `{name, ok, detail, remedy}`.
    pub async fn doctor(&self) -> Result<Vec<Value>> {
        let engine = &self.engine;
        let probe = engine.host.probe().await?;
        let line = |name: &str, ok: bool, detail: String, remedy: &str| json!({"name": name, "ok": ok, "detail": detail, "remedy": (!ok).then_some(remedy)});
        let claude = match engine.provision.resolve(engine.host.as_ref(), None).await {
            Ok(cli) => line("claude", true, format!("{} {}", cli.version, cli.path), ""),
            Err(error) => line("claude", false, error.to_string(), "castra claude install"),
        };
        let auto = castra_proto::spec::SandboxMode::Auto;
        let sandbox = crate::sandbox::decide(auto, engine.sandbox().await?, false)?;
        let confined = sandbox.wrap.is_some();
        let orphans = super::leftovers::orphans(engine).await?;
        let reason = sandbox.shown.reason.unwrap_or_else(|| "bubblewrap".into());
        Ok(vec![
            claude,
            line("data folder", true, probe.home.clone(), ""),
            line(
                "disk",
                probe.disk_free > 1 << 30,
                format!("{} MiB free", probe.disk_free >> 20),
                "make room: sessions stop when the disk is full",
            ),
            line(
                "tmux",
                true,
                probe.programs.get("tmux").cloned().unwrap_or_else(|| "not there (optional)".into()),
                "",
            ),
            line("sandbox", confined, reason, crate::sandbox::NEXT),
            line(
                "sessions",
                orphans.is_empty(),
                if orphans.is_empty() { "all are in the database".into() } else { orphans.join(", ") },
                "the database does not know these: they are newer than a backup that was restored, or were removed by \
                 halves; look into them, then remove the folders",
            ),
            line("daemon", true, format!("pid {}, {}", std::process::id(), engine.config.build), ""),
            line("clock", now().0 > 1_700_000_000_000_000, now().to_string(), "set the clock"),
        ])
    }

    /// What is wrong with the database, one sentence each.
    pub async fn check(&self) -> Result<Vec<String>> {
        Ok(self.engine.store.check().await?)
    }

    /// Errors: `invalid_request` when no file can be made there, `conflict` when there is one.
    pub async fn backup(&self, path: &Path) -> Result<()> {
        self.engine.store.backup(path).await.map_err(|error| match &error {
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Error::with_hint(ErrorCode::DiskFull, error.to_string(), "name a file on a disk with room")
            }
            // The store itself was read: what failed is the place that the caller named.
            StoreError::Io { .. } => Error::with_hint(
                ErrorCode::InvalidRequest,
                error.to_string(),
                "name a new file in an existing folder that the daemon may write",
            ),
            StoreError::BackupExists { .. } => {
                Error::with_hint(ErrorCode::Conflict, error.to_string(), "name a new file")
            }
            _ => error.into(),
        })
    }

    /// claude executables: `{path, version, source: configured|path|home|cache, used}`.
    pub async fn claude_versions(&self) -> Result<Vec<Value>> {
        let used = self.engine.provision.resolve(self.engine.host.as_ref(), None).await.ok();
        let list = self.engine.provision.list(self.engine.host.as_ref()).await?;
        Ok(list
            .into_iter()
            .map(|cli| {
                let is_used = used.as_ref().is_some_and(|used| used.path == cli.path);
                let (version, fault) = match cli.cli {
                    Ok(found) => (Some(found.version), None),
                    Err(fault) => (None, Some(fault)),
                };
                json!({"path": cli.path, "version": version, "fault": fault, "source": cli.source.as_str(), "used": is_used})
            })
            .collect())
    }

    /// Installs one into the cache, with progress lines.
    pub async fn claude_install(
        &self,
        version: Option<&str>,
        progress: tokio::sync::mpsc::Sender<String>,
    ) -> Result<Value> {
        let say: Progress = Arc::new(move |line| {
            // A reader who is behind misses lines; the installation does not wait for it.
            let _ = progress.try_send(String::from_utf8_lossy(&line.text).into_owned());
        });
        let cli = self.engine.provision.install(self.engine.host.as_ref(), version, Some(say)).await?;
        Ok(json!({"path": cli.path, "version": cli.version}))
    }

    pub async fn claude_remove(&self, version: &str) -> Result<()> {
        let mut used = BTreeSet::new();
        for live in self.engine.store.live_sessions().await? {
            let spec = self.engine.spec(live.session.id, &live.session.spec).await?;
            let place = Place::new(&self.engine.probe, live.session.id, &spec);
            let link = format!("{}/home/.local/bin/claude", place.session_dir);
            if let Some(path) = self.engine.real_path(&link).await? {
                used.insert(path);
            }
        }
        self.engine.provision.remove(self.engine.host.as_ref(), version, &used).await
    }
}
