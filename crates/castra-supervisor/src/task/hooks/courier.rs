//! Hooks that are told of what has happened, while the task goes on: each of the events that it wants, in order, at least
//! once, also over restarts. What it has been told is in the store; a hook that never answers is given up in the end.

use super::callback::{self, Hooks};
use super::context::HookCtx;
use super::desk::{Changed, Firing, Registered};
use super::fire::{Line, once, place as workplace};
use super::point::say;
use super::{change, spec};
use crate::Result;
use crate::engine::now;
use crate::supervisor::Supervisor;
use crate::task::held::Held;
use castra_proto::task::{Hook, HookCall, HookPoint, Level, OnError, TaskEvent, TaskEventKind, TaskState};
use castra_proto::{TaskId, Timestamp};
use castra_store::HookPlace;
use futures::FutureExt;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::warn;
use uuid::Uuid;

/// Hooks that are told at once.
const AT_ONCE: usize = 16;
/// Places that are looked at: more than can be busy.
const PLACES: u32 = 64;
/// Events of a task that are looked through at once.
const EVENTS: usize = 200;
/// Until a webhook is tried again, in seconds: at first, four times as long each time, and the longest.
const TRY_AGAIN_S: u64 = 5;
const TRY_LATEST_S: u64 = 3600;
/// Between two looks at a store that could not be read or written.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn pause(tries: u32) -> u64 {
    TRY_AGAIN_S.saturating_mul(4u64.saturating_pow(tries)).min(TRY_LATEST_S)
}

