//! Real sockets: who is let in, who waits, who is cut off.

use super::*;
use crate::http::api::Doors;
use crate::http::gate_tests::{Nowhere, Secrets};
use crate::http::{bind_tcp, bind_unix, router};
use castra_proto::SessionId;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

struct Daemon {
    home: tempfile::TempDir,
    tcp: SocketAddr,
    standing: Standing,
    ended: JoinHandle<io::Result<()>>,
}

impl Daemon {
    async fn start(agent: Option<SessionId>) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let unix = bind_unix(home.path()).unwrap();
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let standing = Standing::new();
        let auth: Arc<dyn Auth> = Arc::new(Secrets { agent });
        let listeners = Listeners { unix, tcp: Some(tcp) };
        let ended =
            tokio::spawn(run(router(Nowhere, auth.clone(), Doors::new()), auth, listeners, standing.clone()));
        Self { home, tcp: address, standing, ended }
    }

    async fn unix(&self) -> UnixStream {
        UnixStream::connect(self.home.path().join("castra.sock")).await.unwrap()
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.tcp).await.unwrap()
    }
}

/// The status of one request for the document, on a connection that is closed after it.
async fn status<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: &str, headers: &str) -> String {
    let request =
        format!("GET /api/v1/openapi.json HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_kernel_looks_after_who_comes_over_tcp() {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let port = Port { listener };
    let (_client, accepted) = tokio::join!(TcpStream::connect(addr), port.accept());
    let (stream, _) = accepted.unwrap();
    let noticed = sockopt::tcp_keepidle(&stream).unwrap()
        + sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
    assert!(sockopt::socket_keepalive(&stream).unwrap());
    assert_eq!(noticed, Duration::from_secs(120));
    // A reader that is slow and there is not cut off.
    assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 0);
}

#[tokio::test]
async fn the_socket_knows_its_owner_and_a_port_nobody() {
    let daemon = Daemon::start(None).await;
    let host = daemon.tcp.to_string();
    assert_eq!(status(daemon.unix().await, "castra", "").await, "200");
    assert_eq!(status(daemon.unix().await, &host, "").await, "421");
    assert_eq!(status(daemon.tcp().await, &host, "").await, "401");
    assert_eq!(status(daemon.tcp().await, &host, "authorization: Bearer read\r\n").await, "200");
    assert_eq!(status(daemon.tcp().await, "castra", "authorization: Bearer read\r\n").await, "421");
}

#[tokio::test]
async fn an_agent_at_the_socket_is_a_stranger() {
    let daemon = Daemon::start(Some(SessionId(uuid::Uuid::from_u128(1)))).await;
    assert_eq!(status(daemon.unix().await, "castra", "").await, "403");
    assert_eq!(status(daemon.unix().await, "castra", "authorization: Bearer admin\r\n").await, "403");
    assert_eq!(status(daemon.unix().await, "castra", "authorization: Bearer read@mine\r\n").await, "200");
}

#[tokio::test]
async fn silent_strangers_do_not_keep_others_out() {
    let daemon = Daemon::start(None).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        let mut stream = daemon.tcp().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        silent.push(stream);
    }
    let host = daemon.tcp.to_string();
    assert_eq!(status(daemon.tcp().await, &host, "authorization: Bearer read\r\n").await, "200");
    assert_eq!(status(daemon.unix().await, "castra", "").await, "200");
    // The oldest were pushed out, long before their header was overdue; the newest still wait.
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(HEADER_TIMEOUT / 2, silent[0].read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the oldest stranger was kept");
    assert_eq!(silent[399].try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_never_ends_is_not_waited_for() {
    let daemon = Daemon::start(None).await;
    let mut stream = daemon.tcp().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(2 * HEADER_TIMEOUT, stream.read_to_end(&mut answer)).await;
    closed.expect("the connection is closed in time").unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_header_without_measure_is_refused() {
    let daemon = Daemon::start(None).await;
    let host = daemon.tcp.to_string();
    let long = format!("x: {}\r\n", "y".repeat(2 * BUFFER));
    assert_eq!(status(daemon.tcp().await, &host, &long).await, "431");
    let many = "x: y\r\n".repeat(200);
    assert_eq!(status(daemon.tcp().await, &host, &many).await, "431");
}

#[tokio::test]
async fn the_end_closes_idle_connections_and_returns() {
    let daemon = Daemon::start(None).await;
    let mut idle = daemon.unix().await;
    idle.write_all(b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: castra\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    daemon.standing.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    daemon.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(daemon.tcp).await.is_err());
}

/// Connects the socket that is its stdin, and ends.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn a_child_that_connects() {
    let Some(path) = std::env::var_os("CASTRA_TEST_SOCKET") else { return };
    let address = rustix::net::SocketAddrUnix::new(path).unwrap();
    rustix::net::connect(std::io::stdin().as_fd(), &address).unwrap();
}

#[tokio::test]
async fn a_peer_that_ended_is_not_taken_for_the_owner() {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let listener = bind_unix(home.path()).unwrap();
    let family = rustix::net::AddressFamily::UNIX;
    let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http::server::tests::a_child_that_connects", "--ignored"])
        .env("CASTRA_TEST_SOCKET", home.path().join("castra.sock"))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
    let auth = Secrets { agent: None };
    // Ended and not waited for; then gone.
    assert_eq!(unix_peer(&stream, &auth).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert!(child.wait().unwrap().success());
    assert!(unix_peer(&stream, &auth).is_err());

    let dialled = UnixStream::connect(home.path().join("castra.sock"));
    let (_dialled, accepted) = tokio::join!(dialled, listener.accept());
    assert_eq!(unix_peer(&accepted.unwrap().0, &auth).unwrap(), Peer::Unix { agent: None });
}
