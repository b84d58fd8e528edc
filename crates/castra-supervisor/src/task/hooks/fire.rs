//! Calls the hooks of one point, one after the other, and says what they have come to. Refuses to write anything down.

use super::callback::{self, Hooks};
use super::context::HookCtx;
use super::desk::Firing;
use super::{Answer, Said, Settled, command, folder, spec, webhook};
use crate::supervisor::Supervisor;
use crate::task::held::Held;
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::task::{Hook, HookCall, Level, OnError};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries at a hook that somebody waits for: at first, and doubled up to the last.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const TRY_LATER: Duration = Duration::from_secs(30);

/// What one of them has come to, for the task's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub ok: bool,
    pub level: Level,
    /// What it answered, or what went wrong.
    pub said: Option<String>,
}

/// Calls all that the task waits for at this point. The first that wants something of the agent, or fails the task,
/// is the last that is called.
pub(super) async fn fire(
    supervisor: &Supervisor,
    task: &Held,
    firing: &Arc<Firing>,
    call: &HookCall,
) -> Result<(Settled, Vec<Line>)> {
    let engine = &supervisor.engine;
    let workspace = place(supervisor, task, firing).await?;
    let mut settled = Settled { id: firing.id, text: None, trouble: false, fail: None, taken: None };
    let mut lines = Vec::new();
    let hooks = task.spec.hooks.iter().filter(|hook| hook.on == firing.on && spec::is_awaited(hook));
    for hook in hooks {
        let said = run(supervisor, hook, firing, call, &workspace).await?;
        if note(said, spec::on_error(hook), &mut settled, &mut lines) {
            return Ok((settled, lines));
        }
    }
    for hooks in engine.hooks.callbacks(firing.task, firing.on) {
        let on_error = hooks.on_error(firing.on);
        let said = call_back(supervisor, hooks, firing, call).await;
        if note(said, on_error, &mut settled, &mut lines) {
            break;
        }
    }
    Ok((settled, lines))
}

/// Where programs are called. The inner error: in what is there now nothing is.
pub(super) type Workplace = std::result::Result<Option<String>, String>;

pub(super) async fn place(supervisor: &Supervisor, task: &Held, firing: &Firing) -> Result<Workplace> {
    match folder(&supervisor.engine, task, firing.session).await {
        Ok(folder) => Ok(Ok(folder)),
        Err(Error::Refused(problem)) => Ok(Err(problem.detail)),
        Err(error) => Err(error),
    }
}

/// True: nobody else is asked.
fn note(said: Said, on_error: OnError, settled: &mut Settled, lines: &mut Vec<Line>) -> bool {
    match said {
        Ok(Answer::Accepted) => {
            lines.push(Line { ok: true, level: Level::Debug, said: None });
            false
        }
        Ok(Answer::Text(text)) => {
            lines.push(Line { ok: true, level: Level::Debug, said: Some(text.clone()) });
            settled.text = Some(text);
            true
        }
        Err(why) => {
            let level = match on_error {
                OnError::Fail => Level::Error,
                OnError::Warn => Level::Warning,
                OnError::Ignore => Level::Debug,
            };
            lines.push(Line { ok: false, level, said: Some(why.clone()) });
            settled.trouble = true;
            settled.fail = (on_error == OnError::Fail).then_some(why);
            settled.fail.is_some()
        }
    }
}

async fn call_back(
    supervisor: &Supervisor,
    hooks: Arc<dyn Hooks>,
    firing: &Arc<Firing>,
    call: &HookCall,
) -> Said {
    callback::call(hooks, HookCtx::new(supervisor, firing), call.clone()).await
}

/// With its tries.
async fn run(
    supervisor: &Supervisor,
    hook: &Hook,
    firing: &Arc<Firing>,
    call: &HookCall,
    workspace: &Workplace,
) -> Result<Said> {
    let mut pause = TRY_AGAIN;
    for left in (0..=spec::retries(hook)).rev() {
        let said = once(supervisor, hook, firing, call, workspace).await?;
        if said.is_ok() || left == 0 {
            return Ok(said);
        }
        tokio::time::sleep(pause).await;
        pause = TRY_LATER.min(pause * 2);
    }
    Ok(Err("it was not tried".into()))
}

/// One try.
pub(super) async fn once(
    supervisor: &Supervisor,
    hook: &Hook,
    firing: &Arc<Firing>,
    call: &HookCall,
    workspace: &Workplace,
) -> Result<Said> {
    let engine = &supervisor.engine;
    let body = Bytes::from(crate::engine::json_text(call)?);
    Ok(match &hook.webhook {
        Some(webhook) => webhook::post(engine, webhook, firing.id, body, spec::timeout(hook)).await,
        None => match workspace {
            Ok(folder) => {
                let pass = engine.hooks.admit(firing);
                let given = (folder.as_deref(), body);
                command::run(engine, &hook.command, firing, &pass, given, spec::timeout(hook)).await
            }
            Err(why) => Err(why.clone()),
        },
    })
}
