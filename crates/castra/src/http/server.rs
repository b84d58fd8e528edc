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
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Until a request's header is complete; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// What a header may have, and what is buffered for a reader that is slow.
const BUFFER: usize = 64 * 1024;
/// For answers that are under way when the daemon ends.
const DRAIN: Duration = Duration::from_secs(5);
/// After the process ran out of descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `standing` says stop, then lets short answers finish.
pub(super) async fn run(router: Router, auth: Arc<dyn Auth>, listeners: Listeners, standing: Standing) {
    let unix = accept_unix(listeners.unix, router.clone(), auth, standing.clone());
    let tcp = async {
        if let Some(listener) = listeners.tcp {
            accept_tcp(listener, router, standing).await;
        }
    };
    tokio::join!(unix, tcp);
}

async fn accept_unix(listener: UnixListener, router: Router, auth: Arc<dyn Auth>, standing: Standing) {
    let accept = async || {
        let (stream, _) = listener.accept().await?;
        let peer = unix_peer(&stream, &*auth);
        Ok((stream, peer))
    };
    accept_all(accept, router, standing).await;
}

async fn accept_tcp(listener: TcpListener, router: Router, standing: Standing) {
    let accept = async || {
        let (stream, _) = listener.accept().await?;
        // Events are small and must not wait for each other's acknowledgement.
        let peer = stream.set_nodelay(true).and_then(|()| stream.local_addr());
        Ok((stream, peer.map(|local| Peer::Tcp { local })))
    };
    accept_all(accept, router, standing).await;
}

async fn accept_all<S, A>(mut accept: A, router: Router, standing: Standing)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: AsyncFnMut() -> io::Result<(S, io::Result<Peer>)>,
{
    let seats = Seats::new();
    let mut connections = JoinSet::new();
    let mut stop = standing.until_stop();
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.over() => break,
        };
        match accepted {
            Ok((stream, Ok(peer))) => {
                connections.spawn(serve(stream, peer, seats.enter(), router.clone(), standing.clone()));
            }
            Ok((_, Err(error))) => tracing::debug!(%error, "a connection was refused"),
            // The peer that gave up before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    drop(accept);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::info!("answers that were still under way were cut off");
    }
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
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut stop = standing.until_stop();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.evicted() => return,
        () = stop.over() => {
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
    let agent = auth.session_of_pid(pid.as_raw_nonzero().get());
    // Readable: it has ended. Asked last, so that what was read in between belongs to it.
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Ok(Peer::Unix { agent }),
        _ => Err(denied("the peer has ended")),
    }
}
