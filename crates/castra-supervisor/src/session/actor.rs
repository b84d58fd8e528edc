//! The actor of one session: it alone writes to its newest run, and commits what that run says.
//!
//! It follows the shim's log, decodes, folds, commits, and only then acts. Whatever it knows is in the
//! store or in the log, so that it can be killed at any point and begun again.

use super::commands::Commands;
use super::finish::Ending;
use super::forward::Forward;
use super::hub::Hub;
use super::stop::Deadlines;
use super::tty::Tty;
use super::view::{Added, Given, Offers, View};
use crate::engine::{Engine, json_text, now};
use crate::failpoint::failpoint;
use crate::host::{ConnError, HostError, Join, RunDir, ShimMsg, ShimReader, ShimWriter};
use crate::{Error, Result};
use castra_claude::decode::Decoder;
use castra_claude::launch::initialize_id;
use castra_proto::shim::relay::RelayError;
use castra_proto::spec::Mode;
use castra_proto::{RunId, RunState, SessionId, SessionSpec, Timestamp};
use castra_store::{Change, Commit, RunUpdate, SessionUpdate};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// Bytes of records that are decoded before what they say is committed.
const BATCH_BYTES: usize = 2 << 20;
/// Between two looks at a start that an earlier daemon has begun.
const STARTING: Duration = Duration::from_millis(10);
/// What claude says in the middle of a turn comes line by line: lines of this long are one transaction and one sync.
/// Whatever changes a state or has somebody waiting for it is committed at once, and partials do not wait.
const SOON: Duration = Duration::from_millis(5);
/// Bytes of records with which a transaction is large enough not to wait for more.
const SOON_BYTES: usize = 16 << 10;
/// How long a change that nobody waits for may stay uncommitted.
const LAZY: Duration = Duration::from_millis(50);
/// Acknowledge, at the latest, after this many bytes without an event (a flood of deltas).
const QUIET_BYTES: usize = 8 << 20;

pub(crate) struct Actor<'a> {
    pub engine: &'a Arc<Engine>,
    pub hub: Arc<Hub>,
    pub id: SessionId,
    pub spec: SessionSpec,
    pub view: View,
    pub run: Run,
    pub given: Given,
    pub decoder: Decoder,
    /// Of a session on a terminal.
    pub tty: Option<Tty>,
    /// Folded and not yet committed.
    pub added: Added,
    pub changes: Vec<Change>,
    pub commands: Commands,
    pub deadlines: Deadlines,
    pub writer: Option<ShimWriter>,
    /// Held from the start until claude is ready, so that starts go a few at a time.
    pub permit: Option<SemaphorePermit<'a>>,
    /// The last record that the log had when it was joined, until it is decoded. Nothing is written before:
    /// a choice made from what the store knew could be made a second time, and differently.
    pub behind: Option<u64>,
    /// The decoder has not come back to where it stood: what it has open is older than what subscribers were told.
    pub replaying: bool,
    /// The last actor of this session has failed, and this one has not shown yet that it does better.
    pub troubled: bool,
    /// While the log is ahead of the store: what the store cannot know if it was restored from a backup.
    pub forward: Option<Forward>,
    /// As the session's row has it, once this actor has written it.
    cwd: Option<String>,
    stored: Stored,
    /// When an end line of a task's agent counts, unless something follows it.
    pub end_line: Option<Instant>,
    /// When the uncommitted must be committed.
    lazy: Option<Instant>,
    quiet_bytes: usize,
    /// Set: the run is over, and this is how.
    pub ending: Option<Ending>,
}

/// The derived state as the store has it: what has not changed is not written again.
struct Stored {
    view: String,
    offers: Offers,
}

/// The run that is driven.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub n: u32,
    pub id: RunId,
    pub dir: RunDir,
    pub state: RunState,
    /// The record up to which all is committed.
    pub cursor: u64,
    pub hold: Option<u64>,
    /// The last record that was decoded.
    pub decoded: u64,
    pub meta: serde_json::Value,
}

