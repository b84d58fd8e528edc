//! What an attempt finds where it works: instructions, the log it reports in, folders for what it takes and hands over.
//! In a folder of the user's own all of it is below `.castra/`. Refuses to follow links there.

use super::protocol::Enabled;
use super::protocol::notice::{Where, resume_log_line};
use super::protocol::text::{Channels, Parts, Paths, instructions};
use super::view::has_mcp;
use crate::Result;
use crate::engine::now;
use crate::host::{Files, get, put};
use crate::session::finish::is_missing;
use bytes::Bytes;
use castra_proto::shim::relay::{At, MAX_DATA};
use castra_proto::{SessionId, TaskId, TaskSpec};
use serde::{Deserialize, Serialize};

/// Beside what a user has in a folder of theirs; git does not see it.
const BESIDE: &str = ".castra";

/// What an attempt that goes on finds of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The instructions are not those of now.
    pub is_other: bool,
    /// Bytes of what they have said, as far as it was put away.
    archived: u64,
    /// Bytes of what is written of resumes.
    resumes: u64,
}

impl Found {
    /// The same, looked at again after a crash: what was written since is written once more, and what somebody has taken
    /// away meanwhile is not there.
    pub(crate) fn and(self, again: Self) -> Self {
        Self {
            is_other: self.is_other || again.is_other,
            archived: self.archived.min(again.archived),
            resumes: self.resumes.min(again.resumes),
        }
    }
}

/// Where an attempt works.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    session: SessionId,
    /// The user's own folder, if it is one.
    workdir: Option<String>,
    /// Of `optio.log` and the others, below the folder, with a slash at its end.
    prefix: String,
}

impl Workspace {
    pub(crate) fn new(task: TaskId, session: SessionId, spec: &TaskSpec) -> Self {
        let workdir = spec.session.workdir.clone();
        // Several tasks may share a folder.
        let id = task.to_string();
        let own = id.rsplit('-').next().unwrap_or(&id);
        let prefix = if workdir.is_some() { format!("{BESIDE}/{own}/") } else { String::new() };
        Self { session, workdir, prefix }
    }

    /// A path below the folder that the agent works in.
    pub(crate) fn at(&self, path: &str) -> At {
        let below = |folder: String| format!("{folder}/{path}").trim_end_matches('/').to_owned();
        match &self.workdir {
            None => At::home(below(format!("sessions/{}/work", self.session))),
            // Beneath a folder that is no agent's: the folder itself may have been replaced by a link.
            Some(workdir) => At::dir("/", below(workdir.trim_matches('/').to_owned())),
        }
    }

    fn own(&self, path: &str) -> At {
        self.at(&format!("{}{path}", self.prefix))
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::in_folder(&self.prefix)
    }

    /// The agent's log, as the session's tail finds it.
    pub(crate) fn log(&self) -> String {
        self.paths().log()
    }

    pub(crate) fn place(&self) -> Where {
        if self.workdir.is_some() { Where::Prompt } else { Where::File }
    }

    /// A file for the agent, below `uploads/`.
    pub(crate) async fn put_upload(&self, files: &dyn Files, path: &str, bytes: Bytes) -> Result<()> {
        let at = self.own(&format!("uploads/{path}"));
        if let Some((folder, _)) = at.path.rsplit_once('/') {
            files.mkdir(At { root: at.root.clone(), path: folder.into() }, 0o700).await?;
        }
        Ok(put(files, at, 0o600, false, bytes).await?)
    }

    pub(crate) fn deliverable(&self, path: &str) -> At {
        self.own(&format!("deliverables/{path}"))
    }

    /// What was fetched for the agent.
    pub(crate) fn input(&self, path: &str) -> At {
        self.own(path)
    }

    /// Below `uploads/`; the folder itself when empty.
    pub(crate) fn upload(&self, name: &str) -> At {
        self.own(&format!("uploads/{name}"))
    }

    /// A path as the agent wrote it, as one below `deliverables/`. None: it leads elsewhere.
    pub(crate) fn below_deliverables(&self, said: &str, work: &str) -> Option<String> {
        let said = said.strip_prefix(work).map_or(said, |rest| rest.trim_start_matches('/'));
        let mut parts: Vec<&str> = Vec::new();
        for part in said.split('/') {
            match part {
                "" | "." => {}
                ".." => return None,
                part => parts.push(part),
            }
        }
        if said.starts_with('/') {
            return None;
        }
        let path = parts.join("/");
        let folder = format!("{}deliverables/", self.prefix);
        Some(path.strip_prefix(&folder)?.to_owned()).filter(|path| !path.is_empty())
    }

