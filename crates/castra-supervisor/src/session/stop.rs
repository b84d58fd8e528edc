//! Deadlines of a run, and the way it is stopped: politely, then firmly, then the whole tree.

use super::actor::Actor;
use super::view::View;
use crate::Result;
use crate::engine::now;
use castra_claude::input;
use castra_proto::session::ExitCause;
use castra_proto::shim::SignalTarget;
use castra_proto::{OwnKind, RunState, SessionSpec, Timestamp};
use castra_store::CommandState;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How long `end_session` may take, and then SIGTERM (design §5).
const POLITE: Duration = Duration::from_secs(3);
const FIRM: Duration = Duration::from_secs(2);
/// When a write that found no room is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// A step of stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Polite,
    Term,
    Kill,
}

/// When something must happen by itself. Monotonic: suspend and clock changes do not count.
#[derive(Debug)]
pub(crate) struct Deadlines {
    start: Option<Instant>,
    start_timeout: Duration,
    stop: Option<(Step, Instant)>,
    runtime: Option<Instant>,
    max_runtime: Option<Duration>,
    idle_timeout: Option<Duration>,
    idle_after: Duration,
    idle_said: bool,
    last_heard: Instant,
    retry: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn new(spec: &SessionSpec, view: &View) -> Self {
        let start_timeout = Duration::from_secs(spec.start_timeout_s);
        Self {
            start: None,
            start_timeout,
            stop: None,
            runtime: None,
            max_runtime: spec.limits.max_runtime_s.map(Duration::from_secs).map(|max| {
                // What an earlier daemon saw of this run counts.
                let ran = view.clock.map_or(0.0, |clock| now().seconds_since(clock.at(clock.boot_ns)));
                max.saturating_sub(Duration::from_secs_f64(ran.max(0.0)))
            }),
            idle_timeout: spec.limits.idle_timeout_s.map(Duration::from_secs),
            idle_after: Duration::from_secs(spec.idle_after_s.max(1)),
            idle_said: false,
            last_heard: Instant::now(),
            retry: None,
        }
    }

    pub(crate) fn next(&self, view: &View) -> Option<Instant> {
        let live = view.ready && view.stop.is_none();
        let idle = (live && !self.idle_said).then(|| self.last_heard + self.idle_after);
        let idle_timeout = self.idle_timeout.filter(|_| live).map(|after| self.last_heard + after);
        let asked = view.pending.iter().filter_map(|pending| pending.deadline).min().map(instant_of);
        let stop = self.stop.map(|(_, at)| at);
        let runtime = self.runtime.filter(|_| view.stop.is_none());
        let start = self.start.filter(|_| view.stop.is_none());
        [start, stop, runtime, idle, idle_timeout, asked, self.retry].into_iter().flatten().min()
    }

    /// A shim is joined: from now on the start, and the run, have their time.
    pub(crate) fn joined(&mut self, ready: bool) {
        let now = Instant::now();
        self.start = (!ready).then(|| now + self.start_timeout);
        self.runtime = self.max_runtime.map(|max| now + max);
        self.last_heard = now;
    }

    pub(crate) fn started(&mut self) {
        self.start = None;
    }

    /// The start has failed; nothing is gained by waiting.
    pub(crate) fn start_now(&mut self) {
        self.start = Some(Instant::now());
    }

    pub(crate) fn heard(&mut self) {
        self.last_heard = Instant::now();
        self.idle_said = false;
    }

    pub(crate) fn retry(&mut self) {
        self.retry = Some(Instant::now() + RETRY);
    }
}

/// A wall-clock deadline as a monotonic one, as of now.
fn instant_of(at: Timestamp) -> Instant {
    let left = at.seconds_since(now()).max(0.0);
    Instant::now() + Duration::from_secs_f64(left)
}

