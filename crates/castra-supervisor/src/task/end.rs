//! How an attempt ends: its session is stopped, what it leaves is taken, and the task gets the state that is true.

use super::children;
use super::driver::{Driver, caller};
use super::handover::{self, Left, Taken};
use super::held::Held;
use super::hooks;
use super::state::Cause;
use super::workspace::Workspace;
use crate::engine::now;
use crate::{Error, Result};
use castra_proto::spec::Mode;
use castra_proto::task::{Level, Reason, TaskEventKind};
use castra_proto::{ErrorCode, Kind, OwnKind, SessionId, TaskState};
use castra_store::StoredTaskEvent;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// Lines of what was seen last that a failed task keeps.
const TAIL_LINES: usize = 150;
const TAIL_CHARS: usize = 1000;
/// Events that are looked through for them.
const TAIL_EVENTS: u64 = 400;
const TAIL_BYTES: usize = 4 << 20;
/// Events of the task that are read at once.
const EVENTS: u32 = 1000;

/// Somebody wants it to end: the turn is interrupted, and has its grace to come to rest; then it is stopped.
pub(super) async fn cancel(driver: &Driver, task: &mut Held) -> Result<()> {
    let Some(cancel) = task.view.cancel.clone() else { return Ok(()) };
    let engine = &driver.supervisor.engine;
    children::cancel(driver, task, "its parent is cancelled").await?;
    if let Some(session) = task.session()
        && let Some(row) = engine.store.session(session).await?
        && !row.state.is_final()
        && crate::shown::view(&row)?.busy()
    {
        let left = Duration::from_secs(cancel.grace_s)
            .saturating_sub(Duration::from_secs_f64(now().seconds_since(cancel.at).max(0.0)));
        let rest = async {
            driver.supervisor.interrupt(session, &caller(task.id)).await?;
            let mut head = engine.hub(session).await?.head.subscribe();
            loop {
                head.mark_unchanged();
                let row = engine.store.session(session).await?;
                if row.map(|row| crate::shown::view(&row)).transpose()?.is_none_or(|view| !view.busy()) {
                    return Ok::<(), Error>(());
                }
                if head.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        // Whoever does not come to rest is stopped; so is whoever is over already.
        let _ = timeout(left, rest).await;
    }
    task.view.conclude(cancel.outcome(), now(), &mut task.events);
    task.commit(engine).await
}

/// The outcome is known and on disk: clears away, and makes it so.
pub(super) async fn end(driver: &Driver, task: &mut Held) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let Some(outcome) = task.view.outcome.clone() else { return Ok(()) };
    crate::failpoint::failpoint!("task.ending");
    children::cancel(driver, task, &format!("its parent is {}", outcome.state)).await?;
    let mut tail = Vec::new();
    if let Some(session) = task.session()
        && engine.store.session(session).await?.is_some()
    {
        match driver.supervisor.stop(session, &caller(task.id)).await {
            Ok(_) => {}
            Err(error) if error.problem().code == ErrorCode::SessionNotFound => {}
            Err(error) => return Err(error),
        }
        crate::failpoint::failpoint!("task.stopped");
        let workspace = task.workspace(session);
        if !task.view.collected {
            collect(driver, task, &workspace).await?;
            task.view.collected = true;
        }
    }
    children::are_over(driver, task).await?;
    let Some(outcome) = hooks::after(driver, task, outcome).await? else { return Ok(()) };
    if outcome.state == TaskState::Failed
        && let Some(session) = task.session()
        && engine.store.session(session).await?.is_some()
    {
        tail = last_lines(driver, session).await?;
    }
    let at = now();
    task.view.result = outcome.result;
    task.view.reason = outcome.reason.map(|reason| Reason { tail, ..reason });
    let Some(cause) = Cause::of_end(outcome.state) else { return Ok(()) };
    task.view.shift(cause, at, &mut task.events);
    let (state, reason) = (task.view.state, task.view.reason.clone());
    if let Some(attempt) = task.view.attempts.last_mut() {
        (attempt.ended_at, attempt.state, attempt.reason) = (Some(at), Some(state), reason);
    }
    if state == TaskState::Failed && task.view.retries_left > 0 {
        task.view.retries_left -= 1;
        again(task, Cause::Retried);
    }
    task.commit(engine).await?;
    if task.view.state.is_final() && task.spec.ephemeral && !driver.supervisor.is_needed(task.id).await? {
        driver.supervisor.forget_task(task.id).await?;
    }
    Ok(())
}

/// What lies in `deliverables/` is the task's, whoever has spoken of it. Of what cannot be taken it is said why, where that
/// was not said to the agent already.
async fn collect(driver: &Driver, task: &mut Held, workspace: &Workspace) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let Left { files, mut others, more } = handover::left(engine, workspace).await?;
    for path in files {
        match handover::take(engine, task, workspace, &path).await? {
            Ok(taken) => hand_over(task, taken),
            Err(why) => others.push((path, why)),
        }
    }
    let folder = workspace.paths().deliverables();
    let known = if others.is_empty() { BTreeSet::new() } else { rejections(driver, task).await? };
    for (path, why) in others {
        let (path, why) = (format!("{folder}{path}"), why.say(&folder));
        if !known.contains(&(path.clone(), why.clone())) {
            reject(task, &path, &why);
        }
    }
    if more > 0 {
        let text = format!("{more} more lie in {folder} and were not looked at");
        task.say(TaskEventKind::Rejected, Level::Warning, text, json!({"path": folder, "more": more}));
    }
    Ok(())
}

