//! The children that a task declares: made when it begins, followed until what becomes of them is known, and what they
//! leave is handed to the task's own work. Refuses to judge: that is `group`'s.

use super::driver::{Driver, caller};
use super::group::{Verdict, is_group, name_of, percent, verdict};
use super::held::{Held, parse};
use super::state::Cause;
use super::view::{Outcome, TaskView};
use super::workspace::Workspace;
use crate::engine::now;
use crate::{Error, Result};
use castra_proto::task::{CancelTask, Level, Reason, ReasonCode, TaskEventKind};
use castra_proto::{ErrorCode, TaskState, Timestamp};
use castra_store::TaskRow;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at children, however often they change.
const LOOK: Duration = Duration::from_millis(100);

/// Makes them, each once; or has those that were not done try again.
pub(super) async fn begin(driver: &Driver, task: &mut Held) -> Result<()> {
    let supervisor = &driver.supervisor;
    let began = task.attempt().map(|attempt| attempt.started_at);
    if task.view.children.is_empty() {
        // All or none: an attempt that goes on does not make up for some.
        let mut made = Vec::with_capacity(task.spec.children.len());
        for n in 0..task.spec.children.len() {
            crate::failpoint::failpoint!("task.child");
            made.push((supervisor.create_child(task, n).await?, None));
        }
        task.view.children = made;
    } else {
        let rows = match rows(driver, task).await? {
            Ok(rows) => rows,
            Err(n) => return lost(driver, task, n).await,
        };
        for row in rows.iter().filter(|row| row.state.is_final() && row.state != TaskState::Done) {
            if parse::<TaskView>(row, "state", &row.view)?.since >= began.unwrap_or_default() {
                continue;
            }
            match supervisor.retry_task(row.id).await {
                // Somebody was faster and has it try again.
                Err(error) if error.problem().code == ErrorCode::Conflict => {}
                tried => drop(tried?),
            }
        }
        for (_, told) in &mut task.view.children {
            *told = told.filter(|state| *state == TaskState::Done);
        }
    }
    let message = format!("{} children", task.view.children.len());
    task.say(TaskEventKind::Attempt, Level::Event, message, json!({"children": task.view.children.len()}));
    task.view.shift(Cause::Started, now(), &mut task.events);
    task.commit(&supervisor.engine).await
}

/// Takes what becomes of them, until the task is to be looked at anew.
pub(super) async fn follow(driver: &Driver, task: &mut Held) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let mut changed = engine.tasks.changed.subscribe();
    let deadline = deadline(task);
    let late = async {
        match deadline {
            Some(at) => tokio::time::sleep(Duration::from_secs_f64(at.seconds_since(now()).max(0.0))).await,
            None => std::future::pending().await,
        }
    };
    let mut late = std::pin::pin!(late);
    loop {
        changed.mark_unchanged();
        let rows = match rows(driver, task).await? {
            Ok(rows) => rows,
            Err(n) => return lost(driver, task, n).await,
        };
        take(task, &rows)?;
        let states: Vec<TaskState> = rows.iter().map(|row| row.state).collect();
        match verdict(&task.spec.group, &states) {
            Verdict::Open => {}
            Verdict::Ends(n, state) => {
                let outcome = ends(task, &rows, n, state)?;
                task.view.conclude(outcome, now(), &mut task.events);
                return task.commit(engine).await;
            }
            Verdict::Over => {
                task.view.gathered = true;
                if is_group(&task.spec) {
                    let result = Some(results(task, &rows)?.to_string());
                    let done = Outcome { state: TaskState::Done, result, reason: None };
                    task.view.conclude(done, now(), &mut task.events);
                }
                crate::failpoint::failpoint!("task.gathered");
                return task.commit(engine).await;
            }
        }
        if !task.events.is_empty() {
            // The commit itself wakes this driver.
            return task.commit(engine).await;
        }
        tokio::select! {
            _ = changed.changed() => tokio::time::sleep(LOOK).await,
            () = driver.poked() => return Ok(()),
            () = &mut late => {
                task.view.fail(ReasonCode::Timeout, "its time was over", now(), &mut task.events);
                return task.commit(engine).await;
            }
        }
    }
}

/// When the attempt's time is over.
fn deadline(task: &Held) -> Option<Timestamp> {
    let allowed = i64::try_from(task.spec.timeout_s?).ok()?.checked_mul(1_000_000)?;
    task.attempt()?.started_at.0.checked_add(allowed).map(Timestamp)
}