impl Actor<'_> {
    pub(crate) async fn on_deadline(&mut self) -> Result<()> {
        let at = Instant::now();
        let past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= at);
        if past(self.deadlines.retry) {
            self.deadlines.retry = None;
            self.load_commands().await?;
            self.pump().await?;
        }
        if let Some((step, _)) = self.deadlines.stop.filter(|(_, deadline)| *deadline <= at) {
            return self.stop_harder(step).await;
        }
        if self.view.stop.is_some() {
            return Ok(());
        }
        if past(self.deadlines.start) {
            self.view.stop = Some(ExitCause::StartTimeout);
            return self.stop_harder(Step::Term).await;
        }
        if past(self.deadlines.runtime) {
            let limit = self.spec.limits.max_runtime_s.unwrap_or_default();
            self.limit_reached("max_runtime_s", &[limit]);
            return self.begin_stop(ExitCause::Timeout).await;
        }
        if !self.view.ready {
            return Ok(());
        }
        if past(self.deadlines.idle_timeout.map(|after| self.deadlines.last_heard + after)) {
            let limit = self.spec.limits.idle_timeout_s.unwrap_or_default();
            self.limit_reached("idle_timeout_s", &[limit]);
            return self.begin_stop(ExitCause::Timeout).await;
        }
        self.deny_overdue().await?;
        if !self.deadlines.idle_said && self.deadlines.last_heard + self.deadlines.idle_after <= at {
            self.deadlines.idle_said = true;
            return self.say_idle().await;
        }
        Ok(())
    }

    pub(crate) fn limit_reached(&mut self, limit: &str, values: &[u64]) {
        let event = self.view.event(now(), OwnKind::Limit, &json!({"limit": limit, "values": values}));
        self.added.events.push(event);
    }

    /// Asks claude to end: it interrupts the turn, keeps the partial text, and exits (facts/shim.md §4).
    pub(crate) async fn begin_stop(&mut self, cause: ExitCause) -> Result<()> {
        if self.deadlines.stop.is_some() {
            return Ok(());
        }
        self.view.stop.get_or_insert(cause);
        self.added.changed = true;
        self.deadlines.stop = Some((Step::Polite, Instant::now() + POLITE));
        // On disk before claude hears of it: the outcome is judged by what was asked for.
        self.commit().await?;
        crate::failpoint::failpoint!("stop");
        self.ask_to_end().await
    }

    /// On a new connection: an end that was asked for is asked for again, whoever asked; the shim drops doubles.
    pub(crate) async fn stop_again(&mut self) -> Result<()> {
        if self.view.stop.is_none() {
            return Ok(());
        }
        self.deadlines.stop.get_or_insert_with(|| (Step::Polite, Instant::now() + POLITE));
        self.ask_to_end().await
    }

    async fn ask_to_end(&mut self) -> Result<()> {
        if self.tty.is_some() {
            // A terminal has no polite way: SIGTERM ends it in 0.1 s and restores its modes (facts/claude-cli.md §7).
            return self.stop_harder(Step::Polite).await;
        }
        if let Some(in_flight) = self.view.in_flight.clone() {
            let id = Uuid::new_v4();
            self.write(id, &input::cancel_async_message(&id.to_string(), in_flight.message.0)).await?;
        }
        let id = Uuid::new_v5(&self.run.id.0, b"end_session");
        self.write(id, &input::end_session(&id.to_string(), None)).await
    }

    async fn stop_harder(&mut self, step: Step) -> Result<()> {
        self.deadlines.stop =
            Some((if step == Step::Polite { Step::Term } else { Step::Kill }, Instant::now() + FIRM));
        self.touch();
        if let Some(writer) = &mut self.writer {
            match step {
                Step::Polite => writer.signal(SignalTarget::Claude, SIGTERM).await?,
                Step::Term | Step::Kill => writer.signal(SignalTarget::Tree, SIGKILL).await?,
            }
        }
        Ok(())
    }

    /// Denies what nobody answered in time.
    async fn deny_overdue(&mut self) -> Result<()> {
        let now_at = now();
        let overdue: Vec<_> = (self.view.pending.iter())
            .filter(|pending| pending.deadline.is_some_and(|deadline| deadline <= now_at))
            .filter(|pending| {
                !self.commands.open.iter().any(|open| open.subject.as_ref() == Some(&pending.request_id))
            })
            .map(|pending| pending.request_id.clone())
            .collect();
        for request_id in overdue {
            let message = "Nobody answered in time.";
            if let Some(pending) =
                self.view.pending.iter_mut().find(|pending| pending.request_id == request_id)
            {
                pending.deadline = None;
            }
            let answer = castra_proto::permission::PermissionAnswer {
                behavior: castra_proto::permission::Behavior::Deny,
                updated_input: None,
                updated_permissions: None,
                message: Some(message.into()),
                interrupt: false,
                remember: false,
                input_hash: None,
            };
            match crate::supervisor::permissions::decide(
                self.engine,
                self.id,
                &request_id,
                &answer,
                "castra:timeout",
                &self.view,
            )
            .await
            {
                // Somebody was faster; theirs counts.
                Ok(()) | Err(crate::Error::Commit(castra_store::CommitError::CommandConflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        self.load_commands().await?;
        self.pump().await
    }

    /// Nothing was heard for a while: says so, with what claude's own state file says.
    async fn say_idle(&mut self) -> Result<()> {
        let claude: Option<Value> = self.claude_state_file().await;
        let silent_s = self.deadlines.idle_after.as_secs();
        let event = self.view.event(
            now(),
            OwnKind::Idle,
            &json!({"silent_s": silent_s, "state": self.view.state, "claude": claude}),
        );
        self.added.events.push(event);
        self.commit().await?;
        if let Some(nudge) = self.spec.nudge.clone()
            && self.view.state == RunState::Idle
            && self.view.nudged < self.spec.nudges
        {
            self.view.nudged += 1;
            let key = format!("nudge {} of turn {}", self.view.nudged, self.view.turn.n);
            self.say(&nudge, &key).await?;
            return self.pump().await;
        }
        Ok(())
    }

    /// Open commands of an ended run: nobody will carry them out.
    pub(crate) fn close_commands(&mut self) {
        let open = std::mem::take(&mut self.commands.open);
        for command in open {
            let done = command.kind == super::commands::STOP;
            let state = if done { CommandState::Done } else { CommandState::Superseded };
            self.changes.push(castra_store::Change::Command { id: command.id, state, result: None });
        }
    }
}
