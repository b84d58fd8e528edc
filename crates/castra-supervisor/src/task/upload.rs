//! Files that people hand in: their names, where they are kept, and how they come to where the agent finds them. Each
//! is on disk before it counts; which workspace has it, and whether the agent was told, stands in the task's view.

use super::driver::Driver;
use super::held::Held;
use super::mended::is_for_good;
use super::protocol::notice;
use super::protocol::text::Paths;
use super::view::TaskView;
use super::workspace::Workspace;
use crate::engine::Engine;
use crate::host::{HostError, put};
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::shim::relay::{EntryKind, RelayError};
use castra_proto::task::{Level, TaskEventKind};
use castra_proto::{ErrorCode, SessionId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The largest file, bytes: as of deliverables.
pub(crate) const MAX_BYTES: u64 = super::handover::MAX_BYTES;
/// Of one task: they are part of its state.
pub(crate) const MAX_UPLOADS: usize = 256;
/// Bytes of a file's name, as file systems have it.
const MAX_NAME: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Upload {
    /// Below `uploads/`.
    pub name: String,
    pub size: u64,
    pub sha256: String,
    /// Whose request it was, and the key that they gave it.
    pub key: Option<String>,
    /// The newest session whose workspace got it.
    pub session: Option<SessionId>,
    /// It was there when that session began: its instructions name it.
    pub first: bool,
    /// The agent knows of it.
    pub told: bool,
}

/// The last part of a path, whatever system it is of. None: no file can have that name.
pub(crate) fn safe_name(said: &str) -> Option<String> {
    let last = said.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let name = name.trim();
    ((1..=MAX_NAME).contains(&name.len()) && name != "." && name != "..").then(|| name.to_owned())
}

impl TaskView {
    /// The newest of each name, with its number.
    fn newest_uploads(&self) -> impl Iterator<Item = (usize, &Upload)> {
        let newer = |n: usize, name: &str| self.uploads[n + 1..].iter().any(|later| later.name == name);
        self.uploads.iter().enumerate().filter(move |(n, upload)| !newer(*n, &upload.name))
    }

    pub(crate) fn newest_upload(&self, name: &str) -> Option<&Upload> {
        self.uploads.iter().rfind(|upload| upload.name == name)
    }

    /// What there is goes into a session that has not begun yet. True: something is to be committed.
    pub(crate) fn claim_uploads(&mut self, session: SessionId) -> bool {
        let claimed: Vec<usize> =
            self.newest_uploads().filter(|(_, one)| one.session != Some(session)).map(|(n, _)| n).collect();
        for n in &claimed {
            let upload = &mut self.uploads[*n];
            (upload.session, upload.first, upload.told) = (Some(session), true, true);
        }
        !claimed.is_empty()
    }

    /// What the workspace of a session begins with.
    pub(crate) fn first_uploads(&self, session: SessionId) -> impl Iterator<Item = &Upload> {
        self.newest_uploads()
            .map(|(_, upload)| upload)
            .filter(move |one| one.first && one.session == Some(session))
    }
}

/// Puts what was claimed where the session's agent will find it.
pub(super) async fn plant(
    engine: &Engine,
    task: &Held,
    workspace: &Workspace,
    session: SessionId,
) -> Result<()> {
    for upload in task.view.first_uploads(session) {
        let bytes = kept(engine, task.id, upload).await?;
        place(engine, workspace, &upload.name, bytes, true).await?;
    }
    Ok(())
}

/// What people have handed in since the session began: it gets into the workspace, and the agent hears of it, once.
pub(super) async fn hand_in(driver: &Driver, task: &mut Held, session: SessionId) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let workspace = task.workspace(session);
    for n in 0..task.view.uploads.len() {
        let upload = task.view.uploads[n].clone();
        let there = upload.session == Some(session);
        let newest = task.view.newest_upload(&upload.name) == Some(&upload);
        if (there && upload.told) || (!there && !newest) {
            continue;
        }
        if !there {
            let put = async {
                let bytes = kept(engine, task.id, &upload).await?;
                place(engine, &workspace, &upload.name, bytes, true).await
            };
            match put.await {
                Ok(()) => {}
                // The task goes on without it; an attempt to come tries again.
                Err(error) if is_for_good(&error) => {
                    let text = format!("{} cannot be put there: {}", upload.name, error.problem().detail);
                    task.say(TaskEventKind::Log, Level::Warning, text, json!({}));
                    let upload = &mut task.view.uploads[n];
                    (upload.session, upload.told) = (Some(session), true);
                    task.commit(engine).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        crate::failpoint::failpoint!("upload.tell");
        let text = notice::uploaded(&task.view.nonce, &upload.name, &workspace.paths());
        let key = format!("task:{}:upload:{n}", task.id);
        // None: nobody is there to hear it; the next attempt's agent is told.
        let Some(message_id) = driver.tell(task, &key, text.clone()).await? else { return Ok(()) };
        task.say(TaskEventKind::Reply, Level::Debug, text, json!({"message_id": message_id}));
        let upload = &mut task.view.uploads[n];
        (upload.session, upload.first, upload.told) = (Some(session), false, true);
        task.commit(engine).await?;
    }
    Ok(())
}

async fn kept(engine: &Engine, task: TaskId, upload: &Upload) -> Result<Bytes> {
    engine.store.blob(task, &upload.sha256).await?.ok_or_else(|| {
        let detail = format!("the content of {:?} is missing from CASTRA_HOME/blobs", upload.name);
        Error::new(ErrorCode::Internal, detail)
    })
}

/// Writes a file to `uploads/`; a link there is not followed, nor replaced. Without `replace` another file of that name
/// stays.
///
/// Errors: `invalid_request` for a link or a folder in the way, `conflict` for another file.
pub(crate) async fn place(
    engine: &Engine,
    workspace: &Workspace,
    name: &str,
    bytes: Bytes,
    replace: bool,
) -> Result<()> {
    let files = engine.host.files();
    let at = workspace.upload(name);
    files.mkdir(workspace.upload(""), 0o700).await.map_err(in_the_way)?;
    match files.stat(at.clone()).await.map_err(in_the_way)? {
        None => {}
        Some(entry) if entry.kind != EntryKind::File => {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{:?} is a link or a folder there", at.path),
                "choose another name",
            ));
        }
        Some(_) if replace => {}
        Some(entry) => {
            let same = entry.size == bytes.len() as u64
                && crate::host::get(files, at.clone(), MAX_BYTES).await?.as_ref() == Some(&bytes);
            return if same { Ok(()) } else { Err(taken(name)) };
        }
    }
    Ok(put(files, at, 0o600, true, bytes).await?)
}

/// A link or a file where the folder was to be.
fn in_the_way(error: HostError) -> Error {
    match &error {
        HostError::Relay(relay)
            if matches!(relay, RelayError::Outside { .. }) || relay.errno() == Some(20) =>
        {
            let detail = "a link or a file stands where `uploads/` was, and is not followed";
            Error::with_hint(ErrorCode::InvalidRequest, detail, "remove it, or have the agent remove it")
        }
        _ => error.into(),
    }
}

pub(crate) fn taken(name: &str) -> Error {
    Error::with_hint(
        ErrorCode::Conflict,
        format!("there is another file {name:?} already"),
        "choose another name, or replace it (`?replace=true`, `--replace`)",
    )
}

/// Hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// For the instructions: the files that are there from the start.
pub(super) fn note(view: &TaskView, session: SessionId, paths: &Paths) -> Option<String> {
    let names: Vec<String> = view
        .first_uploads(session)
        .map(|upload| format!("- `{}{}` ({} bytes)", paths.uploads(), upload.name, upload.size))
        .collect();
    let intro = "These files were handed in before you began:";
    (!names.is_empty()).then(|| format!("{intro}\n\n{}", names.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_file_and_leads_nowhere() {
        for (said, name) in [
            ("../../a b.txt", Some("a b.txt")),
            ("a.txt", Some("a.txt")),
            ("C:\\Users\\me\\a.txt", Some("a.txt")),
            ("..\\..\\x", Some("x")),
            ("/etc/passwd", Some("passwd")),
            ("a\nSystem[x]: y", Some("a_System[x]: y")),
            ("ü?.html", Some("ü?.html")),
            ("-rf", Some("-rf")),
            ("", None),
            (" ", None),
            ("a/", None),
            ("..", None),
            ("a/..", None),
            (".", None),
        ] {
            assert_eq!(safe_name(said).as_deref(), name, "{said:?}");
        }
        assert_eq!(safe_name(&"x".repeat(256)), None);
        assert_eq!(safe_name(&format!("{}/a", "x".repeat(300))).as_deref(), Some("a"));
    }

    fn upload(name: &str, sha256: &str) -> Upload {
        Upload { name: name.into(), sha256: sha256.into(), ..Upload::default() }
    }

    #[test]
    fn a_session_begins_with_the_newest_of_each_name() {
        let mut view = TaskView {
            uploads: vec![upload("a", "1"), upload("b", "1"), upload("a", "2")],
            ..Default::default()
        };
        let (one, two) = (SessionId::now(), SessionId::now());
        assert!(view.claim_uploads(one));
        assert!(!view.claim_uploads(one), "done again it is the same");
        let first = |view: &TaskView, session| -> Vec<(String, String)> {
            view.first_uploads(session).map(|one| (one.name.clone(), one.sha256.clone())).collect()
        };
        let both = [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(first(&view, one), both);
        assert_eq!(first(&view, two), []);
        // Handed in while the session runs: its instructions do not name it; the next one's do.
        view.uploads.push(Upload { session: Some(one), told: true, ..upload("c", "1") });
        assert_eq!(first(&view, one), both);
        assert!(view.claim_uploads(two));
        assert_eq!(first(&view, two).len(), 3);
        assert_eq!(
            note(&view, two, &Paths::fresh()).unwrap(),
            "These files were handed in before you began:\n\n- `uploads/b` (0 bytes)\n- `uploads/a` (0 bytes)\n\
             - `uploads/c` (0 bytes)"
        );
    }
}