    /// What the agent is told, whole.
    pub(crate) fn instructions(
        &self,
        spec: &TaskSpec,
        nonce: &str,
        enabled: Enabled,
        notes: &[String],
    ) -> String {
        let mut notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        let channels = Channels { log: spec.protocol.has_log(), mcp: has_mcp(spec) };
        let uploads = self.paths().uploads();
        let before = format!(
            "Other tasks have run before this one, and for it. `{uploads}children.json` says what each came to; what they \
             have handed over lies in `{uploads}children/`, in a folder for each.",
        );
        if !spec.children.is_empty() {
            notes.insert(0, &before);
        }
        instructions(&Parts {
            channels,
            enabled,
            nonce,
            paths: self.paths(),
            resumable: true,
            uploads: true,
            instructions: spec.instructions.as_deref().unwrap_or_default(),
            notes: &notes,
        })
    }

    /// Makes it for a fresh attempt. Done again after a crash, it makes the same again; what the agent has written
    /// since is left alone.
    pub(crate) async fn plant(&self, files: &dyn Files, instructions: &str) -> Result<()> {
        for dir in ["", "deliverables", "uploads"] {
            files.mkdir(self.own(dir), 0o700).await?;
        }
        if self.workdir.is_some() {
            files
                .put(self.at(&format!("{BESIDE}/.gitignore")), 0o600, false, Bytes::from_static(b"*\n"))
                .await?;
        } else {
            put(files, self.at("CLAUDE.md"), 0o600, false, instructions.as_bytes().to_vec().into()).await?;
        }
        for name in ["optio.log", "resume.log"] {
            if files.stat(self.own(name)).await?.is_none() {
                files.put(self.own(name), 0o600, false, Bytes::new()).await?;
            }
        }
        Ok(())
    }

    /// What an attempt that goes on finds, before anything is made for it.
    pub(crate) async fn found(&self, files: &dyn Files, instructions: &str) -> Result<Found> {
        let size = async |name: &str| -> Result<u64> {
            Ok(files.stat(self.own(name)).await?.map_or(0, |entry| entry.size))
        };
        let is_same = async || match get(files, self.at("CLAUDE.md"), instructions.len() as u64).await {
            Ok(found) => Ok(found.is_some_and(|found| found == instructions.as_bytes())),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(Found {
            is_other: self.workdir.is_none() && !is_same().await?,
            archived: size("optio.log.old").await?,
            resumes: size("resume.log").await?,
        })
    }

    /// Makes it for an attempt that goes on: what was said before is put away, so that it is not said again; the
    /// instructions are those of now. Done again after a crash, with the same `found`, it makes the same again.
    pub(crate) async fn refresh(&self, files: &dyn Files, instructions: &str, found: Found) -> Result<()> {
        self.put_away(files, found.archived).await?;
        self.plant(files, instructions).await?;
        let line = format!("{}\n", resume_log_line(now(), found.is_other));
        Ok(files.append(self.own("resume.log"), found.resumes, 0o600, line.into()).await?)
    }

    /// Empties the log, once all of it, however long, stands in the archive from `offset` on.
    async fn put_away(&self, files: &dyn Files, offset: u64) -> Result<()> {
        let mut done = 0;
        loop {
            let piece = match files.get(self.own("optio.log"), done, MAX_DATA as u64).await {
                Ok((piece, _)) => piece,
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if piece.is_empty() {
                break;
            }
            let len = piece.len() as u64;
            files.append(self.own("optio.log.old"), offset + done, 0o600, piece).await?;
            done += len;
        }
        if done > 0 {
            files.put(self.own("optio.log"), 0o600, false, Bytes::new()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_holds_for_who_comes_again() {
        let found = |is_other, archived, resumes| Found { is_other, archived, resumes };
        for (before, again, expected) in [
            // All was written; then one of both, of which the other is gone; nothing.
            (found(true, 5, 0), found(false, 9, 40), found(true, 5, 0)),
            (found(false, 5, 20), found(true, 0, 40), found(true, 0, 20)),
            (found(false, 5, 20), found(false, 5, 20), found(false, 5, 20)),
        ] {
            assert_eq!(before.and(again), expected);
        }
    }

    #[test]
    fn only_what_is_below_deliverables_is_one() {
        let fresh = Workspace { session: SessionId::now(), workdir: None, prefix: String::new() };
        let own =
            Workspace { workdir: Some("/home/u/p".into()), prefix: ".castra/1/".into(), ..fresh.clone() };
        for (workspace, work, said, path) in [
            (&fresh, "/w", "deliverables/a.md", Some("a.md")),
            (&fresh, "/w", "./deliverables//a b/c.md", Some("a b/c.md")),
            (&fresh, "/w", "/w/deliverables/a.md", Some("a.md")),
            (&fresh, "/w", "deliverables", None),
            (&fresh, "/w", "deliverables/", None),
            (&fresh, "/w", "deliverables/../x", None),
            (&fresh, "/w", "../x", None),
            (&fresh, "/w", "/etc/passwd", None),
            (&fresh, "/w", "/deliverables/a.md", None),
            (&fresh, "/w", "report.md", None),
            (&fresh, "/w", "", None),
            (&own, "/home/u/p", ".castra/1/deliverables/a.md", Some("a.md")),
            (&own, "/home/u/p", "deliverables/a.md", None),
        ] {
            assert_eq!(workspace.below_deliverables(said, work).as_deref(), path, "{said}");
        }
    }
}
