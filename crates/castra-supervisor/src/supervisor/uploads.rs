//! Files into a task and out of its workspace. What is handed in is on disk before it counts; a running task's
//! workspace has it when the call returns.

use super::tasks::TRIES;
use super::{Caller, Supervisor, upload_scope};
use crate::task::held::Held;
use crate::task::upload::{self, MAX_BYTES, MAX_UPLOADS, Upload, safe_name};
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::task::{Level, TaskEventKind, Uploaded};
use castra_proto::{ErrorCode, SessionId, TaskId, TaskState};
use castra_store::{CommitError, TaskError};
use serde_json::json;

/// In `uploads/`, of a task that has children.
const CHILDREN: [&str; 2] = ["children", "children.json"];

/// A file, and what it is to be called.
struct Request<'a> {
    id: TaskId,
    name: String,
    content: Bytes,
    replace: bool,
    key: Option<String>,
    sha256: String,
    by: &'a str,
}

impl Supervisor {
    /// Hands a file in. It lies in the workspace's `uploads/` under the last part of `name`, and the agent of a task that
    /// runs is told; before, and after, the file is kept, and is there when an attempt begins. With `key`
    /// (Idempotency-Key) a retry changes nothing; the same file under the same name does not either.
    ///
    /// Errors: `conflict` for another file of that name without `replace`; `invalid_request` for a name that cannot be
    /// one, or a link in the way; `too_large`.
    pub async fn upload(
        &self,
        id: TaskId,
        name: &str,
        content: Bytes,
        replace: bool,
        key: Option<&str>,
        caller: &Caller,
    ) -> Result<Uploaded> {
        let Some(name) = safe_name(name) else {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{name:?} is no name of a file"),
                "name it by 1 to 255 bytes",
            ));
        };
        if CHILDREN.contains(&&*name) {
            let detail = format!("{name:?} is castra's own: what a task's children have handed over");
            return Err(Error::with_hint(ErrorCode::InvalidRequest, detail, "choose another name"));
        }
        let needed = upload_scope(&name);
        if caller.scope < needed {
            let detail = format!("handing in {name:?} needs the scope `{}`", needed.as_str());
            return Err(Error::new(ErrorCode::Forbidden, detail));
        }
        let size = content.len() as u64;
        if size > MAX_BYTES {
            return Err(Error::with_hint(
                ErrorCode::TooLarge,
                format!("the file has {size} bytes; at most {MAX_BYTES} are taken"),
                "have the task fetch it: `inputs`",
            ));
        }
        let key = key.map(|key| format!("{}:{key}", caller.by));
        let digest = content.clone();
        let sha256 = tokio::task::spawn_blocking(move || upload::sha256(&digest))
            .await
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.take(&Request { id, name, content, replace, key, sha256, by: &caller.by }).await
    }

    /// What is kept for nothing goes with the task: another file of it may have the same content.
    async fn take(&self, request: &Request<'_>) -> Result<Uploaded> {
        let engine = &self.engine;
        let Request { id, ref name, ref content, replace, ref key, ref sha256, by } = *request;
        let mut kept = false;
        for _ in 0..TRIES {
            let Some(mut task) = Held::load(engine, id).await? else {
                return Err(Error::new(ErrorCode::NotFound, format!("there is no task {id}")));
            };
            let workspace = task.workspace(task.session().unwrap_or_else(SessionId::now));
            let done = |upload: &Upload| Uploaded {
                task_id: id,
                path: format!("{}{}", workspace.paths().uploads(), upload.name),
                size: upload.size,
                sha256: upload.sha256.clone(),
            };
            if let Some(before) = key.as_ref().and_then(|key| known(&task, key)) {
                let same = before.name == *name && before.sha256 == *sha256;
                return match same {
                    true => Ok(done(before)),
                    false => Err(CommitError::IdempotencyMismatch.into()),
                };
            }
            if let (Some(before), false) = (task.view.newest_upload(name), replace) {
                return match before.sha256 == *sha256 {
                    true => Ok(done(before)),
                    false => Err(upload::taken(name)),
                };
            }
            if task.view.uploads.len() >= MAX_UPLOADS {
                return Err(Error::with_hint(
                    ErrorCode::TooLarge,
                    format!("the task was handed {MAX_UPLOADS} files already"),
                    "pack several files into one",
                ));
            }
            let running = matches!(task.view.state, TaskState::Running | TaskState::NeedsInput);
            let session =
                task.session().filter(|_| running && task.view.begun && task.view.outcome.is_none());
            if session.is_some() {
                upload::place(engine, &workspace, name, content.clone(), replace).await?;
                crate::failpoint::failpoint!("upload.placed");
            }
            if !kept {
                engine.store.put_blob(id, content.clone()).await?;
                kept = true;
            }
            crate::failpoint::failpoint!("upload.kept");
            let size = content.len() as u64;
            let new = Upload {
                name: name.clone(),
                size,
                sha256: sha256.clone(),
                key: key.clone(),
                session,
                ..Upload::default()
            };
            let uploaded = done(&new);
            task.view.uploads.push(new);
            let data = json!({"path": uploaded.path, "size": size, "sha256": sha256, "by": by});
            let message = format!("{}, {size} bytes", uploaded.path);
            task.say(TaskEventKind::Upload, Level::Event, message, data);
            match task.commit(engine).await {
                // The driver was faster, or somebody else who hands something in.
                Err(Error::Task(TaskError::Moved(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(uploaded),
            }
        }
        Err(Error::with_hint(ErrorCode::Conflict, "the task changes all the time", "try again"))
    }

    /// The session whose workspace is the task's: of its newest attempt.
    ///
    /// Errors: `not_found` before the first one begins, and when it was removed.
    pub async fn task_session(&self, id: TaskId) -> Result<SessionId> {
        self.task(id).await?.session_id.ok_or_else(|| {
            Error::with_hint(
                ErrorCode::NotFound,
                "the task has no workspace yet, or none any more",
                "`castra task get ID PATH` has what it handed over",
            )
        })
    }
}

fn known<'a>(task: &'a Held, key: &str) -> Option<&'a Upload> {
    task.view.uploads.iter().find(|upload| upload.key.as_deref() == Some(key))
}
