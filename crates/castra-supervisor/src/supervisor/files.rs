//! Files of a session: inside `work/` only, following no links, on the host that holds them.

use super::Supervisor;
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::api::Scope;
use castra_proto::shim::relay::{At, EntryKind};
use castra_proto::{ErrorCode, SessionId, SessionSpec, Timestamp};
use serde_json::{Value, json};

/// What claude or git take orders from when it lies in their folder.
const ORDERS: [&str; 4] = [".claude", ".claude.json", ".mcp.json", ".git"];

/// The scope that writing this path beneath `work/` needs. Settings, hooks and servers decide what is asked and
/// what runs unasked: whoever may not approve may not put them there either.
pub fn upload_scope(path: &str) -> Scope {
    let orders = |part: &str| ORDERS.iter().any(|name| name.eq_ignore_ascii_case(part));
    if path.split('/').any(orders) { Scope::Approve } else { Scope::Drive }
}

impl Supervisor {
    async fn in_work(&self, id: SessionId, path: &str) -> Result<At> {
        let row = self.row(id).await?;
        let spec: SessionSpec = serde_json::from_str(&row.spec).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("a stored spec cannot be read: {error}"))
        })?;
        let path = path.trim_end_matches('/');
        if path.starts_with('/') {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{path:?} is absolute"),
                "name a path inside the session's work/, relative to it",
            ));
        }
        // Beneath a folder that is no agent's: `work/` itself may have been replaced by a link, and a caller's
        // folder lost its place to one after it was resolved.
        let below = |folder: &str| [folder, path].join("/").trim_matches('/').to_owned();
        Ok(match &spec.workdir {
            None => At::home(below(&format!("sessions/{id}/work"))),
            Some(workdir) => At::dir("/", below(workdir.trim_start_matches('/'))),
        })
    }

    /// Writes a file beneath `work/`, with the folders it needs.
    pub async fn put_file(&self, id: SessionId, path: &str, content: Bytes) -> Result<()> {
        if path.trim_matches('/').is_empty() {
            return Err(Error::new(ErrorCode::InvalidRequest, "`path` must name a file"));
        }
        let at = self.in_work(id, path).await?;
        let files = self.engine.host.files();
        if let Some((folder, _)) = at.path.rsplit_once('/') {
            files.mkdir(At { root: at.root.clone(), path: folder.into() }, 0o755).await?;
        }
        Ok(crate::host::put(files, at, 0o644, true, content).await?)
    }

    /// At most `len` bytes from `offset`; empty at the end.
    pub async fn read_file(&self, id: SessionId, path: &str, offset: u64, len: usize) -> Result<Bytes> {
        let at = self.in_work(id, path).await?;
        Ok(self.engine.host.files().get(at, offset, len as u64).await?.0)
    }

    /// The entries of a folder beneath `work/`: `{name, kind: file|dir|link|other, size, modified}`.
    pub async fn list_files(&self, id: SessionId, path: &str) -> Result<Vec<Value>> {
        let at = self.in_work(id, path).await?;
        let mut entries = self.engine.host.files().list(at).await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let shown = entries.into_iter().map(|entry| {
            let kind = match entry.kind {
                EntryKind::File => "file",
                EntryKind::Dir => "dir",
                EntryKind::Link => "link",
                EntryKind::Other => "other",
            };
            let modified = Timestamp(entry.mtime_ns / 1000);
            json!({"name": entry.name, "kind": kind, "size": entry.size, "modified": modified})
        });
        Ok(shown.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_orders_needs_a_scope_that_may_give_them() {
        for (path, scope) in [
            ("a/b.txt", Scope::Drive),
            ("CLAUDE.md", Scope::Drive),
            (".gitignore", Scope::Drive),
            ("a.claude", Scope::Drive),
            (".claude/settings.local.json", Scope::Approve),
            ("sub/.Claude/settings.json", Scope::Approve),
            (".mcp.json", Scope::Approve),
            ("sub/.git/hooks/pre-commit", Scope::Approve),
        ] {
            assert_eq!(upload_scope(path), scope, "{path}");
        }
    }
}