impl<'a> Actor<'a> {
    pub(crate) async fn load(engine: &'a Arc<Engine>, id: SessionId) -> Result<Option<Actor<'a>>> {
        let Some(row) = engine.store.session(id).await? else { return Ok(None) };
        let Some(run) = engine.store.run(id, row.newest_run).await? else { return Ok(None) };
        if run.state.is_final() {
            return Ok(None);
        }
        let view = crate::shown::view(&row)?;
        let spec = engine.spec(id, &row.spec).await?;
        let stored = Stored { view: row.view, offers: view.offers.clone() };
        Ok(Some(Actor {
            hub: engine.hub(id).await?,
            id,
            given: Given { init_id: initialize_id(run.id), permission_timeout_s: spec.permission_timeout_s },
            deadlines: Deadlines::new(&spec, &view),
            tty: (spec.mode == Mode::Terminal).then(Tty::new),
            spec,
            view,
            run: Run {
                n: run.n,
                id: run.id,
                dir: RunDir(run.dir),
                state: run.state,
                cursor: run.cursor,
                hold: run.hold,
                decoded: run.cursor,
                meta: run.meta,
            },
            decoder: Decoder::new(),
            added: Added::default(),
            changes: Vec::new(),
            commands: Commands::default(),
            writer: None,
            permit: None,
            behind: None,
            replaying: false,
            troubled: engine.troubles.of(id).is_some(),
            forward: None,
            cwd: None,
            stored,
            end_line: None,
            lazy: None,
            quiet_bytes: 0,
            ending: None,
            engine,
        }))
    }

    /// From wherever the run stands to its end.
    pub(crate) async fn live(&mut self) -> Result<()> {
        self.load_commands().await?;
        let mut reader = match self.come_up().await? {
            Some(reader) => reader,
            None => return Ok(()),
        };
        loop {
            match self.follow(&mut reader).await {
                Ok(()) => return Ok(()),
                Err(Error::Host(HostError::Conn(ConnError::Refused(reason)))) => {
                    // Somebody with a higher epoch drives this run now.
                    warn!(session = %self.id, ?reason, "the shim does not listen to this supervisor");
                    return Ok(());
                }
                Err(Error::Host(error)) => {
                    debug!(session = %self.id, %error, "the shim's connection is gone");
                    match self.rejoin().await? {
                        Some(again) => reader = again,
                        None => return Ok(()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the run if it was not, and joins it. None: it is over already.
    async fn come_up(&mut self) -> Result<Option<ShimReader>> {
        if matches!(self.run.state, RunState::Queued | RunState::Starting) {
            loop {
                let state = self.engine.host.tree_state(&self.run.dir).await?;
                match (state.meta, state.locked) {
                    (None, false) => return self.start().await,
                    // The last daemon's start goes on without it, and will say who is there or let go.
                    (None, true) => tokio::time::sleep(STARTING).await,
                    (Some(_), _) => break,
                }
            }
        }
        self.rejoin().await
    }

    /// Joins a run whose shim should be there. None: it is over, and that is on disk.
    pub(crate) async fn rejoin(&mut self) -> Result<Option<ShimReader>> {
        loop {
            let join = Join { run: self.run.id.0, epoch: self.engine.epoch, last: self.run.cursor };
            match self.engine.host.connect(&self.run.dir, join).await {
                Ok(conn) => {
                    let last = conn.hello.last;
                    let (reader, mut writer) = conn.split();
                    // What is uncommitted is decoded again: the log is the journal in front of the store.
                    self.begin_again().await?;
                    let from = self.run.hold.unwrap_or(self.run.cursor + 1).min(self.run.cursor + 1);
                    let from = self.tty_begin(from).await?;
                    self.replaying = from <= self.run.cursor;
                    writer.follow(from).await?;
                    failpoint!("joined");
                    self.writer = Some(writer);
                    self.behind = (last > self.run.decoded).then_some(last);
                    self.forward = None;
                    if self.behind.is_some() {
                        self.look_forward().await?;
                    }
                    self.log_waits();
                    self.deadlines.joined(self.view.ready);
                    return Ok(Some(reader));
                }
                Err(HostError::Relay(RelayError::NoShim { .. }) | HostError::Conn(ConnError::Closed)) => {
                    if self.vanished().await? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Forgets what was folded and not committed.
    async fn begin_again(&mut self) -> Result<()> {
        if self.added.events.is_empty() && self.changes.is_empty() && self.run.decoded == self.run.cursor {
            self.decoder = Decoder::new();
            return Ok(());
        }
        if let Some(row) = self.engine.store.session(self.id).await? {
            self.view = crate::shown::view(&row)?;
            self.stored = Stored { view: row.view, offers: self.view.offers.clone() };
        }
        self.decoder = Decoder::new();
        self.added = Added::default();
        self.changes.clear();
        self.run.decoded = self.run.cursor;
        self.load_commands().await
    }

    async fn follow(&mut self, reader: &mut ShimReader) -> Result<()> {
        if self.behind.is_none() {
            self.kick().await?;
            self.well();
        }
        loop {
            let deadline = self.next_deadline();
            let hub = self.hub.clone();
            tokio::select! {
                biased;
                message = reader.next() => self.take(message?, reader).await?,
                () = hub.screen.hands.notified() => self.tty_hands().await?,
                () = hub.poke.notified() => {
                    self.load_commands().await?;
                    self.pump().await?;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if self.lazy.is_some_and(|at| at <= Instant::now()) {
                        self.commit().await?;
                        self.act().await?;
                    }
                    self.log_settles();
                    if !self.added.events.is_empty() {
                        self.commit().await?;
                    }
                    self.tty_look().await?;
                    self.on_deadline().await?;
                }
            }
            if self.ending.is_some() {
                return self.finish().await;
            }
            self.tty_rest().await;
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.lazy, self.end_line, self.tty_next(), self.deadlines.next(&self.view)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one message of the shim's and all that is there behind it, then commits once.
    async fn take(&mut self, message: ShimMsg, reader: &mut ShimReader) -> Result<()> {
        let mut bytes = self.take_one(message);
        while bytes < BATCH_BYTES && self.ending.is_none() {
            // Only what has arrived: the commit waits for nobody.
            match reader.try_next()? {
                Some(message) => bytes += self.take_one(message),
                None => break,
            }
        }
        self.quiet_bytes += bytes;
        self.hub.screen.rest();
        if self.ending.is_some() {
            return Ok(());
        }
        failpoint!("decoded");
        if self.added.events.is_empty() {
            if self.quiet_bytes >= QUIET_BYTES {
                self.commit().await?;
            } else if self.is_dirty() {
                self.lazy.get_or_insert_with(|| Instant::now() + LAZY);
            }
            self.show_open();
        } else if self.may_wait() {
            let soon = Instant::now() + SOON;
            self.lazy = Some(self.lazy.map_or(soon, |at| at.min(soon)));
            return Ok(());
        } else {
            self.commit().await?;
        }
        if self.behind.take_if(|last| *last <= self.run.decoded).is_some() {
            self.forward = None;
            self.kick().await?;
            self.well();
            return Ok(());
        }
        self.act().await
    }

    fn take_one(&mut self, message: ShimMsg) -> usize {
        match message {
            ShimMsg::Records(records) => records.into_iter().map(|record| self.record(record)).sum(),
            ShimMsg::Refused(refused) => {
                self.refused(refused);
                0
            }
            ShimMsg::Status(status) => {
                self.degraded(status.degraded);
                0
            }
            // The log's own `input` note is what counts, since it is there after a crash too.
            ShimMsg::Written { .. } => 0,
            ShimMsg::Unsupported { kind } => {
                warn!(session = %self.id, kind, "an older shim does not know this command");
                0
            }
        }
    }

    /// Whether what is folded may wait for what comes next. Nothing is done about it before it is committed.
    fn may_wait(&self) -> bool {
        !self.added.changed
            && self.added.effects.is_empty()
            && self.behind.is_none()
            && self.quiet_bytes < SOON_BYTES
            && self.lazy.is_none_or(|at| at > Instant::now())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.changes.is_empty() || self.added.changed
    }

    /// One transaction: events, derived state, cursor, and what follows for messages and commands.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        failpoint!("commit.before");
        self.settle_effects();
        let at = now();
        let mut commit = Commit::new(self.id, at).fenced_by(self.engine.epoch);
        commit.events = std::mem::take(&mut self.added.events);
        commit.changes = std::mem::take(&mut self.changes);
        let view = json_text(&self.view)?;
        let offers =
            (self.view.offers != self.stored.offers).then(|| json_text(&self.view.offers)).transpose()?;
        commit.changes.push(Change::Session(SessionUpdate {
            view: (view != self.stored.view).then(|| view.clone()),
            offers,
            cwd: self.view.cwd.clone().filter(|cwd| self.cwd.as_ref() != Some(cwd)),
            ..SessionUpdate::default()
        }));
        // A decoder that is not back where it stood holds nothing yet, and what it will hold must stay in the log.
        let hold = if self.replaying { self.run.hold } else { self.hold() };
        commit.changes.push(Change::Run(RunUpdate {
            n: self.run.n,
            state: Some(self.view.state),
            cursor: Some(self.run.decoded),
            hold: Some(hold),
            ..RunUpdate::default()
        }));
        if std::mem::take(&mut self.added.changed) {
            commit = commit.server_event("session_state", crate::shown::brief(&self.view));
        }
        // Before the event that closes a block is to be seen: whoever reads it is not sent that block behind it.
        self.close_open();
        let result_at = commit.events.iter().rposition(|event| event.kind.as_str() == "result");
        let committed = self.engine.store.commit(commit).await?;
        if committed.duplicate_of.is_some() {
            // A message that was found in the log was sent again meanwhile: begun again, it is known.
            return Err(Error::new(castra_proto::ErrorCode::Conflict, "a message is there already"));
        }
        failpoint!("commit.after");
        if let (Some(at), Some(result)) = (result_at, &mut self.view.turn.result) {
            // For a message that is found answered only later.
            result.seq = committed.first_seq + at as u64;
        }
        self.cwd.clone_from(&self.view.cwd);
        self.stored.view = view;
        self.stored.offers.clone_from(&self.view.offers);
        self.run.cursor = self.run.decoded;
        self.run.hold = hold;
        self.run.state = self.view.state;
        self.lazy = None;
        self.quiet_bytes = 0;
        self.show_open();
        self.well();
        let acked = hold.map_or(self.run.cursor, |hold| hold.saturating_sub(1));
        if let Some(writer) = &mut self.writer
            && self.ending.is_none()
        {
            writer.ack(acked).await?;
        }
        failpoint!("acked");
        Ok(())
    }

    /// Something must be committed soon, though nobody waits for it.
    pub(crate) fn touch(&mut self) {
        self.lazy.get_or_insert_with(|| Instant::now() + LAZY);
    }

    pub(crate) fn at(&self) -> Timestamp {
        now()
    }
}
