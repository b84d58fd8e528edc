//! Files beneath a root: make, put, get, list, copy, rename, remove. No link is followed, ever.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use castra_proto::shim::relay::{At, Entry, EntryKind, MAX_DATA, MAX_LIST, RelayError, Reply, Request};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat, renameat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::beneath::{DIR, failed, failed_io, open_beneath, open_root, parent, parts};

/// Directories inside each other that are held open at once.
const MAX_DEPTH: usize = 200;

pub(crate) fn make_home(home: &Path) -> Result<(), RelayError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(home).map_err(|e| failed_io("mkdir", &home.to_string_lossy(), &e))
}

pub(crate) fn handle(home: &Path, request: Request, data: &[u8]) -> Result<(Reply, Vec<u8>), RelayError> {
    let root = |at: &At| open_root(home, &at.root);
    match request {
        Request::Mkdir { at, mode } => {
            mkdir(&root(&at)?, &at.path, mode)?;
        }
        Request::Put { at, mode, sync } => {
            let (dir, name) = parent(root(&at)?, &at.path)?;
            put_file(dir.as_fd(), name, mode, sync, data).map_err(|e| failed_io("put", &at.path, &e))?;
        }
        Request::Append { at, offset, mode } => append(&root(&at)?, &at.path, offset, mode, data)?,
        Request::Get { at, offset, len } => return get(&root(&at)?, &at.path, offset, len),
        Request::List { at } => {
            return Ok((Reply::List { entries: list(&root(&at)?, &at.path)? }, Vec::new()));
        }
        Request::Stat { at } => return Ok((Reply::Stat { entry: stat(&root(&at)?, &at.path)? }, Vec::new())),
        Request::Remove { at } => remove(&root(&at)?, &at.path)?,
        Request::CopyTree { from, to } => {
            let (source, name) = parent(root(&from)?, &from.path)?;
            let (target, new) = parent(root(&to)?, &to.path)?;
            copy(&source, name, &target, new, 0).map_err(|e| failed("copy", &from.path, e))?;
        }
        Request::Rename { from, to, sync } => {
            if from.root != to.root {
                return Err(RelayError::BadPath { path: to.path });
            }
            let root = root(&from)?;
            let (source, name) = parent(&root, &from.path)?;
            let (target, new) = parent(&root, &to.path)?;
            rename(&source, name, &target, new, sync).map_err(|e| failed("rename", &to.path, e))?;
        }
        Request::Symlink { at, target } => {
            let (dir, name) = parent(root(&at)?, &at.path)?;
            let temp = temp_name();
            symlinkat(&target, &dir, &temp)
                .and_then(|()| renameat(&dir, &temp, &dir, name))
                .map_err(|e| failed("symlink", &at.path, e))?;
        }
        other => return Err(RelayError::Malformed { reason: format!("not a file request: {other:?}") }),
    }
    Ok((Reply::Done, Vec::new()))
}

/// Makes a directory and its parents; the last has `mode`, made ones above it 0700.
pub(crate) fn mkdir(root: &OwnedFd, path: &str, mode: u32) -> Result<OwnedFd, RelayError> {
    let names = parts(path)?;
    let mut dir = open_beneath(root, "", DIR, Mode::empty())?;
    for (index, name) in names.iter().enumerate() {
        let last = index + 1 == names.len();
        let wanted = Mode::from(if last { mode } else { 0o700 });
        let made = match mkdirat(&dir, *name, wanted) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(failed("mkdir", path, e)),
        };
        // ENOTDIR here is a link or a file in the way. What is only passed through need not be readable.
        let flags = if made || last { DIR } else { DIR | OFlags::PATH };
        dir = openat(&dir, *name, flags, Mode::empty()).map_err(|e| failed("mkdir", path, e))?;
        if made {
            // Whatever the umask took away.
            fchmod(&dir, wanted).map_err(|e| failed("mkdir", path, e))?;
        }
    }
    Ok(dir)
}

/// A name in the target's own directory that no one else uses.
fn temp_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".castra-{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Replaces `name` in `dir`: temp file, write, fsync, rename, fsync of the directory.
pub(crate) fn put_file(
    dir: BorrowedFd<'_>,
    name: &str,
    mode: u32,
    sync: bool,
    bytes: &[u8],
) -> std::io::Result<()> {
    let temp = temp_name();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // Secrets are never readable for a moment: made 0600, widened only when that was asked for.
    let file = openat(dir, &temp, flags, Mode::from(mode & 0o700))?;
    let result = (|| {
        fchmod(&file, Mode::from(mode))?;
        let mut file = File::from(file);
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        renameat(dir, &temp, dir, name)?;
        if sync {
            rustix::fs::fsync(dir)?;
        }
        Ok(())
    })();
    if result.is_err() {
        let _ = unlinkat(dir, &temp, AtFlags::empty());
    }
    result
}

fn append(root: &OwnedFd, path: &str, offset: u64, mode: u32, data: &[u8]) -> Result<(), RelayError> {
    let (dir, name) = parent(root, path)?;
    let base = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = if offset == 0 { base | OFlags::CREATE | OFlags::TRUNC } else { base };
    let file = openat(&dir, name, flags, Mode::from(mode & 0o700)).map_err(|e| failed("append", path, e))?;
    regular(&file, path)?;
    if offset == 0 {
        fchmod(&file, Mode::from(mode)).map_err(|e| failed("append", path, e))?;
    }
    File::from(file).write_all_at(data, offset).map_err(|e| failed_io("append", path, &e))
}

fn regular(file: &OwnedFd, path: &str) -> Result<u64, RelayError> {
    let stat = fstat(file).map_err(|e| failed("stat", path, e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat.st_size as u64),
        _ => Err(failed("open", path, Errno::INVAL)),
    }
}