/// Whoever is over is told of once; the task's progress follows theirs.
fn take(task: &mut Held, rows: &[TaskRow]) -> Result<()> {
    let mut progress = Vec::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        let view: TaskView = parse(row, "state", &row.view)?;
        progress.push((row.state, view.progress.percent));
        let over = Some(row.state).filter(|state| state.is_final());
        let Some((_, told)) = task.view.children.get_mut(n) else { continue };
        if *told == over {
            continue;
        }
        *told = over;
        if let Some(state) = over {
            let name = name_of(&task.spec.children, n);
            let why = view.reason.as_ref().map(|reason| format!(": {}", reason.message)).unwrap_or_default();
            let level = if state == TaskState::Done { Level::Event } else { Level::Warning };
            let data = json!({"task_id": row.id, "state": state, "result": view.result, "reason": view.reason.map(|reason| reason.code)});
            task.say(TaskEventKind::Child, level, format!("{name} is {state}{why}"), data);
        }
    }
    let percent = percent(&task.spec, &progress);
    let over = progress.iter().filter(|(state, _)| state.is_final()).count();
    let message = format!("{over} of {} children are over", progress.len());
    let shown = &mut task.view.progress;
    if percent.is_some() && (shown.percent != percent || shown.message.as_ref() != Some(&message)) {
        (shown.percent, shown.message) = (percent, Some(message.clone()));
        let data = json!({"percent": percent, "message": message});
        task.say(TaskEventKind::Progress, Level::Info, message, data);
    }
    Ok(())
}

fn ends(task: &Held, rows: &[TaskRow], n: usize, state: TaskState) -> Result<Outcome> {
    let name = name_of(&task.spec.children, n);
    let said = match rows.get(n) {
        Some(row) => parse::<TaskView>(row, "state", &row.view)?.reason.map(|reason| reason.message),
        None => None,
    };
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    let code = if state == TaskState::Cancelled { ReasonCode::Cancelled } else { ReasonCode::Child };
    let reason = Reason { code, message: format!("its child {name} was {state}{said}"), tail: Vec::new() };
    Ok(Outcome { state, result: None, reason: Some(reason) })
}

/// What they came to, by name.
fn results(task: &Held, rows: &[TaskRow]) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for (n, row) in rows.iter().enumerate() {
        let view: TaskView = parse(row, "state", &row.view)?;
        let one = json!({"id": row.id, "state": row.state, "result": view.result, "reason": view.reason.map(|reason| reason.message)});
        all.insert(name_of(&task.spec.children, n), one);
    }
    Ok(all.into())
}

/// The children of this attempt, in their order. The inner error: that one was removed.
async fn rows(driver: &Driver, task: &Held) -> Result<Result<Vec<TaskRow>, usize>> {
    let store = &driver.supervisor.engine.store;
    let all = store.child_tasks(task.id).await?;
    let mut rows = Vec::with_capacity(task.view.children.len());
    for (n, (id, _)) in task.view.children.iter().enumerate() {
        match all.iter().find(|row| row.id == *id) {
            Some(row) => rows.push(row.clone()),
            None => return Ok(Err(n)),
        }
    }
    Ok(Ok(rows))
}

fn was_removed(task: &Held, n: usize) -> String {
    format!("its child {} was removed; only `retry` makes it anew", name_of(&task.spec.children, n))
}

/// What became of it can never be told.
async fn lost(driver: &Driver, task: &mut Held, n: usize) -> Result<()> {
    let said = was_removed(task, n);
    task.view.fail(ReasonCode::Child, said, now(), &mut task.events);
    task.commit(&driver.supervisor.engine).await
}

/// Puts into the workspace what they came to, and what they have handed over.
pub(super) async fn hand_up(driver: &Driver, task: &Held, workspace: &Workspace) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let rows = rows(driver, task).await?;
    let rows = rows.map_err(|n| Error::new(ErrorCode::NotFound, was_removed(task, n)))?;
    let files = engine.host.files();
    let results = serde_json::to_vec_pretty(&results(task, &rows)?).unwrap_or_default();
    workspace.put_upload(files, "children.json", results.into()).await?;
    for (n, row) in rows.iter().enumerate() {
        let name = name_of(&task.spec.children, n);
        // By path and version: the last one of each path stays.
        for one in engine.store.deliverables(row.id).await? {
            if let Some(bytes) = engine.store.blob(row.id, &one.sha256).await? {
                workspace.put_upload(files, &format!("children/{name}/{}", one.path), bytes).await?;
            }
        }
    }
    Ok(())
}

/// Everything below a task that ends is to end.
pub(super) async fn cancel(driver: &Driver, task: &Held, why: &str) -> Result<()> {
    let store = &driver.supervisor.engine.store;
    for row in store.child_tasks(task.id).await?.iter().filter(|row| !row.state.is_final()) {
        let grace_s = task.view.cancel.as_ref().map(|cancel| cancel.grace_s);
        let request = CancelTask { reason: Some(why.to_owned()), grace_s };
        driver.supervisor.cancel_task(row.id, &request, &caller(task.id)).await?;
    }
    Ok(())
}

/// Waits until all below it is over.
pub(super) async fn are_over(driver: &Driver, task: &Held) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let mut changed = engine.tasks.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let rows = engine.store.child_tasks(task.id).await?;
        if rows.iter().all(|row| row.state.is_final()) || changed.changed().await.is_err() {
            return Ok(());
        }
    }
}
