//! Files of a session: inside `work/` only, following no links, on the host that holds them.

use super::Supervisor;
use crate::session::launch::Place;
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::shim::relay::{At, EntryKind};
use castra_proto::{ErrorCode, SessionId, SessionSpec, Timestamp};
use serde_json::{Value, json};

impl Supervisor {
    async fn in_work(&self, id: SessionId, path: &str) -> Result<At> {
        let row = self.row(id).await?;
        let spec: SessionSpec = serde_json::from_str(&row.spec).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("a stored spec cannot be read: {error}"))
        })?;
        let place = Place::new(&self.engine.probe, id, &spec);
        Ok(At::dir(place.work, path.trim_matches('/')))
    }

    /// Writes a file beneath `work/`, with the folders it needs.
    pub async fn put_file(&self, id: SessionId, path: &str, content: Bytes) -> Result<()> {
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
