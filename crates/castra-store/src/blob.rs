//! Contents that outlive the folder they were found in: files below `blobs/<task>/`, sealed. A task's contents go together,
//! with its folder, when the task goes; none is removed by itself, so nobody has to ask who else means the same one.

use crate::error::StoreError;
use crate::key::{Key, sync_folder_of};
use bytes::Bytes;
use castra_proto::TaskId;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Beside the tasks' folders: files that are still written, and folders that are still removed.
const DRAFT: &str = ".new";
const GONE: &str = ".gone";

#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(crate) fn new(home: &Path) -> Self {
        Self { folder: home.join("blobs") }
    }

    fn of(&self, task: TaskId) -> PathBuf {
        self.folder.join(task.to_string())
    }

    fn path(&self, task: TaskId, name: &str) -> PathBuf {
        self.of(task).join(name)
    }

    fn beside(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}{end}", Uuid::new_v4().simple()))
    }

    /// On disk when this returns; the same content of the same task again costs nothing. Its SHA-256.
    pub(crate) fn put(&self, key: &Key, task: TaskId, bytes: &Bytes) -> Result<String, StoreError> {
        let sha256 = hex(&Sha256::digest(bytes));
        self.write(key, task, &name_of(task, &sha256), bytes)?;
        Ok(sha256)
    }

    fn write(&self, key: &Key, task: TaskId, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let path = self.path(task, name);
        if !path.exists() {
            self.make_folders(task)?;
            let (draft, sealed) = (self.beside(DRAFT), key.seal_blob(name, bytes)?);
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)
                .and_then(|mut file| file.write_all(&sealed).and_then(|()| file.sync_all()))
                .and_then(|()| fs::rename(&draft, &path));
            if let Err(error) = written {
                // The first error is the one to tell.
                let _ = fs::remove_file(&draft);
                return Err(full_or(&path, error));
            }
        }
        // Also of one that is there: whoever has put it there may have died before its name was on disk.
        sync_folder_of(&path)?;
        sync_folder_of(&self.of(task))
    }

    fn make_folders(&self, task: TaskId) -> Result<(), StoreError> {
        for folder in [&self.folder, &self.of(task)] {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => sync_folder_of(folder)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(full_or(folder, error)),
            }
        }
        Ok(())
    }

    /// None: there is none.
    pub(crate) fn get(&self, key: &Key, task: TaskId, sha256: &str) -> Result<Option<Bytes>, StoreError> {
        let name = name_of(task, sha256);
        let path = self.path(task, &name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        match key.open_blob(&name, &sealed) {
            Some(bytes) => Ok(Some(bytes.into())),
            None => Err(StoreError::BlobDamaged { path }),
        }
    }

    /// All that this task has: out of its place at once, so that another task of that id would begin with nothing. What is
    /// to be removed then, if anything is.
    pub(crate) fn set_aside(&self, task: TaskId) -> Result<Option<PathBuf>, StoreError> {
        let gone = self.beside(GONE);
        match fs::rename(self.of(task), &gone) {
            Ok(()) => Ok(Some(gone)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path: self.of(task), source }),
        }
    }

    /// What a daemon that was killed has left behind: drafts, what was set aside, and, of `tasks`, the folders of all
    /// others. For when nobody writes.
    pub(crate) fn sweep(&self, tasks: Option<&HashSet<TaskId>>) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let task = name.parse::<TaskId>().ok().filter(|task| task.to_string() == name);
            let is_unknown = task.zip(tasks).is_some_and(|(task, tasks)| !tasks.contains(&task));
            if name.ends_with(DRAFT) {
                fs::remove_file(entry.path()).map_err(io)?;
            } else if name.ends_with(GONE) || is_unknown {
                fs::remove_dir_all(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }
}

fn full_or(path: &Path, error: std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::Io { path: path.to_owned(), source: error },
    }
}

/// Of the file: a digest from outside may not say where it lies.
fn name_of(task: TaskId, sha256: &str) -> String {
    hex(&Sha256::digest(format!("{task} {sha256}")))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Key, Blobs) {
        let home = tempfile::tempdir().unwrap();
        let key = Key::open(&home.path().join("key"), None).unwrap();
        let blobs = Blobs::new(home.path());
        (home, key, blobs)
    }

    /// All that lies below `blobs/`, with what is in folders there.
    fn lies(blobs: &Blobs) -> usize {
        let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
        let entries = fs::read_dir(&blobs.folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { 1 + count(&path) } else { 1 }).sum()
    }

    #[test]
    fn what_is_put_is_sealed_and_comes_back() {
        let (_home, key, blobs) = blobs();
        let (task, bytes) = (TaskId::now(), Bytes::from_static(b"a deliverable\xff"));
        let sha256 = blobs.put(&key, task, &bytes).unwrap();
        assert_eq!(blobs.put(&key, task, &bytes).unwrap(), sha256);
        assert_eq!(lies(&blobs), 2, "one folder with one file, and no draft");
        assert_eq!(blobs.get(&key, task, &sha256).unwrap(), Some(bytes));
        let file = blobs.path(task, &name_of(task, &sha256));
        let sealed = fs::read(&file).unwrap();
        assert!(!sealed.windows(13).any(|part| part == b"a deliverable"));
        let mut bent = sealed.clone();
        bent[40] ^= 1;
        fs::write(&file, bent).unwrap();
        assert!(matches!(blobs.get(&key, task, &sha256), Err(StoreError::BlobDamaged { .. })));
        assert_eq!(blobs.get(&key, task, "../key").unwrap(), None);
    }

    #[test]
    fn what_one_task_takes_with_it_another_still_has() {
        let (_home, key, blobs) = blobs();
        let (one, two, bytes) = (TaskId::now(), TaskId::now(), Bytes::from_static(b"the same"));
        let sha256 = blobs.put(&key, one, &bytes).unwrap();
        assert_eq!(blobs.put(&key, two, &bytes).unwrap(), sha256);
        assert!(blobs.set_aside(one).unwrap().is_some_and(|gone| gone.is_dir()));
        assert_eq!(blobs.set_aside(one).unwrap(), None);
        assert_eq!(blobs.get(&key, one, &sha256).unwrap(), None);
        assert_eq!(blobs.get(&key, two, &sha256).unwrap(), Some(bytes.clone()));
        // One of the same id, made anew, has its own.
        blobs.put(&key, one, &bytes).unwrap();
        assert_eq!(blobs.get(&key, one, &sha256).unwrap(), Some(bytes));
    }

    #[test]
    fn a_sweep_leaves_what_belongs_to_a_task() {
        let (_home, key, blobs) = blobs();
        blobs.sweep(Some(&HashSet::new())).unwrap();
        let (known, unknown, set_aside) = (TaskId::now(), TaskId::now(), TaskId::now());
        let bytes = Bytes::from_static(b"the same");
        let mut sha256 = String::new();
        for task in [known, unknown, set_aside] {
            sha256 = blobs.put(&key, task, &bytes).unwrap();
        }
        blobs.set_aside(set_aside).unwrap();
        fs::write(blobs.beside(DRAFT), "half").unwrap();
        fs::write(blobs.folder.join("a person's"), "whole").unwrap();
        blobs.sweep(None).unwrap();
        assert_eq!(lies(&blobs), 5, "two tasks with a file each, and a person's");
        blobs.sweep(Some(&HashSet::from([known]))).unwrap();
        assert_eq!(lies(&blobs), 3);
        assert_eq!(blobs.get(&key, known, &sha256).unwrap(), Some(bytes));
    }
}
