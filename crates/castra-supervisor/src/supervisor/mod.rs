//! The supervisor: every call that a surface may make.

mod admin;
mod blocks;
mod control;
mod definitions;
mod files;
mod inputs;
mod leftovers;
pub(crate) mod lifecycle;
mod logs;
pub(crate) mod messages;
pub(crate) mod pack;
pub(crate) mod permissions;
mod schedules;
pub(crate) mod start;
mod task_group;
mod task_new;
mod task_removal;
mod task_spec;
mod task_tree;
mod tasks;
mod team_talk;
mod teams;
mod terminal;
mod tokens;
mod transcripts;
mod uploads;

pub use files::upload_scope;

use crate::engine::{Engine, now};
use crate::host::{Host, LocalHost};
use crate::session::hub::Hubs;
use crate::{Config, Error, Result, ServerSubscription, Subscription, shown};
use castra_proto::api::{Page, Scope, ServerEvent, SessionPatch};
use castra_proto::{ErrorCode, Event, Session, SessionId};
use castra_store::{Cursor, Found, Observer, Options, SessionFilter, SessionRow, Store};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::value::RawValue;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A page of events ends before it is this large, in bytes.
const PAGE_BYTES: usize = 4 << 20;
/// How long the lock of a data folder may be held by somebody who is about to let go.
const LOCK_GRACE: Duration = Duration::from_secs(1);
const PAGE_EVENTS: usize = 10_000;
const PAGE_SESSIONS: usize = 100;

/// Who asks: recorded with every decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// e.g. `cli`, `token:<id>`.
    pub by: String,
    pub scope: Scope,
}

impl Caller {
    /// The program that embeds the supervisor.
    pub fn embedded() -> Self {
        Self { by: "embedded".into(), scope: Scope::Admin }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Ended ones too.
    pub all: bool,
    pub label: Option<(String, String)>,
    pub cursor: Option<String>,
    pub limit: Option<usize>,
    pub only: Option<SessionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    StreamJson,
    Transcript,
    Json,
    Markdown,
}

/// A cheap handle; clones share one supervisor.
#[derive(Clone)]
pub struct Supervisor {
    pub(crate) engine: Arc<Engine>,
    /// Held for as long as any handle lives: one daemon to a data folder.
    _lock: Arc<OwnedFd>,
}

impl Supervisor {
    /// Opens the store, takes the data folder's lock, and recovers every session that was alive.
    ///
    /// Errors: `conflict` when another supervisor has the folder; those of the store.
    pub async fn open(mut config: Config) -> Result<Self> {
        // Without links: the sandbox masks castra's own files by this name.
        if let Ok(real) = std::fs::canonicalize(&config.home) {
            config.home = real;
        }
        let lock = lock(&config.home).await?;
        let host: Arc<dyn Host> = Arc::new(LocalHost::new(&config.home)?);
        let mut probe = host.probe().await?;
        if let Some(home) = config.user_home.as_ref().and_then(|home| home.to_str()) {
            home.clone_into(&mut probe.user_home);
        }
        // Without links too, wherever it is opened or hidden.
        if let Some(real) = std::fs::canonicalize(&probe.user_home)
            .ok()
            .and_then(|real| real.into_os_string().into_string().ok())
        {
            probe.user_home = real;
        }
        let hubs = Arc::new(Hubs::default());
        let observer = hubs.clone();
        let store = Store::open(
            &config.home,
            Options { on_commit: Some(Observer::new(move |batch| observer.committed(batch))) },
        )
        .await?;
        // Every earlier owner of this host is fenced from here on.
        let epoch = store.take_epoch("local", &probe.machine_id, now()).await?;
        if let Err(error) = store.sweep_blobs().await {
            tracing::warn!(%error, "contents that no task has are still there");
        }
        let (server_head, _) = store.server_head().await?;
        hubs.server.send_replace(server_head);
        let engine = Arc::new(Engine::new(config, store, hubs, host, probe, epoch));
        let supervisor = Self { engine, _lock: Arc::new(lock) };
        supervisor.recover().await?;
        tokio::spawn(leftovers::settle(supervisor.engine.clone()));
        tokio::spawn(pack::keep(supervisor.engine.clone()));
        supervisor.read_limits().await?;
        tokio::spawn(crate::task::queue::keep(supervisor.clone()));
        tokio::spawn(crate::task::clock::keep(supervisor.clone()));
        tokio::spawn(crate::task::hooks::keep(supervisor.clone()));
        supervisor.keep_house();
        Ok(supervisor)
    }

