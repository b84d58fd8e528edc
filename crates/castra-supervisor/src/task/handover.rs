//! Deliverables: fetched from where the agent has put them, kept, and what it is told about them.

use super::protocol::notice::Rejection;
use super::workspace::Workspace;
use crate::Result;
use crate::engine::Engine;
use crate::host::HostError;
use bytes::Bytes;
use castra_proto::TaskId;
use castra_proto::shim::relay::{EntryKind, RelayError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The largest file that is taken, bytes.
pub(crate) const MAX_BYTES: u64 = 64 << 20;
/// Folders within folders that are looked into when what is left is collected, and files that are taken so.
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 1000;

/// A file that was taken: its bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub path: String,
    pub size: u64,
    pub sha256: String,
    pub media_type: String,
}

/// A file as it lay there; nothing of it is kept yet.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub path: String,
    pub bytes: Bytes,
}

impl Seen {
    pub(crate) fn media_type(&self) -> String {
        media_type(&self.path, &self.bytes)
    }

    pub(crate) fn sha256(&self) -> String {
        let hash: [u8; 32] = Sha256::digest(&self.bytes).into();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Takes what lies at a path below `deliverables/`. The inner error is the agent's to hear.
pub(crate) async fn take(
    engine: &Engine,
    task: TaskId,
    workspace: &Workspace,
    path: &str,
) -> Result<Result<Taken, Rejection>> {
    Ok(match see(engine, workspace, path).await? {
        Ok(seen) => Ok(keep(engine, task, seen).await?),
        Err(why) => Err(why),
    })
}

/// Keeps what was seen.
pub(crate) async fn keep(engine: &Engine, task: TaskId, seen: Seen) -> Result<Taken> {
    let (media_type, size) = (seen.media_type(), seen.bytes.len() as u64);
    let sha256 = engine.store.put_blob(task, seen.bytes).await?;
    Ok(Taken { path: seen.path, size, sha256, media_type })
}

/// Reads it.
pub(crate) async fn see(
    engine: &Engine,
    workspace: &Workspace,
    path: &str,
) -> Result<Result<Seen, Rejection>> {
    let files = engine.host.files();
    let at = workspace.deliverable(path);
    let entry = match files.stat(at.clone()).await {
        Ok(Some(entry)) => entry,
        Ok(None) => return Ok(Err(Rejection::Missing)),
        Err(error) => return rejected(error),
    };
    match entry.kind {
        EntryKind::File => {}
        EntryKind::Link => return Ok(Err(Rejection::BadPath)),
        EntryKind::Dir | EntryKind::Other => return Ok(Err(Rejection::NotAFile)),
    }
    let bytes = match crate::host::get(files, at, MAX_BYTES).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Err(Rejection::TooLarge { size: entry.size, limit: MAX_BYTES })),
        Err(error) => return rejected(error),
    };
    Ok(Ok(Seen { path: path.to_owned(), bytes }))
}

/// What only the agent can mend is said to it; a host that fails is tried again.
fn rejected<T>(error: HostError) -> Result<Result<T, Rejection>> {
    let rejection = match &error {
        HostError::Relay(RelayError::Outside { .. } | RelayError::BadPath { .. }) => Rejection::BadPath,
        HostError::Relay(relay) => match relay.errno() {
            Some(2) => Rejection::Missing,
            Some(20 | 36 | 40) => Rejection::BadPath,
            Some(6 | 21 | 22) => Rejection::NotAFile,
            Some(1 | 13) => Rejection::Unreadable,
            _ => return Err(error.into()),
        },
        _ => return Err(error.into()),
    };
    Ok(Err(rejection))
}

/// The files below `deliverables/`, whoever has spoken of them.
pub(crate) async fn left(engine: &Engine, workspace: &Workspace) -> Result<Vec<String>> {
    let files = engine.host.files();
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match files.list(workspace.deliverable(&folder)).await {
            Ok(entries) => entries,
            // Removed, or replaced by something else: nothing is handed over there.
            Err(HostError::Relay(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
            match entry.kind {
                EntryKind::File => found.push(path),
                EntryKind::Dir if depth < MAX_DEPTH => folders.push((path, depth + 1)),
                _ => {}
            }
        }
    }
    found.sort();
    found.truncate(MAX_FILES);
    Ok(found)
}

/// By its name; without a telling one, by whether it is text.
fn media_type(path: &str, bytes: &Bytes) -> String {
    match mime_guess::from_path(path).first() {
        Some(guess) => guess.essence_str().to_owned(),
        None if std::str::from_utf8(bytes).is_ok() => "text/plain".to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_what_it_is() {
        for (path, bytes, media) in [
            ("a.md", &b"# a"[..], "text/markdown"),
            ("a.png", b"\x89PNG", "image/png"),
            ("Makefile", b"all:", "text/plain"),
            ("core", b"\x7fELF\xff", "application/octet-stream"),
        ] {
            assert_eq!(media_type(path, &Bytes::copy_from_slice(bytes)), media, "{path}");
        }
    }
}
