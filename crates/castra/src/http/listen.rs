//! Where the daemon listens: its socket in the data folder, and loopback. Refuses anything else without a flag.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdUnix;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// The socket's name in the data folder.
pub const SOCKET: &str = "castra.sock";

/// Where requests come from.
pub struct Listeners {
    pub unix: UnixListener,
    pub tcp: Option<TcpListener>,
}

/// Why an address was not bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{0} can be reached from other machines, and castra has no TLS of its own")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {addr}: {source}")]
    Tcp { addr: SocketAddr, source: io::Error },
    #[error("the data folder {0} belongs to another user")]
    Owner(PathBuf),
    #[error("the data folder {path} is open to others (mode {mode:03o})")]
    Open { path: PathBuf, mode: u32 },
    #[error("{0} is in the way, and is no socket")]
    InTheWay(PathBuf),
    #[error("cannot listen on {path}: {source}")]
    Unix { path: PathBuf, source: io::Error },
}

impl ListenError {
    /// The next step, for people.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotLoopback(_) => {
                "listen on 127.0.0.1 and use an SSH tunnel or a TLS proxy; --insecure-listen if the network is trusted".into()
            }
            Self::Open { path, .. } => format!("chmod 700 {}", path.display()),
            Self::Tcp { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another process has this port; port 0 picks a free one".into()
            }
            _ => return None,
        })
    }
}

/// Binds a loopback address; port 0 picks a free one.
///
/// # Errors
/// `NotLoopback` for every other address unless `insecure`.
pub async fn bind_tcp(addr: SocketAddr, insecure: bool) -> Result<TcpListener, ListenError> {
    if !addr.ip().to_canonical().is_loopback() && !insecure {
        return Err(ListenError::NotLoopback(addr));
    }
    TcpListener::bind(addr).await.map_err(|source| ListenError::Tcp { addr, source })
}

/// Binds `castra.sock` in the data folder, 0600. The caller holds the folder's lock, so a socket that is there
/// is a stale one.
///
/// # Errors
/// When the folder is another user's or open to others, or something that is no socket has the name.
pub fn bind_unix(home: &Path) -> Result<UnixListener, ListenError> {
    let path = home.join(SOCKET);
    let failed = |source: io::Error| ListenError::Unix { path: path.clone(), source };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = fs::open(home, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let stat = fs::fstat(&folder).map_err(|error| failed(error.into()))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(ListenError::Owner(home.into()));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(ListenError::Open { path: home.into(), mode: stat.st_mode & 0o777 });
    }
    match fs::statat(&folder, SOCKET, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error.into())),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(ListenError::InTheWay(path));
        }
        Ok(_) => fs::unlinkat(&folder, SOCKET, AtFlags::empty()).map_err(|error| failed(error.into()))?,
    }
    let bind = || {
        // A socket's path has at most 108 bytes; the folder's may be longer.
        let listener = StdUnix::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
        // Until here the folder's 0700 has kept others out.
        fs::chmodat(&folder, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    bind().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::net::UnixStream;

    fn private(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path.into()
    }

    #[tokio::test]
    async fn only_loopback_is_bound_without_the_flag() {
        let bind = async |address: &str, insecure| bind_tcp(address.parse().unwrap(), insecure).await;
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"] {
            let error = bind(address, false).await.unwrap_err();
            assert!(matches!(error, ListenError::NotLoopback(_)), "{address}: {error}");
            assert!(error.hint().unwrap().contains("--insecure-listen"));
        }
        assert!(bind("0.0.0.0:0", true).await.is_ok());
        assert!(bind("127.0.0.2:0", false).await.is_ok());
        let held = bind("127.0.0.1:0", false).await.unwrap();
        let taken = held.local_addr().unwrap().to_string();
        assert!(bind(&taken, false).await.unwrap_err().hint().unwrap().contains("port 0"));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_also_at_the_end_of_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let home = private(&dir.path().join("x".repeat(120)));
        drop(bind_unix(&home).unwrap());
        let listener = bind_unix(&home).unwrap();
        assert_eq!(std::fs::metadata(home.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
        let folder = std::fs::File::open(&home).unwrap();
        let through = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let (dialled, accepted) = tokio::join!(UnixStream::connect(through), listener.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
    }

    #[tokio::test]
    async fn open_folders_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = private(&dir.path().join("home"));
        std::fs::write(home.join(SOCKET), "precious").unwrap();
        assert!(matches!(bind_unix(&home), Err(ListenError::InTheWay(_))));
        assert_eq!(std::fs::read_to_string(home.join(SOCKET)).unwrap(), "precious");
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = bind_unix(&home).unwrap_err();
        assert!(matches!(error, ListenError::Open { mode: 0o750, .. }), "{error}");
        assert!(matches!(bind_unix(&dir.path().join("none")), Err(ListenError::Unix { .. })));
    }
}
