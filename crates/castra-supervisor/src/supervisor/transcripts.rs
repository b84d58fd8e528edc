//! claude's own conversations on a host: listed, and taken over as sessions.

use super::start::{Plan, check_scope};
use super::{Caller, Supervisor};
use crate::engine::now;
use crate::session::finish::is_missing;
use crate::session::view::Origin;
use crate::{Error, Result};
use castra_claude::transcript::{self, project_key};
use castra_proto::api::TranscriptInfo;
use castra_proto::shim::relay::{At, Entry, EntryKind};
use castra_proto::{ErrorCode, Kind, Session, SessionId, SessionSpec, Timestamp};
use castra_store::NewEvent;
use serde_json::json;
use uuid::Uuid;

/// Read from each end of a long transcript for its preview. Bytes.
const PREVIEW_BYTES: u64 = 256 << 10;

struct Found {
    dir: String,
    id: String,
    entry: Entry,
}

impl Supervisor {
    /// claude's own conversations on this host; of one folder, or all. Newest first.
    pub async fn transcripts(&self, cwd: Option<&str>, limit: usize) -> Result<Vec<TranscriptInfo>> {
        let mut found = self.find_transcripts(cwd).await?;
        found.sort_by_key(|found| std::cmp::Reverse(found.entry.mtime_ns));
        found.truncate(limit.clamp(1, 1000));
        let mut infos = Vec::with_capacity(found.len());
        for found in found {
            infos.push(self.info_of(found).await?);
        }
        Ok(infos)
    }

    async fn find_transcripts(&self, cwd: Option<&str>) -> Result<Vec<Found>> {
        let files = self.engine.host.files();
        let root = format!("{}/.claude/projects", self.engine.probe.user_home);
        let keys = match cwd {
            Some(cwd) => {
                let real = self.engine.real_path(cwd).await?.unwrap_or_else(|| cwd.to_owned());
                vec![project_key(&real)]
            }
            None => match files.list(At::dir(root.clone(), "")).await {
                Ok(entries) => entries
                    .into_iter()
                    .filter(|entry| entry.kind == EntryKind::Dir)
                    .map(|entry| entry.name)
                    .collect(),
                Err(error) if is_missing(&error) => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        };
        let mut found = Vec::new();
        for key in keys {
            let dir = format!("{root}/{key}");
            let entries = match files.list(At::dir(dir.clone(), "")).await {
                Ok(entries) => entries,
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let id = entry.name.strip_suffix(".jsonl").filter(|id| id.parse::<Uuid>().is_ok());
                if let Some(id) = id.map(str::to_owned) {
                    found.push(Found { dir: dir.clone(), id, entry });
                }
            }
        }
        Ok(found)
    }

    async fn info_of(&self, found: Found) -> Result<TranscriptInfo> {
        let files = self.engine.host.files();
        let at = At::dir(found.dir, found.entry.name.clone());
        let size = found.entry.size;
        let (head, _) = files.get(at.clone(), 0, PREVIEW_BYTES).await?;
        let mut bytes = head.to_vec();
        if size > PREVIEW_BYTES {
            // The middle is left out: only whole lines of the end count.
            let tail_from = size.saturating_sub(PREVIEW_BYTES).max(PREVIEW_BYTES);
            let (tail, _) = files.get(at, tail_from, PREVIEW_BYTES).await?;
            bytes.push(b'\n');
            bytes.extend_from_slice(&tail);
        }
        let preview = transcript::preview(&bytes);
        let session_id = match found.id.parse() {
            Ok(claude) => self.engine.store.claude_session(claude).await?,
            Err(_) => None,
        };
        Ok(TranscriptInfo {
            id: found.id,
            title: preview.title,
            modified: Timestamp(found.entry.mtime_ns / 1000),
            size,
            cwd: preview.cwd,
            first_input: preview.first_input,
            last_input: preview.last_input,
            last_output: preview.last_output,
            session_id,
        })
    }

    /// A castra session made of a conversation that castra did not start; its history imported as events.
    ///
    /// With `home: isolated` the session goes on in a copy, and the original is not touched.
    pub async fn adopt(
        &self,
        claude_session_id: &str,
        mut spec: SessionSpec,
        caller: &Caller,
    ) -> Result<Session> {
        check_scope(&spec, caller)?;
        let unknown = || {
            Error::with_hint(
                ErrorCode::SessionNotFound,
                format!("claude has no conversation {claude_session_id:?} here"),
                "`castra sessions --all` lists them",
            )
        };
        let claude: Uuid = claude_session_id.parse().map_err(|_| unknown())?;
        let name = format!("{claude}.jsonl");
        let found = self.find_transcripts(None).await?.into_iter().find(|found| found.entry.name == name);
        let found = found.ok_or_else(unknown)?;
        let at = At::dir(found.dir.clone(), found.entry.name);
        let bytes = crate::session::launch::whole(self.engine.host.files(), at).await?;
        if spec.workdir.is_none() {
            spec.workdir = transcript::preview(&bytes).cwd;
        }
        let history = transcript::imported(&bytes).into_iter().map(|entry| NewEvent {
            at: entry.timestamp.and_then(|at| serde_json::from_value(json!(at)).ok()).unwrap_or_else(now),
            run: 0,
            turn: 0,
            kind: Kind::of_claude(entry.kind),
            data: entry.line.into(),
            raw: None,
        });
        let mut plan = Plan::new(SessionId::now(), spec);
        plan.history = history.collect();
        plan.conversation = claude;
        plan.said = json!({"adopted": claude, "records": plan.history.len()});
        plan.origin = Some(Origin::Adopted { project_dir: found.dir });
        self.begin(plan, None, caller).await
    }
}
