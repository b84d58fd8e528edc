//! The points at which a task waits for its hooks: what is asked there, and what is written down of the answer.

use super::desk::Firing;
use super::fire::{Line, fire};
use super::{Settled, change, spec};
use crate::Result;
use crate::engine::{Engine, now};
use crate::task::driver::Driver;
use crate::task::handover::{self, Seen};
use crate::task::held::Held;
use crate::task::protocol::notice::Rejection;
use crate::task::view::Outcome;
use castra_proto::task::{CallerMessage, HookCall, HookPoint, Offered, Reason, ReasonCode, TaskEventKind};
use castra_proto::{Kind, OwnKind, SessionId, TaskState};
use castra_store::StoredEvent;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::pin;
use uuid::Uuid;

/// The longest text of a file that is told with it, bytes.
const MAX_TEXT: usize = 256 << 10;

/// Whether an event can be folded.
pub(crate) enum Due {
    Now,
    /// The file that it names is none.
    Refused(Rejection),
    /// The task is to be looked at anew first.
    Anew,
}

/// Whether somebody is asked at this point.
fn asked(engine: &Engine, task: &Held, on: HookPoint) -> bool {
    task.spec.hooks.iter().any(|hook| hook.on == on && spec::is_awaited(hook))
        || engine.hooks.has_callback(task.id, on)
}

/// One for each thing that is told.
fn name(task: &Held, on: HookPoint, what: u64) -> Uuid {
    let attempt = task.view.attempt();
    Uuid::new_v5(&task.id.0, format!("hook:{attempt}:{}:{what}", on.as_str()).as_bytes())
}

/// What the hooks of this point have come to about this event of the session, once. What an earlier point has left stays.
pub(crate) fn take_settled(task: &mut Held, on: HookPoint, seq: u64) -> Option<Settled> {
    let id = name(task, on, seq);
    task.view.hook.take_if(|settled| settled.id == id)
}

fn is_settled(task: &Held, id: Uuid) -> bool {
    task.view.hook.as_ref().is_some_and(|settled| settled.id == id)
}

fn firing(task: &Held, on: HookPoint, id: Uuid) -> Firing {
    let session = task.session();
    Firing { id, task: task.id, session, on, offered: None, sent: AtomicU32::new(0) }
}

async fn call(driver: &Driver, task: &Held, firing: &Firing) -> Result<HookCall> {
    let (deliverable, message, outcome, event) = (None, None, None, None);
    let shown = driver.supervisor.task(task.id).await?;
    Ok(HookCall {
        id: firing.id.to_string(),
        on: firing.on,
        deliverable,
        message,
        outcome,
        event,
        task: shown,
    })
}

/// Before an event of the session is folded: whoever is to be asked about it is asked first.
pub(crate) async fn due(driver: &Driver, task: &mut Held, event: &StoredEvent) -> Result<Due> {
    let engine = &driver.supervisor.engine;
    let on = match &event.kind {
        Kind::Own(OwnKind::Deliverable) => HookPoint::Deliverable,
        Kind::Own(OwnKind::CallerMessage) => HookPoint::CallerMessage,
        _ => return Ok(Due::Now),
    };
    let id = name(task, on, event.seq);
    if is_settled(task, id) || !asked(engine, task, on) {
        return Ok(Due::Now);
    }
    let Some(session) = task.session() else { return Ok(Due::Now) };
    if !task.events.is_empty() {
        // What was folded before is not done again.
        task.commit(engine).await?;
    }
    let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
    let (mut firing, mut seen) = (firing(task, on, id), None);
    let mut asking = call(driver, task, &firing).await?;
    if on == HookPoint::Deliverable {
        let said = data["path"].as_str().unwrap_or_default();
        match look(engine, task, session, said).await? {
            Err(why) => return Ok(Due::Refused(why)),
            Ok(found) => {
                asking.deliverable = Some(offer(&found));
                firing.offered = Some(found.bytes.clone());
                seen = Some(found);
            }
        }
    } else {
        let name = data["name"].as_str().unwrap_or_default().to_owned();
        asking.message = Some(CallerMessage { name, data: data["data"].clone(), at: event.at });
    }
    crate::failpoint::failpoint!("task.hook");
    let firing = Arc::new(firing);
    let work = fire(&driver.supervisor, task, &firing, &asking);
    let Some(answered) = unless_ending(driver, task, work).await? else { return Ok(Due::Anew) };
    let (mut settled, lines) = answered?;
    crate::failpoint::failpoint!("task.hooked");
    if let Some(seen) = seen.filter(|_| settled.text.is_none() && !settled.trouble) {
        settled.taken = Some(handover::keep(engine, task.id, seen).await?);
    }
    write_down(engine, task, on, settled, lines).await?;
    Ok(Due::Anew)
}