    /// Starting up is recovering: each run that was not over is joined, or found to be over.
    async fn recover(&self) -> Result<()> {
        for live in self.engine.store.live_sessions().await? {
            self.engine.drive(live.session.id);
        }
        Ok(())
    }

    /// Ends the supervisor's own tasks. Sessions live on.
    pub async fn close(&self) {
        self.engine.closing.send_replace(true);
        while self.engine.actors() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.engine.store.close().await;
    }

    /// Resolves an id, a unique prefix (4 characters or more) or a name.
    pub async fn resolve(&self, reference: &str) -> Result<SessionId> {
        // Whoever is driven is there: no trip to the store for what every call on a live session asks.
        if let Some(id) = reference.parse().ok().filter(|id| self.engine.has_actor(*id)) {
            return Ok(id);
        }
        Ok(the_one(
            self.engine.store.find(reference).await?,
            reference,
            "sessions",
            Error::session_not_found,
        )?
        .id)
    }

    pub(crate) async fn row(&self, id: SessionId) -> Result<SessionRow> {
        self.engine.store.session(id).await?.ok_or_else(|| Error::session_not_found(&id.to_string()))
    }

    async fn shown(&self, row: SessionRow) -> Result<Session> {
        use castra_proto::api::MessageState::{Queued, Written};
        let store = &self.engine.store;
        let waiting = store.messages(row.id, &[Queued, Written]).await?.len();
        let decided = store.open_commands(row.id).await?;
        let trouble = self.engine.troubles.of(row.id);
        let mut session = shown::session(row, waiting, &decided, now())?;
        session.flags.trouble = trouble;
        Ok(session)
    }

    /// Newest first.
    pub async fn list(&self, filter: ListFilter) -> Result<Page<Session>> {
        if let Some(only) = filter.only {
            let items = match self.engine.store.session(only).await? {
                Some(row) => vec![self.shown(row).await?],
                None => Vec::new(),
            };
            return Ok(Page { items, next: None });
        }
        let cursor = read_cursor(filter.cursor.as_deref())?;
        let limit = filter.limit.unwrap_or(PAGE_SESSIONS).clamp(1, 1000) as u32;
        let wanted = SessionFilter { all: filter.all, label: filter.label, ..SessionFilter::default() };
        let rows = self.engine.store.sessions(&wanted, cursor, limit).await?;
        let mut items = Vec::with_capacity(rows.items.len());
        for row in rows.items {
            items.push(self.shown(row).await?);
        }
        Ok(Page { items, next: rows.next.map(|next| next.to_string()) })
    }

    pub async fn show(&self, id: SessionId) -> Result<Session> {
        let row = self.row(id).await?;
        self.shown(row).await
    }

    /// Changes what can be changed while it lives: name and labels here, the rest by asking claude.
    pub async fn patch(&self, id: SessionId, patch: SessionPatch, caller: &Caller) -> Result<Session> {
        control::patch(self, id, patch, caller).await?;
        self.show(id).await
    }

    /// A page that ends at `limit` or 4 MB.
    pub async fn events(&self, id: SessionId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let head = self.row(id).await?.head;
        if self.is_beyond(id, after, head).await? {
            return Err(self.foreign(after));
        }
        let limit = limit.clamp(1, PAGE_EVENTS) as u32;
        let rows = self.engine.store.events(id, after, limit, PAGE_BYTES).await?;
        rows.into_iter()
            .map(|row| {
                let data = String::from_utf8(row.data.to_vec())
                    .ok()
                    .and_then(|text| RawValue::from_string(text).ok());
                Ok(Event {
                    seq: row.seq,
                    at: row.at,
                    session_id: id,
                    run: row.run,
                    turn: row.turn,
                    kind: row.kind,
                    data: data.ok_or_else(|| {
                        Error::new(
                            ErrorCode::Internal,
                            format!("event {} of session {id} is not JSON", row.seq),
                        )
                    })?,
                    raw: row.raw.as_deref().map(crate::frame::base64),
                })
            })
            .collect()
    }