fn get(root: &OwnedFd, path: &str, offset: u64, len: u64) -> Result<(Reply, Vec<u8>), RelayError> {
    // Non-blocking: an agent may have put a FIFO there.
    let file = open_beneath(root, path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let size = regular(&file, path)?;
    let want = len.min(MAX_DATA as u64).min(size.saturating_sub(offset));
    let mut data = vec![0; want as usize];
    let mut have = 0;
    let file = File::from(file);
    while have < data.len() {
        match file.read_at(&mut data[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
            Err(e) => return Err(failed_io("get", path, &e)),
        }
    }
    data.truncate(have);
    Ok((Reply::Got { size, eof: offset + have as u64 >= size }, data))
}

/// The whole of a small file; `None` when it is not there.
pub(crate) fn read_small(dir: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat(dir, name, flags, Mode::empty()).ok()?;
    let mut data = Vec::new();
    File::from(file).take(MAX_DATA as u64).read_to_end(&mut data).ok()?;
    Some(data)
}

fn entry(name: String, stat: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    };
    let mtime_ns = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add_unsigned(stat.st_mtime_nsec);
    Entry { name, kind, size: stat.st_size as u64, mode: stat.st_mode & 0o7777, mtime_ns, inode: stat.st_ino }
}

/// Entries sorted by name; names that are no UTF-8 are shown lossily and can not be asked for.
pub(crate) fn list(root: &OwnedFd, path: &str) -> Result<Vec<Entry>, RelayError> {
    let dir = open_beneath(root, path, DIR, Mode::empty())?;
    let mut entries = Vec::new();
    for item in Dir::read_from(&dir).map_err(|e| failed("list", path, e))? {
        let item = item.map_err(|e| failed("list", path, e))?;
        let name = item.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entries.len() == MAX_LIST {
            return Err(RelayError::TooMany { path: path.to_owned(), limit: MAX_LIST as u64 });
        }
        // Gone between the two calls: not there.
        if let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            entries.push(entry(name.to_string_lossy().into_owned(), &stat));
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn stat(root: &OwnedFd, path: &str) -> Result<Option<Entry>, RelayError> {
    if path.is_empty() {
        let stat = fstat(root).map_err(|e| failed("stat", path, e))?;
        return Ok(Some(entry(String::new(), &stat)));
    }
    let missing = |e: &RelayError| matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR));
    let (dir, name) = match parent(root, path) {
        Err(e) if missing(&e) => return Ok(None),
        other => other?,
    };
    match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(entry(name.to_owned(), &stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(failed("stat", path, e)),
    }
}

fn rename(from: &OwnedFd, name: &str, to: &OwnedFd, new: &str, sync: bool) -> Result<(), Errno> {
    if sync {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        rustix::fs::fsync(openat(from, name, flags, Mode::empty())?)?;
    }
    renameat(from, name, to, new)?;
    if sync {
        rustix::fs::fsync(to)?;
    }
    Ok(())
}

fn remove(root: &OwnedFd, path: &str) -> Result<(), RelayError> {
    let (dir, name) = match parent(root, path) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    // What lies too deep is moved up here and removed in a round of its own.
    let mut names = vec![name.to_owned()];
    while let Some(name) = names.pop() {
        match remove_entry(&dir, &dir, name.as_str(), 0, &mut names) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(e) => return Err(failed("remove", path, e)),
        }
    }
    Ok(())
}

fn remove_entry(
    top: &OwnedFd,
    dir: &OwnedFd,
    name: impl rustix::path::Arg + Copy,
    depth: usize,
    moved: &mut Vec<String>,
) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => (),
        other => return other,
    }
    if depth == MAX_DEPTH {
        let temp = temp_name();
        renameat(dir, name, top, &temp)?;
        moved.push(temp);
        return Ok(());
    }
    let inside = match openat(dir, name, DIR, Mode::empty()) {
        Err(Errno::ACCESS) => {
            make_readable(dir, name)?;
            openat(dir, name, DIR, Mode::empty())?
        }
        other => other?,
    };
    for item in Dir::read_from(&inside)? {
        let item = item?;
        if item.file_name() == c"." || item.file_name() == c".." {
            continue;
        }
        match remove_entry(top, &inside, item.file_name(), depth + 1, moved) {
            Err(Errno::ACCESS) => {
                fchmod(&inside, Mode::from(0o700))?;
                remove_entry(top, &inside, item.file_name(), depth + 1, moved)?;
            }
            other => other?,
        }
    }
    drop(inside);
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Through a descriptor that holds the directory itself, so that no link is followed.
fn make_readable(dir: &OwnedFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    let held = openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::from(0o700))
}

fn copy(
    from: &OwnedFd,
    name: impl rustix::path::Arg + Copy,
    to: &OwnedFd,
    new: impl rustix::path::Arg + Copy,
    depth: usize,
) -> Result<(), Errno> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, new),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut source = File::from(openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut target = File::from(openat(to, new, flags, Mode::from(0o600))?);
            let done = std::io::copy(&mut source, &mut target);
            done.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            fchmod(&target, mode)
        }
        FileType::Directory if depth < MAX_DEPTH => {
            let source = openat(from, name, DIR, Mode::empty())?;
            mkdirat(to, new, Mode::from(0o700))?;
            let target = openat(to, new, DIR, Mode::empty())?;
            for item in Dir::read_from(&source)? {
                let item = item?;
                if item.file_name() != c"." && item.file_name() != c".." {
                    copy(&source, item.file_name(), &target, item.file_name(), depth + 1)?;
                }
            }
            fchmod(&target, mode)
        }
        FileType::Directory => Err(Errno::NAMETOOLONG),
        // Sockets, FIFOs and devices mean nothing in another place.
        _ => Ok(()),
    }
}
