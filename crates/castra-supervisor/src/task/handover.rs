//! Deliverables: fetched from where the agent has put them, kept, and what it is told about them.

use super::held::Held;
use super::protocol::notice::Rejection;
use super::view::TaskView;
use super::workspace::Workspace;
use crate::Result;
use crate::engine::Engine;
use crate::host::HostError;
use bytes::Bytes;
use castra_proto::TaskId;
use castra_proto::shim::relay::{EntryKind, RelayError};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The largest file that is taken, bytes.
pub(crate) const MAX_BYTES: u64 = 64 << 20;
/// Of one task, counting each version: files, and their bytes.
const MAX_VERSIONS: u64 = 1000;
const MAX_TOTAL: u64 = 1 << 30;
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

impl TaskView {
    /// Whether a file may be handed over beside all that was. What changes nothing always may.
    fn has_room(&self, seen: &Seen) -> Result<(), Rejection> {
        let versions: u64 = self.deliverables.values().map(|last| u64::from(last.n)).sum();
        let left = MAX_TOTAL.saturating_sub(self.delivered_bytes);
        let why = match seen.bytes.len() as u64 {
            _ if versions >= MAX_VERSIONS => Rejection::TooMany { limit: MAX_VERSIONS },
            size if size > left => Rejection::NoRoom { size, left, limit: MAX_TOTAL },
            _ => return Ok(()),
        };
        match self.deliverables.get(&seen.path) {
            Some(last) if last.sha256 == seen.sha256() => Ok(()),
            _ => Err(why),
        }
    }
}

/// Takes what lies at a path below `deliverables/`. The inner error is the agent's to hear.
pub(crate) async fn take(
    engine: &Engine,
    task: &Held,
    workspace: &Workspace,
    path: &str,
) -> Result<Result<Taken, Rejection>> {
    Ok(match see(engine, task, workspace, path).await? {
        Ok(seen) => Ok(keep(engine, task.id, seen).await?),
        Err(why) => Err(why),
    })
}

/// Keeps what was seen.
pub(crate) async fn keep(engine: &Engine, task: TaskId, seen: Seen) -> Result<Taken> {
    let (media_type, size) = (seen.media_type(), seen.bytes.len() as u64);
    let sha256 = engine.store.put_blob(task, seen.bytes).await?;
    Ok(Taken { path: seen.path, size, sha256, media_type })
}

/// Reads it, where there is room for it.
pub(crate) async fn see(
    engine: &Engine,
    task: &Held,
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
    let seen = Seen { path: path.to_owned(), bytes };
    Ok(task.view.has_room(&seen).map(|()| seen))
}

/// What only the agent can mend is said to it; a host that fails, or has no room for the moment, is tried again.
fn rejected<T>(error: HostError) -> Result<Result<T, Rejection>> {
    let rejection = match &error {
        HostError::Relay(RelayError::Outside { .. } | RelayError::BadPath { .. }) => Rejection::BadPath,
        HostError::Relay(RelayError::TooMany { .. }) => Rejection::NotAFile,
        HostError::Relay(relay) => match relay.errno().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => Rejection::Missing,
            Some(Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Rejection::BadPath,
            Some(Errno::NXIO | Errno::ISDIR | Errno::INVAL) => Rejection::NotAFile,
            None | Some(Errno::INTR | Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE) => {
                return Err(error.into());
            }
            Some(_) => Rejection::Unreadable,
        },
        _ => return Err(error.into()),
    };
    Ok(Err(rejection))
}

/// What lies below `deliverables/` when nobody writes there any more.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub files: Vec<String>,
    /// What is no file, or cannot be looked into.
    pub others: Vec<(String, Rejection)>,
    /// There were so many more.
    pub more: usize,
}

pub(crate) async fn left(engine: &Engine, workspace: &Workspace) -> Result<Left> {
    let files = engine.host.files();
    let mut left = Left::default();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let listed = match files.list(workspace.deliverable(&folder)).await {
            Ok(entries) => Ok(entries),
            Err(error) => rejected(error)?,
        };
        let entries = match listed {
            Ok(entries) => entries,
            // Nothing is handed over there.
            Err(Rejection::Missing) => continue,
            Err(why) => {
                left.others.push((folder, why));
                continue;
            }
        };
        for entry in entries {
            let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
            match entry.kind {
                EntryKind::File => left.files.push(path),
                EntryKind::Dir if depth < MAX_DEPTH => folders.push((path, depth + 1)),
                EntryKind::Link => left.others.push((path, Rejection::BadPath)),
                EntryKind::Dir | EntryKind::Other => left.others.push((path, Rejection::NotAFile)),
            }
        }
    }
    left.files.sort();
    left.others.sort_by(|(one, _), (other, _)| one.cmp(other));
    left.more = left.files.len().saturating_sub(MAX_FILES) + left.others.len().saturating_sub(MAX_FILES);
    left.files.truncate(MAX_FILES);
    left.others.truncate(MAX_FILES);
    Ok(left)
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
    use castra_proto::Timestamp;

    fn seen(path: &str, bytes: Bytes) -> Seen {
        Seen { path: path.into(), bytes }
    }

    fn hand_over(view: &mut TaskView, seen: &Seen, size: u64) {
        view.handed_over(&seen.path, size, &seen.sha256(), seen.media_type(), Timestamp(0)).unwrap();
    }

    #[test]
    fn so_many_files_are_taken_of_one_task_counting_each_version() {
        let mut view = TaskView::default();
        let version = |n: u64| seen("a", n.to_string().into_bytes().into());
        for n in 0..MAX_VERSIONS {
            assert_eq!(view.has_room(&version(n)), Ok(()), "{n}");
            hand_over(&mut view, &version(n), 1);
        }
        let refused = Err(Rejection::TooMany { limit: 1000 });
        assert_eq!(view.has_room(&version(MAX_VERSIONS)), refused);
        assert_eq!(view.has_room(&seen("b", Bytes::new())), refused);
        assert_eq!(view.has_room(&version(MAX_VERSIONS - 1)), Ok(()), "nothing new");
    }

    #[test]
    fn so_many_bytes_are_taken_of_one_task() {
        let mut view = TaskView::default();
        let (ten, eleven) = (Bytes::from_static(b"0123456789"), Bytes::from_static(b"0123456789a"));
        let first = seen("first", ten.clone());
        hand_over(&mut view, &first, MAX_TOTAL - 20);
        hand_over(&mut view, &seen("first", Bytes::new()), 10);
        assert_eq!(view.has_room(&seen("b", ten)), Ok(()));
        let refused = Err(Rejection::NoRoom { size: 11, left: 10, limit: 1 << 30 });
        assert_eq!(view.has_room(&seen("b", eleven.clone())), refused);
        hand_over(&mut view, &seen("b", eleven.clone()), 11);
        assert_eq!(view.has_room(&seen("b", eleven)), Ok(()), "nothing new");
        assert_eq!(view.has_room(&seen("c", Bytes::new())), Ok(()));
    }

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
