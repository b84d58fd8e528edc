//! Connections: accepting, who is at the other end, limits of time and number, and the end. Refuses routes.

use super::auth::{Auth, Peer};
use super::listen::Listeners;
use super::seats::{Seat, Seats};
use super::standing::Standing;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Until a request's header is complete; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// What a header may have, and what is buffered for a reader that is slow.
const BUFFER: usize = 64 * 1024;
/// For answers that are under way when the daemon ends.
const DRAIN: Duration = Duration::from_secs(5);
/// Of silence, before the kernel asks whether the other machine is still there; between two questions; and how many
/// go unanswered before it is not. A connection at which nothing happens is noticed gone within two minutes, and the
/// questions are no bytes of the stream. No `TCP_USER_TIMEOUT`: it would also end a reader that is there and slow
/// (tcp(7); Linux counts a closed window that is answered for).
const KEEP_IDLE: Duration = Duration::from_secs(60);
const KEEP_BETWEEN: Duration = Duration::from_secs(20);
const KEEP_ASKED: u32 = 3;
/// After the process ran out of descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `standing` says stop, then lets short answers finish. A listener that is broken ends both.
pub(super) async fn run(
    router: Router,
    auth: Arc<dyn Auth>,
    listeners: Listeners,
    standing: Standing,
) -> io::Result<()> {
    let unix = accept_all(Socket { listener: listeners.unix, auth }, router.clone(), standing.clone());
    let tcp = async {
        match listeners.tcp {
            Some(listener) => accept_all(Port { listener }, router, standing).await,
            None => Ok(()),
        }
    };
    let (unix, tcp) = tokio::join!(unix, tcp);
    unix.and(tcp)
}

/// Where connections come from.
trait Accept: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and who it is or why it is refused.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, io::Result<Peer>)>> + Send;
}

struct Socket {
    listener: UnixListener,
    auth: Arc<dyn Auth>,
}

impl Accept for Socket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, io::Result<Peer>)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = unix_peer(&stream, &*self.auth);
        Ok((stream, peer))
    }
}

struct Port {
    listener: TcpListener,
}

impl Accept for Port {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, io::Result<Peer>)> {
        let (stream, _) = self.listener.accept().await?;
        // Events are small and must not wait for each other's acknowledgement.
        let ready = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
        let local = ready.and_then(|()| stream.local_addr());
        Ok((stream, local.map(|local| Peer::Tcp { local })))
    }
}

/// So that a viewer whose machine or link is gone goes too, also when nothing is sent to it.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEP_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_BETWEEN)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ASKED)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

async fn accept_all(listener: impl Accept, router: Router, standing: Standing) -> io::Result<()> {
    let seats = Seats::new();
    let mut connections = JoinSet::new();
    let mut stop = standing.until_stop();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = stop.over() => break,
        };
        match accepted {
            Ok((stream, Ok(peer))) => {
                connections.spawn(serve(stream, peer, seats.enter(), router.clone(), standing.clone()));
            }
            Ok((_, Err(error))) => tracing::debug!(%error, "a connection was refused"),
            Err(error) if is_broken(&error) => {
                standing.stop();
                return Err(error);
            }
            // Out of descriptors or memory, or a fault of the network's that accept(2) passes on.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::info!("answers that were still under way were cut off");
    }
    Ok(())
}

/// Whether a listener will never accept again.
fn is_broken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT))
}

async fn serve<S>(stream: S, peer: Peer, seat: Seat, router: Router, standing: Standing)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = TowerToHyperService::new(router);
    let place = seat.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(place.clone());
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stop = standing.until_stop();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.evicted() => return,
        _ = stop.over() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Who connected. A peer that is gone already cannot be asked whose child it was, so it is refused: else an
/// agent could let a child connect, end it, and go on as a stranger.
fn unix_peer(stream: &UnixStream, auth: &dyn Auth) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned());
    if credentials.uid() != geteuid().as_raw() {
        return Err(denied("the peer is another user"));
    }
    let pid = credentials.pid().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| denied("the peer is in a pid namespace that cannot be seen"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let agent = auth.session_of_pid(pid.as_raw_nonzero().get())?;
    // Readable: it has ended. Asked last, so that what was read in between belongs to it.
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Ok(Peer::Unix { agent }),
        _ => Err(denied("the peer has ended")),
    }
}

#[cfg(test)]
#[path = "tests/server.rs"]
mod tests;
