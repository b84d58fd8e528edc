//! Contents that outlive the folder they were found in: files below `blobs/`, sealed, each for one owner, who removes it
//! without asking who else has such a content. Refuses to know what an owner is.

use crate::error::StoreError;
use crate::key::{Key, sync_folder_of};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(crate) fn new(home: &Path) -> Self {
        Self { folder: home.join("blobs") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// On disk when this returns; the same content of the same owner again costs nothing. Its SHA-256.
    pub(crate) fn put(&self, key: &Key, owner: &str, bytes: &Bytes) -> Result<String, StoreError> {
        let sha256 = hex(&Sha256::digest(bytes));
        self.write(key, &name_of(owner, &sha256), bytes)?;
        Ok(sha256)
    }

    fn write(&self, key: &Key, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let path = self.path(name);
        let io = |source| StoreError::Io { path: path.clone(), source };
        if path.exists() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(io)?;
        let draft = self.folder.join(format!("{name}.{}.new", uuid::Uuid::new_v4().simple()));
        let sealed = key.seal_blob(name, bytes)?;
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
            return Err(match error.kind() {
                ErrorKind::StorageFull => StoreError::DiskFull,
                _ => io(error),
            });
        }
        sync_folder_of(&path)
    }

    /// None: there is none.
    pub(crate) fn get(&self, key: &Key, owner: &str, sha256: &str) -> Result<Option<Bytes>, StoreError> {
        let name = name_of(owner, sha256);
        let path = self.path(&name);
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

    pub(crate) fn remove(&self, owner: &str, sha256: &str) -> Result<(), StoreError> {
        let path = self.path(&name_of(owner, sha256));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// Of the file: neither of them may say where it lies.
fn name_of(owner: &str, sha256: &str) -> String {
    hex(&Sha256::digest(format!("{owner} {sha256}")))
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

    #[test]
    fn what_is_put_is_sealed_and_comes_back() {
        let (_home, key, blobs) = blobs();
        let bytes = Bytes::from_static(b"a deliverable\xff");
        let sha256 = blobs.put(&key, "o", &bytes).unwrap();
        assert_eq!(blobs.put(&key, "o", &bytes).unwrap(), sha256);
        assert_eq!(blobs.get(&key, "o", &sha256).unwrap(), Some(bytes));
        let file = blobs.path(&name_of("o", &sha256));
        let sealed = fs::read(&file).unwrap();
        assert!(!sealed.windows(13).any(|part| part == b"a deliverable"));
        let mut bent = sealed.clone();
        bent[40] ^= 1;
        fs::write(&file, bent).unwrap();
        assert!(matches!(blobs.get(&key, "o", &sha256), Err(StoreError::BlobDamaged { .. })));
        blobs.remove("o", &sha256).unwrap();
        blobs.remove("o", &sha256).unwrap();
        assert_eq!(blobs.get(&key, "o", &sha256).unwrap(), None);
        assert_eq!(blobs.get(&key, "o", "../key").unwrap(), None);
    }

    #[test]
    fn what_one_owner_removes_another_still_has() {
        let (_home, key, blobs) = blobs();
        let bytes = Bytes::from_static(b"the same");
        let sha256 = blobs.put(&key, "one", &bytes).unwrap();
        assert_eq!(blobs.put(&key, "two", &bytes).unwrap(), sha256);
        blobs.remove("one", &sha256).unwrap();
        assert_eq!(blobs.get(&key, "one", &sha256).unwrap(), None);
        assert_eq!(blobs.get(&key, "two", &sha256).unwrap(), Some(bytes));
    }
}
