//! Contents that outlive the folder they were found in: files below `blobs/`, sealed, named by their SHA-256. Refuses to
//! know whose they are.

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

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256)
    }

    /// On disk when this returns; the same content again costs nothing. Its SHA-256.
    pub(crate) fn put(&self, key: &Key, bytes: &Bytes) -> Result<String, StoreError> {
        let sha256 = hex(&Sha256::digest(bytes));
        self.write(key, &sha256, bytes)?;
        Ok(sha256)
    }

    /// The same for one owner alone, who removes it without asking who else has such a content.
    pub(crate) fn put_of(&self, key: &Key, owner: &str, bytes: &Bytes) -> Result<String, StoreError> {
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
    pub(crate) fn get(&self, key: &Key, sha256: &str) -> Result<Option<Bytes>, StoreError> {
        if !is_name(sha256) {
            return Ok(None);
        }
        let path = self.path(sha256);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        match key.open_blob(sha256, &sealed) {
            Some(bytes) => Ok(Some(bytes.into())),
            None => Err(StoreError::BlobDamaged { path }),
        }
    }

    pub(crate) fn remove(&self, sha256: &str) -> Result<(), StoreError> {
        let path = self.path(sha256);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// The name of a content that belongs to one owner.
pub(crate) fn name_of(owner: &str, sha256: &str) -> String {
    hex(&Sha256::digest(format!("{owner} {sha256}")))
}

/// A SHA-256 in hexadecimal: nothing else is the name of a file there.
fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
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

    #[test]
    fn what_is_put_is_sealed_and_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let key = Key::open(&home.path().join("key"), None).unwrap();
        let blobs = Blobs::new(home.path());
        let bytes = Bytes::from_static(b"a deliverable\xff");
        let name = blobs.put(&key, &bytes).unwrap();
        assert_eq!(blobs.put(&key, &bytes).unwrap(), name);
        assert_eq!(blobs.get(&key, &name).unwrap(), Some(bytes));
        let file = blobs.path(&name);
        let sealed = fs::read(&file).unwrap();
        assert!(!sealed.windows(13).any(|part| part == b"a deliverable"));
        let mut bent = sealed.clone();
        bent[40] ^= 1;
        fs::write(&file, bent).unwrap();
        assert!(matches!(blobs.get(&key, &name), Err(StoreError::BlobDamaged { .. })));
        blobs.remove(&name).unwrap();
        blobs.remove(&name).unwrap();
        assert_eq!(blobs.get(&key, &name).unwrap(), None);
        assert_eq!(blobs.get(&key, "../key").unwrap(), None);
    }

    #[test]
    fn what_belongs_to_one_owner_is_removed_without_harm_to_another() {
        let home = tempfile::tempdir().unwrap();
        let key = Key::open(&home.path().join("key"), None).unwrap();
        let blobs = Blobs::new(home.path());
        let bytes = Bytes::from_static(b"the same");
        let sha256 = blobs.put(&key, &bytes).unwrap();
        for owner in ["one", "two"] {
            assert_eq!(blobs.put_of(&key, owner, &bytes).unwrap(), sha256);
        }
        blobs.remove(&name_of("one", &sha256)).unwrap();
        assert_eq!(blobs.get(&key, &name_of("one", &sha256)).unwrap(), None);
        for name in [&name_of("two", &sha256), &sha256] {
            assert_eq!(blobs.get(&key, name).unwrap(), Some(bytes.clone()));
        }
    }
}