/// What this attempt's agent has heard of files that cannot be taken: each path, and why.
async fn rejections(driver: &Driver, task: &Held) -> Result<BTreeSet<(String, String)>> {
    let (mut known, mut after) = (BTreeSet::new(), 0);
    loop {
        let events = driver.supervisor.engine.store.task_events(task.id, after, EVENTS).await?;
        let Some(last) = events.last() else { return Ok(known) };
        after = last.seq;
        let attempt = task.view.attempt();
        let of_attempt = |event: &StoredTaskEvent| event.attempt == attempt;
        for event in events.into_iter().filter(of_attempt) {
            if event.kind == TaskEventKind::Rejected
                && let (Some(path), Some(why)) = (event.data["path"].as_str(), event.data["why"].as_str())
            {
                known.insert((path.to_owned(), why.to_owned()));
            }
        }
    }
}

/// Another attempt: in a fresh session, or in the one of the last attempt.
pub(crate) fn again(task: &mut Held, cause: Cause) {
    let view = &mut task.view;
    if !view.shift(cause, now(), &mut task.events) {
        return;
    }
    view.resume = cause == Cause::Resumed;
    view.collected = false;
    (view.outcome, view.cancel, view.result, view.reason, view.hook) = (None, None, None, None, None);
}

pub(super) fn hand_over(task: &mut Held, taken: Taken) {
    let Taken { path, size, sha256, media_type } = taken;
    let Some(deliverable) = task.view.handed_over(&path, size, &sha256, media_type, now()) else { return };
    let message = format!("{path}, version {}, {size} bytes", deliverable.version);
    task.say(TaskEventKind::Deliverable, Level::Event, message, json!(deliverable));
    task.deliverables.push(deliverable);
}

pub(super) fn reject(task: &mut Held, path: &str, why: &str) {
    let data = json!({"path": path, "why": why});
    task.say(TaskEventKind::Rejected, Level::Warning, format!("{path}: {why}"), data);
}

/// What was seen last: of a terminal its screen, of a stream what was said and what went wrong.
async fn last_lines(driver: &Driver, session: SessionId) -> Result<Vec<String>> {
    let engine = &driver.supervisor.engine;
    let Some(row) = engine.store.session(session).await? else { return Ok(Vec::new()) };
    if row.mode == Mode::Terminal
        && let Ok(picture) = driver.supervisor.screen(session).await
    {
        let rows: Vec<String> = picture.rows.iter().map(|row| row.trim_end().to_owned()).collect();
        return Ok(last(rows));
    }
    let from = row.head.saturating_sub(TAIL_EVENTS);
    let events = engine.store.events(session, from, TAIL_EVENTS as u32, TAIL_BYTES).await?;
    let mut lines = Vec::new();
    for event in events {
        let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
        match &event.kind {
            Kind::Claude(kind) if &**kind == "assistant" => {
                let blocks = data["message"]["content"].as_array().into_iter().flatten();
                let texts = blocks.filter_map(|block| block["text"].as_str());
                lines.extend(texts.flat_map(str::lines).map(str::to_owned));
            }
            Kind::Own(OwnKind::Stderr) => lines.extend(text_of(&data).lines().map(str::to_owned)),
            Kind::Own(OwnKind::Status) => lines.extend(text_of(&data["message"]).lines().map(str::to_owned)),
            _ => {}
        }
    }
    Ok(last(lines))
}

fn text_of(data: &Value) -> &str {
    data.as_str().or_else(|| data["text"].as_str()).unwrap_or_default()
}

fn last(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let lines = lines.split_off(lines.len().saturating_sub(TAIL_LINES));
    // What would move a reader's cursor is no text.
    let text = |line: &String| -> String {
        line.chars().filter(|c| !c.is_control() || *c == '\t').take(TAIL_CHARS).collect()
    };
    lines.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_kept_and_so_much_of_each() {
        let lines =
            (0..200).map(|n| format!("{n}\u{1b}[1m\t{}", "ä".repeat(2000))).chain(["".into(), "".into()]);
        let kept = last(lines.collect());
        assert_eq!(kept.len(), 150);
        assert!(kept[0].starts_with("50[1m\tä") && kept[149].starts_with("199[1m\tä"), "{kept:?}");
        assert!(kept.iter().all(|line| line.chars().count() == 1000));
        assert_eq!(last(vec![String::new()]), Vec::<String>::new());
    }
}