async fn look(
    engine: &Engine,
    task: &Held,
    session: SessionId,
    said: &str,
) -> Result<std::result::Result<Seen, Rejection>> {
    let workspace = task.workspace(session);
    let work = engine.store.session(session).await?.and_then(|row| row.cwd).unwrap_or_default();
    match workspace.below_deliverables(said, &work) {
        Some(path) => handover::see(engine, task, &workspace, &path).await,
        None => Ok(Err(Rejection::Outside)),
    }
}

fn offer(seen: &Seen) -> Offered {
    let text = std::str::from_utf8(&seen.bytes).ok().filter(|text| text.len() <= MAX_TEXT);
    Offered {
        path: seen.path.clone(),
        size: seen.bytes.len() as u64,
        sha256: seen.sha256(),
        media_type: seen.media_type(),
        text: text.map(str::to_owned),
    }
}

/// Does the work, unless somebody wants the task to end meanwhile; then it is dropped.
async fn unless_ending<T>(driver: &Driver, task: &Held, work: impl Future<Output = T>) -> Result<Option<T>> {
    pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(Some(done)),
            () = driver.driving.poke.notified() => {
                let now = Held::load(&driver.supervisor.engine, task.id).await?;
                if now.is_none_or(|now| now.view.cancel.is_some()) {
                    // Whoever looks next has to see it too.
                    driver.driving.poke.notify_one();
                    return Ok(None);
                }
            }
        }
    }
}

/// On disk when this returns, whatever else has changed meanwhile.
async fn write_down(
    engine: &Engine,
    task: &Held,
    on: HookPoint,
    settled: Settled,
    lines: Vec<Line>,
) -> Result<()> {
    let attempt = task.view.attempt();
    change(engine, task.id, |task| {
        if task.view.attempt() != attempt || is_settled(task, settled.id) {
            return false;
        }
        for line in &lines {
            say(task, on, settled.id, line);
        }
        task.view.hook = Some(settled.clone());
        true
    })
    .await?;
    crate::failpoint::failpoint!("task.settled");
    Ok(())
}

pub(super) fn say(task: &mut Held, on: HookPoint, id: Uuid, line: &Line) {
    let data = json!({"on": on, "id": id, "ok": line.ok, "said": line.said});
    let text = match (line.ok, &line.said) {
        (true, None) => format!("{}: ok", on.as_str()),
        (true, Some(said)) => format!("{}: {said}", on.as_str()),
        (false, said) => format!("{} failed: {}", on.as_str(), said.as_deref().unwrap_or_default()),
    };
    task.say(TaskEventKind::Hook, line.level, text, data);
}

/// Before claude starts, with the workspace in its place. False: the task is to be looked at anew first.
pub(crate) async fn before(driver: &Driver, task: &mut Held) -> Result<bool> {
    let engine = &driver.supervisor.engine;
    let on = HookPoint::Before;
    let id = name(task, on, 0);
    if !asked(engine, task, on) {
        return Ok(true);
    }
    if let Some(settled) = take_settled(task, on, 0) {
        let Some(why) = settled.fail else { return Ok(true) };
        let why = format!("a hook (before) failed: {why}");
        task.view.fail(ReasonCode::Hook, why, now(), &mut task.events);
        task.commit(engine).await?;
        return Ok(false);
    }
    let firing = Arc::new(firing(task, on, id));
    let asking = call(driver, task, &firing).await?;
    crate::failpoint::failpoint!("task.hook");
    let work = fire(&driver.supervisor, task, &firing, &asking);
    let Some(answered) = unless_ending(driver, task, work).await? else { return Ok(false) };
    let (settled, lines) = answered?;
    write_down(engine, task, on, settled, lines).await?;
    Ok(false)
}

/// After the session was stopped. What the attempt's outcome is then; None: the task is to be looked at anew first.
pub(crate) async fn after(driver: &Driver, task: &mut Held, outcome: Outcome) -> Result<Option<Outcome>> {
    let engine = &driver.supervisor.engine;
    let on = HookPoint::After;
    let id = name(task, on, 0);
    if task.view.attempts.is_empty() || !asked(engine, task, on) {
        return Ok(Some(outcome));
    }
    if let Some(settled) = take_settled(task, on, 0) {
        return Ok(Some(match settled.fail {
            // What was not done stays what it is, with its own reason.
            Some(why) if outcome.state == TaskState::Done => {
                let message = format!("a hook (after) failed: {why}");
                let reason = Some(Reason { code: ReasonCode::Hook, message, tail: Vec::new() });
                Outcome { state: TaskState::Failed, reason, ..outcome }
            }
            _ => outcome,
        }));
    }
    // What was left behind is the task's, also for its hooks; and it is not collected again.
    task.commit(engine).await?;
    let firing = Arc::new(firing(task, on, id));
    let mut asking = call(driver, task, &firing).await?;
    asking.outcome = Some(outcome);
    crate::failpoint::failpoint!("task.hook");
    let (settled, lines) = fire(&driver.supervisor, task, &firing, &asking).await?;
    write_down(engine, task, on, settled, lines).await?;
    Ok(None)
}
