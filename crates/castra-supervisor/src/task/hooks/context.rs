//! What a hook may do while it runs: in the task's workspace, and to its agent. The same for a callback and for a program
//! that has the token of this one call.

use super::change;
use super::command::environment;
use super::desk::Firing;
use crate::supervisor::{Caller, Supervisor};
use crate::task::driver::caller;
use crate::task::handover::MAX_BYTES;
use crate::task::held::Held;
use crate::task::protocol::notice;
use crate::task::workspace::Workspace;
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::api::SendMessage;
use castra_proto::shim::relay::{At, Exec};
use castra_proto::task::{HookExec, HookExecEnd, HookPoint, Level, TaskEventKind};
use castra_proto::{ErrorCode, SessionId, TaskId};
use castra_store::CommitError;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// What one program may take, in seconds, and what it takes at most.
const USUAL_S: u64 = 60;
const LONGEST_S: u64 = 3600;

/// One call of a hook. Clones are the same call.
#[derive(Clone)]
pub struct HookCtx {
    supervisor: Supervisor,
    firing: Arc<Firing>,
}

impl std::fmt::Debug for HookCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookCtx").field("firing", &self.firing.id).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// The hook that runs now with this secret (`CASTRA_HOOK_TOKEN`).
    pub fn hook(&self, secret: &str) -> Option<HookCtx> {
        let firing = self.engine.hooks.find(secret)?;
        Some(HookCtx { supervisor: self.clone(), firing })
    }
}

impl HookCtx {
    pub(super) fn new(supervisor: &Supervisor, firing: &Arc<Firing>) -> Self {
        Self { supervisor: supervisor.clone(), firing: firing.clone() }
    }

    pub fn task(&self) -> TaskId {
        self.firing.task
    }

    pub fn on(&self) -> HookPoint {
        self.firing.on
    }

    /// Who acts, where it is written who did.
    pub fn caller(&self) -> Caller {
        Caller { by: format!("hook:{}", self.firing.id), ..caller(self.firing.task) }
    }

    async fn held(&self) -> Result<Held> {
        let engine = &self.supervisor.engine;
        Held::load(engine, self.firing.task)
            .await?
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("task {} was removed", self.firing.task)))
    }

    fn session(&self) -> Result<SessionId> {
        self.firing.session.ok_or_else(|| Error::new(ErrorCode::Conflict, "the task has no session yet"))
    }

    async fn workspace(&self) -> Result<Workspace> {
        Ok(self.held().await?.workspace(self.session()?))
    }

    /// Runs a program on the task's machine, in its workspace, outside its sandbox.
    ///
    /// Errors: `invalid_request` for one that is not there; `conflict` before there is a workspace.
    pub async fn exec(&self, request: HookExec) -> Result<HookExecEnd> {
        let engine = &self.supervisor.engine;
        let limit = request.timeout_s.unwrap_or(USUAL_S);
        if request.argv.first().is_none_or(String::is_empty) || limit == 0 || limit > LONGEST_S {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("`argv` is empty, or `timeout_s` is not between 1 and {LONGEST_S}"),
                "name a program and its arguments",
            ));
        }
        let cwd = super::folder(engine, &self.held().await?, self.firing.session).await?;
        let cwd = cwd.ok_or_else(|| Error::new(ErrorCode::Conflict, "the task has no workspace any more"))?;
        let env = environment(engine, &self.firing, Some(&cwd));
        let exec = Exec { argv: request.argv, env, cwd, timeout_ms: limit * 1000 };
        let end = engine.host.exec(exec, request.stdin.unwrap_or_default().into(), None).await?;
        Ok(HookExecEnd {
            code: end.code,
            signal: end.signal,
            timed_out: end.timed_out,
            stdout: end.stdout,
            stderr: end.stderr,
        })
    }

    async fn at(&self, path: &str) -> Result<At> {
        if path.starts_with('/') || path.trim_matches('/').is_empty() {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{path:?} is no path of a file in the workspace"),
                "name it relative to the workspace",
            ));
        }
        Ok(self.workspace().await?.at(path))
    }

    /// Writes a file in the workspace, with the folders that it needs; no link is followed.
    pub async fn put(&self, path: &str, content: Bytes) -> Result<()> {
        let at = self.at(path).await?;
        let files = self.supervisor.engine.host.files();
        if let Some((folder, _)) = at.path.rsplit_once('/') {
            files.mkdir(At { root: at.root.clone(), path: folder.into() }, 0o755).await?;
        }
        Ok(crate::host::put(files, at, 0o644, true, content).await?)
    }

    /// A file of the workspace, of at most 64 MiB; no link is followed.
    ///
    /// Errors: `not_found`, `too_large`.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        let at = self.at(path).await?;
        let found = crate::host::get(self.supervisor.engine.host.files(), at, MAX_BYTES).await?;
        found.ok_or_else(|| {
            Error::new(ErrorCode::TooLarge, format!("{path:?} has more than {MAX_BYTES} bytes"))
        })
    }

    /// Of `deliverable`: the bytes that are handed over, whatever has become of the file since.
    pub fn offered(&self) -> Option<Bytes> {
        self.firing.offered.clone()
    }

    /// How far the task is, as if its agent had said so.
    pub async fn progress(&self, percent: Option<u8>, message: Option<&str>) -> Result<()> {
        let percent = percent.map(|percent| percent.min(100));
        change(&self.supervisor.engine, self.firing.task, |task| {
            let now = &mut task.view.progress;
            now.percent = percent.or(now.percent);
            now.message = message.map(str::to_owned).or(now.message.take());
            let said = json!({"percent": percent, "message": message.unwrap_or_default()});
            task.say(TaskEventKind::Progress, Level::Info, message.unwrap_or_default(), said);
            true
        })
        .await
    }

    /// Says something to the agent, as castra does. Of a call that is made again after a crash, the same text is heard
    /// once.
    ///
    /// Errors: `conflict` before the session begins; `session_ended` after its end.
    pub async fn send_to_agent(&self, text: &str) -> Result<()> {
        let session = self.session()?;
        let task = self.held().await?;
        if self.supervisor.engine.store.session(session).await?.is_none() {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                "the agent is not there yet",
                "put what it is to know into a file",
            ));
        }
        let n = self.firing.sent.fetch_add(1, Ordering::Relaxed);
        // In another order, or in other words, it is another message.
        let key = Uuid::new_v5(&self.firing.id, format!("{n} {text}").as_bytes());
        let message = SendMessage::from(notice::say(&task.view.nonce, text));
        let key = format!("task:{}:hook:{key}", self.firing.task);
        match self.supervisor.send(session, message, Some(&key), &self.caller()).await {
            Ok(_) | Err(Error::Commit(CommitError::IdempotencyMismatch)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
