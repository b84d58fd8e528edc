//! What the agent is answered: to a file that it hands over, to a message of its own, to a word amid a text. Each once,
//! whatever dies in between: the event that is answered names the answer.

use super::driver::{Driver, caller};
use super::held::Held;
use super::hooks::{Settled, take_settled};
use super::protocol::notice::{self, Rejection, Verdict};
use super::{end, handover};
use crate::engine::now;
use crate::session::commands::TOOL_RESULT;
use crate::{Error, Result};
use castra_proto::task::{HookPoint, Level, ReasonCode, TaskEventKind};
use castra_proto::{ErrorCode, SessionId};
use castra_store::CommitError;
use serde_json::json;

impl Driver {
    /// A file is handed over: taken or refused, and the agent hears which, once.
    pub(super) async fn fetch(
        &self,
        task: &mut Held,
        session: SessionId,
        seq: u64,
        (said, refused): (&str, Option<Rejection>),
        call: Option<&str>,
    ) -> Result<()> {
        let engine = &self.supervisor.engine;
        let workspace = task.workspace(session);
        let settled = take_settled(task, HookPoint::Deliverable, seq);
        let work = engine.store.session(session).await?.and_then(|row| row.cwd).unwrap_or_default();
        let taken = match (refused, &settled, workspace.below_deliverables(said, &work)) {
            (Some(why), _, _) => Err(why),
            (None, Some(settled), _) => Ok(settled.taken.clone()),
            (None, None, Some(path)) => handover::take(engine, task, &workspace, &path).await?.map(Some),
            (None, None, None) => Err(Rejection::Outside),
        };
        let wanted = settled.as_ref().and_then(|settled| settled.text.as_deref());
        let verdict = match (taken, wanted) {
            (Ok(Some(taken)), _) => {
                end::hand_over(task, taken);
                Verdict::Accepted
            }
            (Ok(None), Some(text)) => Verdict::Revise(text),
            (Ok(None), None) => Verdict::Trouble,
            (Err(why), _) => {
                end::reject(task, said, &why.say(&workspace.paths().deliverables()));
                Verdict::Rejected(why)
            }
        };
        let text = notice::deliverable_reply(&task.view.nonce, said, &verdict, &workspace.paths());
        match call {
            Some(call) => {
                let is_error = matches!(verdict, Verdict::Rejected(_) | Verdict::Trouble);
                self.return_call(task, session, call, text, is_error).await?;
            }
            None => self.reply(task, seq, text).await?,
        }
        fail_by(task, settled);
        Ok(())
    }

    /// What was answered to a message of the agent's goes back to it, once.
    pub(super) async fn answer(
        &self,
        task: &mut Held,
        session: SessionId,
        seq: u64,
        name: &str,
        call: Option<&str>,
    ) -> Result<()> {
        let settled = take_settled(task, HookPoint::CallerMessage, seq);
        let answered = settled.as_ref().map(|settled| (settled.trouble, settled.text.as_deref()));
        let (said, is_error) = match answered {
            None => ("nobody answers here; it was written down", false),
            Some((_, Some(text))) => (text, false),
            Some((true, None)) => ("trouble on the other side, not yours; go on, and ask again later", true),
            Some((false, None)) => ("received", false),
        };
        match call {
            Some(call) => {
                self.return_call(task, session, call, said.to_owned(), is_error).await?;
            }
            // Nobody waits for a receipt.
            None if answered.is_none_or(|(trouble, text)| !trouble && text.is_none()) => {}
            None => {
                let text = notice::caller_reply(&task.view.nonce, name, said);
                self.reply(task, seq, text).await?;
            }
        }
        fail_by(task, settled);
        Ok(())
    }

    /// The result of a call of castra's own tools, once.
    pub(super) async fn return_call(
        &self,
        task: &mut Held,
        session: SessionId,
        call: &str,
        text: String,
        is_error: bool,
    ) -> Result<()> {
        crate::failpoint::failpoint!("task.reply");
        let args = json!({"text": text, "is_error": is_error});
        let subject = Some(call.to_owned());
        match self.supervisor.command(session, TOOL_RESULT, subject, args, &caller(task.id), false).await {
            // Said before a crash.
            Ok(_) | Err(Error::Commit(CommitError::CommandConflict { .. })) => {}
            Err(error) => match error.problem().code {
                ErrorCode::SessionEnded | ErrorCode::SessionLost | ErrorCode::SessionNotFound => {
                    return Ok(());
                }
                _ => return Err(error),
            },
        }
        task.say(TaskEventKind::Reply, Level::Debug, text, json!({"call": call}));
        Ok(())
    }

    /// Answers what an event of the session said; the event names the answer.
    pub(super) async fn reply(&self, task: &mut Held, seq: u64, text: String) -> Result<()> {
        crate::failpoint::failpoint!("task.reply");
        let key = format!("task:{}:reply:{seq}", task.id);
        if let Some(message_id) = self.tell(task, &key, text.clone()).await? {
            task.say(TaskEventKind::Reply, Level::Debug, text, json!({"message_id": message_id}));
        }
        Ok(())
    }
}

/// A hook that failed takes the task with it, where it says so.
fn fail_by(task: &mut Held, settled: Option<Settled>) {
    if let Some(why) = settled.and_then(|settled| settled.fail) {
        task.view.fail(ReasonCode::Hook, format!("a hook failed: {why}"), now(), &mut task.events);
    }
}