    /// Whether this stream does not have the place yet. A commit is on disk, and may be read, a moment before the head
    /// that is kept in memory follows it.
    async fn is_beyond(&self, id: SessionId, after: u64, head: u64) -> Result<bool> {
        Ok(after > head && self.engine.store.event(id, after).await?.is_none())
    }

    /// # Errors
    /// `gone` for a place that this stream does not have yet: it belongs to one that is no more.
    pub async fn subscribe(&self, id: SessionId, after: u64) -> Result<Subscription> {
        let hub = self.engine.hub(id).await?;
        let head = hub.head.borrow().seq;
        if self.is_beyond(id, after, head).await? {
            return Err(self.foreign(after));
        }
        Ok(Subscription::new(hub, self.engine.store.clone(), after))
    }

    /// Whether a cursor with this mark is one of this database's stream: of a session, or of the server. A stream
    /// that was restored from a backup shares with the one before what the backup holds, and nothing behind it.
    ///
    /// # Errors
    /// `gone`: it is not, and what it stands for may be another event here.
    pub fn admit(&self, session: Option<SessionId>, seq: u64, mark: Option<&str>) -> Result<()> {
        let store = &self.engine.store;
        if mark == store.mark().as_deref() || seq <= store.shared_until(session) {
            return Ok(());
        }
        Err(self.foreign(seq))
    }

    /// What cursors of this stream bear behind their number, unless the database was never a backup.
    pub fn mark(&self) -> Option<String> {
        self.engine.store.mark()
    }

    fn foreign(&self, seq: u64) -> Error {
        Error::with_hint(
            ErrorCode::Gone,
            format!("{seq} is a place in a stream that is no more: the database was restored from a backup"),
            "begin again at 0",
        )
    }

    /// The server-wide sequence from `after`, or from now.
    pub async fn subscribe_server(&self, after: Option<u64>) -> Result<ServerSubscription> {
        let (head, oldest) = self.engine.store.server_head().await?;
        let after = after.unwrap_or(head);
        if after > head || after + 1 < oldest {
            return Err(Error::with_hint(
                ErrorCode::Gone,
                format!("entry {after} of the server's sequence is gone"),
                "read the sessions anew and follow from now",
            ));
        }
        Ok(ServerSubscription::new(&self.engine.hubs, self.engine.store.clone(), after))
    }

    pub async fn server_events(&self, after: u64, limit: usize) -> Result<Vec<ServerEvent>> {
        Ok(self.engine.store.server_events(after, limit.clamp(1, PAGE_EVENTS) as u32).await?)
    }
}

/// One supervisor to a data folder; the kernel lets go of the lock when the process is gone. A child that a killed
/// daemon had forked and that has not executed its program yet is that process too, for a moment.
async fn lock(home: &std::path::Path) -> Result<OwnedFd> {
    let path = home.join("lock");
    let failed = |error: rustix::io::Errno| {
        Error::with_hint(
            ErrorCode::Internal,
            format!("{}: {error}", path.display()),
            "CASTRA_HOME must be an existing folder of your own",
        )
    };
    let file = rustix::fs::open(
        &path,
        OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(failed)?;
    let deadline = tokio::time::Instant::now() + LOCK_GRACE;
    let locked = loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::with_hint(
            ErrorCode::Conflict,
            format!("another castra daemon uses {}", home.display()),
            "use that one, end it with `castra down`, or set CASTRA_HOME to another folder",
        )),
        Err(error) => Err(failed(error)),
    }
}

/// What a reference stands for. `several`: of what there could be more than one.
fn the_one<R, I: std::fmt::Display>(
    found: Found<R, I>,
    reference: &str,
    several: &str,
    none: impl FnOnce(&str) -> Error,
) -> Result<Box<R>> {
    match found {
        Found::One(row) => Ok(row),
        Found::None => Err(none(reference)),
        Found::Ambiguous(ids) => Err(Error::with_hint(
            ErrorCode::Conflict,
            format!("{reference:?} could be any of {} {several}", ids.len()),
            format!(
                "write more of it: {}",
                ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// Where a listing goes on, as the page before said it.
fn read_cursor(text: Option<&str>) -> Result<Option<Cursor>> {
    text.map(str::parse).transpose().map_err(|_| {
        Error::with_hint(ErrorCode::InvalidRequest, "this is not a cursor", "pass `next` of the page before")
    })
}
