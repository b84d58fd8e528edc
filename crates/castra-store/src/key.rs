//! The key file, and sealing under it. Refuses to overwrite a key, ever: secrets would be lost with it.

use crate::error::StoreError;
use castra_proto::{SessionId, TaskId, TeamId};
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const KEY_BYTES: usize = 32;
/// XChaCha20: long enough for random nonces without a bound on their number.
const NONCE_BYTES: usize = 24;
/// The first byte of everything sealed, so that another cipher can follow one day.
const FORMAT: u8 = 1;
/// Sealed once into the database, to tell the right key from a wrong one.
const CHECK: &[u8] = b"castra";

pub(crate) struct Key {
    cipher: XChaCha20Poly1305,
    path: PathBuf,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.path.display())
    }
}

impl Key {
    /// Reads the key; `known` is the sealed check of a database that has one already. Only a database
    /// without one may be given a new key.
    pub(crate) fn open(path: &Path, known: Option<&[u8]>) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && known.is_none() => {
                create(path)?;
                read(path).map_err(io)?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::KeyMissing { path: path.to_owned() });
            }
            Err(error) => return Err(io(error)),
        };
        let cipher = XChaCha20Poly1305::new_from_slice(&bytes)
            .map_err(|_| StoreError::KeyMalformed { path: path.to_owned(), found: bytes.len() })?;
        let key = Self { cipher, path: path.to_owned() };
        match known.map(|sealed| key.open_sealed(b"meta.key_check", sealed)) {
            None => Ok(key),
            Some(Some(check)) if check == CHECK => Ok(key),
            Some(_) => Err(StoreError::KeyWrong { path: key.path }),
        }
    }

    pub(crate) fn check(&self) -> Result<Vec<u8>, StoreError> {
        self.seal(b"meta.key_check", CHECK)
    }

    pub(crate) fn seal_secrets(&self, session: SessionId, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.seal(&secrets_of(session), plain)
    }

    pub(crate) fn open_secrets(&self, session: SessionId, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.open_sealed(&secrets_of(session), sealed).ok_or(StoreError::SecretsDamaged { session })
    }

    pub(crate) fn seal_task(&self, task: TaskId, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.seal(&secrets_of_task(task), plain)
    }

    pub(crate) fn open_task(&self, task: TaskId, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.open_sealed(&secrets_of_task(task), sealed).ok_or(StoreError::TaskSecretsDamaged { task })
    }

    pub(crate) fn seal_team(&self, team: TeamId, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.seal(&secrets_of_team(team), plain)
    }

    pub(crate) fn open_team(&self, team: TeamId, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.open_sealed(&secrets_of_team(team), sealed).ok_or(StoreError::TeamSecretsDamaged { team })
    }

    /// `place`: the column, e.g. `schedules.secrets`; `name`: its row.
    pub(crate) fn seal_named(
        &self,
        place: &'static str,
        name: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        self.seal(&named(place, name), plain)
    }

    pub(crate) fn open_named(
        &self,
        place: &'static str,
        name: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::NamedSecretsDamaged { place, name: name.to_owned() };
        self.open_sealed(&named(place, name), sealed).ok_or_else(damaged)
    }

    pub(crate) fn seal_blob(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.seal(&blob(name), plain)
    }

    pub(crate) fn open_blob(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_sealed(&blob(name), sealed)
    }

    /// `place` is authenticated, so that a value moved to another row or column does not open.
    fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce = XNonce::try_generate().map_err(|_| StoreError::Random)?;
        let sealed = self
            .cipher
            .encrypt(&nonce, Payload { msg: plain, aad: place })
            .map_err(|_| StoreError::SecretsTooLarge)?;
        Ok([&[FORMAT][..], &nonce[..], &sealed].concat())
    }

    fn open_sealed(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let rest = sealed.strip_prefix(&[FORMAT])?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        self.cipher.decrypt(&nonce, Payload { msg: text, aad: place }).ok()
    }
}

fn secrets_of(session: SessionId) -> Vec<u8> {
    [&b"specs.secrets"[..], session.0.as_bytes()].concat()
}

fn secrets_of_task(task: TaskId) -> Vec<u8> {
    [&b"tasks.secrets"[..], task.0.as_bytes()].concat()
}

fn secrets_of_team(team: TeamId) -> Vec<u8> {
    [&b"teams.secrets"[..], team.0.as_bytes()].concat()
}

fn named(place: &str, name: &str) -> Vec<u8> {
    [place.as_bytes(), name.as_bytes()].concat()
}

fn blob(name: &str) -> Vec<u8> {
    [&b"blobs"[..], name.as_bytes()].concat()
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // One byte more than a key, so that a longer file is seen to be none.
    let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
    File::open(path)?.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Written and synced under another name first: a key that is there is whole. `hard_link` fails where
/// `rename` would replace a key that appeared meanwhile.
fn create(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let bytes = <[u8; KEY_BYTES]>::try_generate().map_err(|_| StoreError::Random)?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(io)?;
    let placed = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    fs::remove_file(&draft).and(placed).map_err(io)?;
    sync_folder_of(path)
}

/// Makes a new name in a folder survive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_own_place_only() {
        let home = tempfile::tempdir().unwrap();
        let key = Key::open(&home.path().join("key"), None).unwrap();
        let (a, b) = (SessionId::now(), SessionId::now());
        let sealed = key.seal_secrets(a, b"s3cret").unwrap();
        assert_eq!(key.open_secrets(a, &sealed).unwrap(), b"s3cret");
        assert!(matches!(key.open_secrets(b, &sealed), Err(StoreError::SecretsDamaged { .. })));
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(key.open_secrets(a, &bent).is_err(), "byte {at} can be changed unnoticed");
            assert!(key.open_secrets(a, &sealed[..at]).is_err(), "{at} bytes open");
        }
        assert_ne!(key.seal_secrets(a, b"s3cret").unwrap(), sealed, "a nonce was used twice");
    }

    #[test]
    fn a_file_of_another_length_is_no_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        for length in [0, 31, 33, 100] {
            fs::write(&path, vec![7; length]).unwrap();
            assert!(matches!(Key::open(&path, None), Err(StoreError::KeyMalformed { .. })), "{length}");
            assert_eq!(fs::read(&path).unwrap().len(), length, "the file was changed");
        }
    }

    #[test]
    fn a_key_is_created_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        let check = Key::open(&path, None).unwrap().check().unwrap();
        let first = fs::read(&path).unwrap();
        Key::open(&path, None).unwrap();
        Key::open(&path, Some(&check)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "a draft was left behind");
    }
}