/// Tells them for as long as the supervisor lives.
pub(crate) async fn keep(supervisor: Supervisor) {
    let engine = supervisor.engine.clone();
    let mut closing = engine.closing.subscribe();
    let work = async {
        let (mut telling, mut busy) = (JoinSet::new(), HashSet::new());
        loop {
            let wait = match look(&supervisor, &mut telling, &mut busy).await {
                Ok(wait) => wait,
                Err(error) => {
                    warn!(%error, "hooks cannot be told; it is tried again");
                    LOOK_AGAIN
                }
            };
            tokio::select! {
                () = engine.hooks.told.notified() => {}
                () = tokio::time::sleep(wait) => {}
                Some(done) = telling.join_next() => {
                    // Only the end of the runtime is an error: a panic is caught below.
                    let Ok(done) = done else { return };
                    busy.remove(&done);
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

type Place = (TaskId, u32);

/// Sends whom there is time for. How long until the next may be sent.
async fn look(
    supervisor: &Supervisor,
    telling: &mut JoinSet<Place>,
    busy: &mut HashSet<Place>,
) -> Result<Duration> {
    let (now, mut wait) = (now(), TRY_LATEST_S as f64);
    for place in supervisor.engine.store.hooks_due(PLACES).await? {
        if busy.len() >= AT_ONCE {
            break;
        }
        if place.next_at > now {
            wait = wait.min(place.next_at.seconds_since(now));
        } else if busy.insert((place.task, place.hook)) {
            let supervisor = supervisor.clone();
            telling.spawn(async move {
                let name = (place.task, place.hook);
                let told = AssertUnwindSafe(tell(&supervisor, place)).catch_unwind().await;
                let trouble = match told {
                    Ok(Ok(())) => return name,
                    Ok(Err(error)) => error.problem().detail,
                    Err(_) => "it panicked".to_owned(),
                };
                warn!(task = %name.0, trouble, "a hook could not be told; it is tried again");
                tokio::time::sleep(LOOK_AGAIN).await;
                name
            });
        }
    }
    Ok(Duration::from_secs_f64(wait.max(0.01)))
}

/// The next event that it wants, once.
async fn tell(supervisor: &Supervisor, place: HookPlace) -> Result<()> {
    let engine = &supervisor.engine;
    let Some(task) = Held::load(engine, place.task).await? else { return Ok(()) };
    let events = supervisor.task_events(place.task, place.seq, EVENTS).await?;
    let Some(last) = events.last().map(|event| event.seq) else { return Ok(()) };
    let hook = usize::try_from(place.hook).ok().and_then(|at| task.spec.hooks.get(at));
    let wanted = hook.and_then(|hook| Some((hook, events.into_iter().find(|event| wants(hook, event))?)));
    let settled = |seq| HookPlace { seq, tries: 0, next_at: Timestamp(0), ..place.clone() };
    let Some((hook, event)) = wanted else {
        engine.store.place_hook(settled(last)).await?;
        return forget(supervisor, &task).await;
    };
    let seq = event.seq;
    let id = Uuid::new_v5(&task.id.0, format!("hook:{}:{seq}", place.hook).as_bytes());
    let session = task.session();
    let firing =
        Arc::new(Firing { id, task: task.id, session, on: hook.on, offered: None, sent: AtomicU32::new(0) });
    let (deliverable, message, outcome) = (None, None, None);
    let shown = supervisor.task(task.id).await?;
    let call = HookCall {
        id: id.to_string(),
        on: hook.on,
        deliverable,
        message,
        outcome,
        event: Some(event),
        task: shown,
    };
    crate::failpoint::failpoint!("hook.tell");
    let workspace = workplace(supervisor, &task, &firing).await?;
    let Err(why) = once(supervisor, hook, &firing, &call, &workspace).await? else {
        crate::failpoint::failpoint!("hook.told");
        engine.store.place_hook(settled(seq)).await?;
        crate::failpoint::failpoint!("hook.settled");
        return forget(supervisor, &task).await;
    };
    let tries = place.tries + 1;
    if place.tries < spec::retries(hook) {
        let next_at = Timestamp(now().0.saturating_add_unsigned(pause(place.tries) * 1_000_000));
        warn!(task = %task.id, tries, why, "a hook was not told; it is tried again later");
        return Ok(engine.store.place_hook(HookPlace { tries, next_at, ..place.clone() }).await?);
    }
    let level = if spec::on_error(hook) == OnError::Ignore { Level::Debug } else { Level::Warning };
    let line = Line { ok: false, level, said: Some(format!("given up after {tries} tries: {why}")) };
    let on = hook.on;
    change(engine, task.id, |task| {
        say(task, on, id, &line);
        true
    })
    .await?;
    engine.store.place_hook(settled(seq)).await?;
    forget(supervisor, &task).await
}

/// A task that was not to stay has waited for its hooks.
async fn forget(supervisor: &Supervisor, task: &Held) -> Result<()> {
    if !task.spec.ephemeral || supervisor.engine.store.hooks_open(task.id).await? {
        return Ok(());
    }
    match supervisor.engine.store.task(task.id).await? {
        Some(row) if row.state.is_final() => supervisor.forget_task(task.id).await,
        _ => Ok(()),
    }
}

/// Whether a hook is told of this.
fn wants(hook: &Hook, event: &TaskEvent) -> bool {
    let to = || event.data["to"].as_str().and_then(TaskState::parse);
    match hook.on {
        HookPoint::State => {
            event.kind == TaskEventKind::State
                && (hook.states.is_empty() || to().is_some_and(|to| hook.states.contains(&to)))
        }
        HookPoint::After => {
            event.kind == TaskEventKind::State && event.attempt > 0 && to().is_some_and(TaskState::is_final)
        }
        HookPoint::Message => matches!(
            event.kind,
            TaskEventKind::Attention | TaskEventKind::Browser | TaskEventKind::ClientMessage
        ),
        HookPoint::Upload => event.kind == TaskEventKind::Upload,
        HookPoint::Before | HookPoint::Deliverable | HookPoint::CallerMessage => false,
    }
}

impl Supervisor {
    /// Calls these at points of the life of a task, or of all tasks, for as long as what is returned lives. Of one task
    /// before it is launched: [`Supervisor::launch_with`].
    pub fn register_hooks(&self, task: Option<TaskId>, hooks: Arc<dyn Hooks>) -> Registered {
        let desk = &self.engine.hooks;
        if !hooks.points().contains(&HookPoint::State) {
            return desk.register(task, hooks, None);
        }
        let changed = Arc::new(Changed::default());
        let registered = desk.register(task, hooks.clone(), Some(changed.clone()));
        registered.with(tokio::spawn(tell_states(self.clone(), hooks, changed)))
    }
}

/// One after the other; what it misses while it is slow it reads from the store.
async fn tell_states(supervisor: Supervisor, hooks: Arc<dyn Hooks>, changed: Arc<Changed>) {
    let mut closing = supervisor.engine.closing.subscribe();
    let work = async {
        loop {
            let Some((task, after)) = changed.take() else {
                changed.more.notified().await;
                continue;
            };
            if let Err(error) = tell_states_of(&supervisor, &hooks, task, after).await {
                warn!(%task, %error, "a callback could not be told of a state");
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

/// All states from `after` on: one commit may have more events than are read at once.
async fn tell_states_of(
    supervisor: &Supervisor,
    hooks: &Arc<dyn Hooks>,
    task: TaskId,
    mut after: u64,
) -> Result<()> {
    loop {
        let events = supervisor.task_events(task, after, EVENTS).await?;
        let is_all = events.len() < EVENTS;
        after = events.last().map_or(after, |event| event.seq);
        for event in events.into_iter().filter(|event| event.kind == TaskEventKind::State) {
            tell_state(supervisor, hooks, task, event).await?;
        }
        if is_all {
            return Ok(());
        }
    }
}

async fn tell_state(
    supervisor: &Supervisor,
    hooks: &Arc<dyn Hooks>,
    task: TaskId,
    event: TaskEvent,
) -> Result<()> {
    let on = HookPoint::State;
    let shown = supervisor.task(task).await?;
    let id = Uuid::new_v5(&task.0, format!("hook:callback:{}", event.seq).as_bytes());
    let session = shown.session_id;
    let sent = AtomicU32::new(0);
    let firing = Arc::new(Firing { id, task, session, on, offered: None, sent });
    let (deliverable, message, outcome) = (None, None, None);
    let call =
        HookCall { id: id.to_string(), on, deliverable, message, outcome, event: Some(event), task: shown };
    if let Err(why) = callback::call(hooks.clone(), HookCtx::new(supervisor, &firing), call).await {
        warn!(%task, why, "a callback that was told of a state failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_webhook_is_tried_ten_times_within_hours() {
        let pauses: Vec<u64> = (0..9).map(pause).collect();
        assert_eq!(pauses, [5, 20, 80, 320, 1280, 3600, 3600, 3600, 3600]);
        assert_eq!(pause(u32::MAX), TRY_LATEST_S);
    }

    #[test]
    fn each_hook_is_told_of_its_own_events() {
        let event = |kind: &str, attempt: u32, data: Value| -> TaskEvent {
            serde_json::from_value(json!({
                "seq": 1, "at": "2026-11-21T07:30:45.000100Z", "task_id": TaskId::now(), "attempt": attempt, "kind": kind,
                "level": "info", "message": "", "data": data,
            }))
            .unwrap()
        };
        let done = event("state", 1, json!({"to": "done"}));
        let queued = event("state", 0, json!({"to": "queued"}));
        let early = event("state", 0, json!({"to": "cancelled"}));
        let attention = event("attention", 1, json!({}));
        let upload = event("upload", 1, json!({}));
        let all = [&done, &queued, &early, &attention, &upload];
        for (hook, expected) in [
            (json!({"on": "state"}), [true, true, true, false, false]),
            (json!({"on": "state", "states": ["done"]}), [true, false, false, false, false]),
            (json!({"on": "after"}), [true, false, false, false, false]),
            (json!({"on": "message"}), [false, false, false, true, false]),
            (json!({"on": "upload"}), [false, false, false, false, true]),
            (json!({"on": "deliverable"}), [false; 5]),
        ] {
            let parsed: Hook = serde_json::from_value(hook.clone()).unwrap();
            assert_eq!(all.map(|event| wants(&parsed, event)), expected, "{hook}");
        }
    }
}
