//! Paths below a root, following no links: `openat2`, and component by component where there is none.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use castra_proto::shim::relay::{RelayError, Root};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;

/// A directory to hold on to: cannot be swapped for a link any more.
pub(crate) const DIR: OFlags =
    OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// What an error on this path is called.
pub(crate) fn failed(op: &str, path: &str, errno: Errno) -> RelayError {
    match errno {
        // openat2 says EXDEV for an escape and ELOOP for a link; O_NOFOLLOW says ELOOP too.
        Errno::XDEV | Errno::LOOP => RelayError::Outside { path: path.to_owned() },
        errno => RelayError::Io {
            op: op.to_owned(),
            path: path.to_owned(),
            errno: errno.raw_os_error(),
            message: std::io::Error::from(errno).to_string(),
        },
    }
}

/// The same for std's errors.
pub(crate) fn failed_io(op: &str, path: &str, error: &std::io::Error) -> RelayError {
    failed(op, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// Opens a root. Links on the way to it are the operator's own.
pub(crate) fn open_root(home: &Path, root: &Root) -> Result<OwnedFd, RelayError> {
    let path = match root {
        Root::Home => home,
        Root::Dir(dir) if dir.starts_with('/') => Path::new(dir),
        Root::Dir(dir) => return Err(RelayError::BadPath { path: dir.clone() }),
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|e| failed("open", &path.to_string_lossy(), e))
}

/// Splits into names; refuses what could lead elsewhere.
pub(crate) fn parts(path: &str) -> Result<Vec<&str>, RelayError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|p| p.is_empty() || *p == "." || p.contains('\0')) {
        return Err(RelayError::BadPath { path: path.to_owned() });
    }
    if parts.contains(&"..") {
        return Err(RelayError::Outside { path: path.to_owned() });
    }
    Ok(parts)
}

/// Opens `path` below `root`.
pub(crate) fn open_beneath(
    root: impl AsFd,
    path: &str,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, RelayError> {
    parts(path)?;
    let flags = flags | OFlags::CLOEXEC;
    let name = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root.as_fd(), name, flags, mode, resolve) {
        // Older container runtimes forbid what they do not know.
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path, flags, mode),
        other => other.map_err(|e| failed("open", path, e)),
    }
}

fn walk(root: impl AsFd, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, RelayError> {
    let names = parts(path)?;
    let Some((last, above)) = names.split_last() else {
        return openat(root, ".", flags | OFlags::NOFOLLOW, mode).map_err(|e| failed("open", path, e));
    };
    let mut dir: Option<OwnedFd> = None;
    let step = |dir: &Option<OwnedFd>, name: &str, flags, mode| match dir {
        Some(dir) => openat(dir, name, flags, mode),
        None => openat(root.as_fd(), name, flags, mode),
    };
    for name in above {
        let next = step(&dir, name, OFlags::PATH | DIR, Mode::empty()).map_err(|e| {
            // O_DIRECTORY with O_NOFOLLOW says ENOTDIR for a link to a directory.
            failed("open", path, e)
        })?;
        dir = Some(next);
    }
    step(&dir, last, flags | OFlags::NOFOLLOW, mode).map_err(|e| failed("open", path, e))
}

/// The directory that holds `path`, and the last name. Refuses the root itself.
pub(crate) fn parent(root: impl AsFd, path: &str) -> Result<(OwnedFd, &str), RelayError> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() {
        return Err(RelayError::BadPath { path: path.to_owned() });
    }
    parts(path)?;
    Ok((open_beneath(root, above, DIR, Mode::empty())?, name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn both_ways_open_the_same_and_refuse_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        fs::create_dir_all(base.join("root/a/b")).unwrap();
        fs::write(base.join("root/a/b/f"), "x").unwrap();
        fs::write(base.join("secret"), "s").unwrap();
        symlink("../secret", base.join("root/out")).unwrap();
        symlink("a", base.join("root/in")).unwrap();
        symlink(base.join("secret"), base.join("root/abs")).unwrap();
        let root = open_root(base, &Root::Dir(base.join("root").to_string_lossy().into_owned())).unwrap();
        for path in ["a", "a/b", "a/b/f", ""] {
            assert!(open_beneath(&root, path, OFlags::RDONLY, Mode::empty()).is_ok(), "{path}");
            assert!(walk(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).is_ok(), "{path}");
        }
        for path in
            ["out", "abs", "in/b/f", "in", "../secret", "a/../../secret", "/etc/passwd", "a//b", "./a"]
        {
            assert!(open_beneath(&root, path, OFlags::RDONLY, Mode::empty()).is_err(), "{path}");
            assert!(walk(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).is_err(), "{path}");
        }
    }
}
