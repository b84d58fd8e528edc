//! A relay at the other end of a child's stdin and stdout: `castra-shim relay`, or `ssh` in front of it.
//!
//! When the child ends, every request fails `unreachable` and every stream closes; runs go on. A
//! [`PipeHost`] is not mended: make another.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use castra_proto::shim::relay::{
    HEADER, MAGIC, MAX_CHUNK, MAX_NOISE, RelayError, Reply, Request, WINDOW, kind, pack, put_frame,
    read_header, unpack,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::relayed::{Channel, RelayHost};
use super::{ConnError, HostError, Line, Progress, RunDir};

/// A machine whose relay is reached through a program's stdin and stdout.
pub type PipeHost = RelayHost<Pipe>;

/// How long the far side may take to say its magic line: logins are slow.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);
/// Frames waiting to be written; more makes the asker wait.
const OUT_QUEUE: usize = 16;
/// Requests at once; the relay refuses above 32.
const MAX_REQUESTS: usize = 24;

/// The multiplexed pipe.
pub struct Pipe {
    shared: Arc<Shared>,
    requests: Semaphore,
    // Killed when the host is dropped.
    _child: Child,
}

struct Shared {
    out: mpsc::Sender<Vec<u8>>,
    next: AtomicU32,
    // Held for a map operation, never across an await.
    waiting: Mutex<Option<HashMap<u32, Waiting>>>,
}

enum Waiting {
    Reply { tx: oneshot::Sender<Result<(Reply, Bytes), RelayError>>, progress: Option<Progress> },
    Stream { tx: oneshot::Sender<Result<UnixStream, RelayError>> },
    Open(Arc<Open>),
}

/// One joined shim: what has come and was not taken, and what may be sent.
struct Open {
    // Held while bytes are moved, never across an await.
    inbox: Mutex<BytesMut>,
    arrived: Notify,
    closed: Notify,
    over: std::sync::atomic::AtomicBool,
    credit: Semaphore,
}

impl PipeHost {
    /// Runs `argv`, which must end up in `castra-shim relay`, and waits for it to answer.
    pub async fn spawn(argv: &[String]) -> Result<PipeHost, HostError> {
        let unreachable = |e: std::io::Error| HostError::Unreachable(e.to_string());
        let (program, args) =
            argv.split_first().ok_or_else(|| HostError::Unreachable("no relay command".to_owned()))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(unreachable)?;
        let (Some(stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(HostError::Unreachable("no pipe".to_owned()));
        };
        let buf = tokio::time::timeout(GREETING_DEADLINE, greeting(&mut stdout))
            .await
            .map_err(|_| HostError::Unreachable("the relay does not answer".to_owned()))?
            .map_err(unreachable)?;

        let (out, frames) = mpsc::channel(OUT_QUEUE);
        let shared =
            Arc::new(Shared { out, next: AtomicU32::new(1), waiting: Mutex::new(Some(HashMap::new())) });
        tokio::spawn(write_frames(stdin, frames));
        tokio::spawn(read_frames(stdout, buf, Arc::clone(&shared)));
        Ok(RelayHost::over(Pipe { shared, requests: Semaphore::new(MAX_REQUESTS), _child: child }))
    }

    /// Whether the link is down for good.
    pub fn is_closed(&self) -> bool {
        self.channel.shared.lock().is_none()
    }
}

/// Reads past what start-up files print, to just behind the magic line.
async fn greeting(stdout: &mut ChildStdout) -> std::io::Result<BytesMut> {
    let mut buf = BytesMut::from(&b"\n"[..]);
    loop {
        if let Some(at) = memchr::memmem::find(&buf, MAGIC) {
            buf.advance(at + MAGIC.len());
            return Ok(buf);
        }
        if buf.len() > MAX_NOISE {
            return Err(std::io::Error::other("no relay behind the noise"));
        }
        if stdout.read_buf(&mut buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn write_frames(mut stdin: ChildStdin, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if stdin.write_all(&frame).await.is_err() {
            // The reader sees the end of the pipe and tells everyone.
            return;
        }
    }
}

async fn read_frames(mut stdout: ChildStdout, mut buf: BytesMut, shared: Arc<Shared>) {
    loop {
        while let Some(header) = buf.first_chunk::<HEADER>() {
            let Ok((len, kind, id)) = read_header(header) else { return shared.fail_all() };
            if buf.len() < HEADER + len {
                break;
            }
            let mut frame = buf.split_to(HEADER + len);
            frame.advance(HEADER);
            shared.take(kind, id, frame.freeze());
        }
        buf.reserve(MAX_CHUNK + HEADER);
        match stdout.read_buf(&mut buf).await {
            Ok(0) | Err(_) => return shared.fail_all(),
            Ok(_) => (),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_all(&self) {
        // Dropped senders are the answer `unreachable`.
        for waiting in self.lock().take().into_iter().flat_map(HashMap::into_values) {
            if let Waiting::Open(open) = waiting {
                open.end();
            }
        }
    }

    fn register(&self, waiting: Waiting) -> Result<u32, HostError> {
        let mut map = self.lock();
        let map = map.as_mut().ok_or_else(gone)?;
        loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            if let std::collections::hash_map::Entry::Vacant(free) = map.entry(id) {
                free.insert(waiting);
                return Ok(id);
            }
        }
    }

    async fn send(&self, kind: u8, id: u32, payload: &[u8]) -> Result<(), HostError> {
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        put_frame(&mut frame, kind, id, payload);
        self.out.send(frame).await.map_err(|_| gone())
    }

    /// One frame from the relay. Never waits: a stream that nobody reads must not delay the others.
    fn take(self: &Arc<Self>, kind: u8, id: u32, payload: Bytes) {
        let mut map = self.lock();
        let Some(map) = map.as_mut() else { return };
        match kind {
            kind::LINE => {
                let progress = match map.get(&id) {
                    Some(Waiting::Reply { progress: Some(progress), .. }) => Arc::clone(progress),
                    _ => return,
                };
                if let Some(&first) = payload.first() {
                    progress(Line { stderr: first == 2, text: payload.slice(1..) });
                }
            }
            kind::REPLY | kind::ERROR => {
                let result = match kind {
                    kind::REPLY => unpack::<Reply>(&payload)
                        .map(|(reply, data)| (reply, payload.slice(payload.len() - data.len()..))),
                    _ => Err(unpack::<RelayError>(&payload).map_or_else(|e| e, |(error, _)| error)),
                };
                match map.remove(&id) {
                    Some(Waiting::Reply { tx, .. }) => {
                        let _ = tx.send(result);
                    }
                    Some(Waiting::Stream { tx }) => match result {
                        Ok(_) => self.open(map, id, tx),
                        Err(error) => {
                            let _ = tx.send(Err(error));
                        }
                    },
                    Some(open @ Waiting::Open(_)) => {
                        map.insert(id, open);
                    }
                    // Given up meanwhile. A stream opened for nobody is closed again.
                    None if kind == kind::REPLY => self.close_later(id),
                    None => (),
                }
            }
            kind::DATA => {
                if let Some(Waiting::Open(open)) = map.get(&id) {
                    let mut inbox = open.inbox.lock().unwrap_or_else(PoisonError::into_inner);
                    inbox.extend_from_slice(&payload);
                    if inbox.len() > WINDOW {
                        open.end();
                    }
                    open.arrived.notify_one();
                }
            }
            kind::CREDIT => {
                if let (Some(Waiting::Open(open)), Some(n)) = (map.get(&id), payload.first_chunk::<4>()) {
                    let n = u32::from_le_bytes(*n) as usize;
                    open.credit.add_permits(n.min(WINDOW.saturating_sub(open.credit.available_permits())));
                }
            }
            kind::CLOSE => {
                if let Some(Waiting::Open(open)) = map.remove(&id) {
                    open.end();
                }
            }
            _ => (),
        }
    }

    fn open(
        self: &Arc<Self>,
        map: &mut HashMap<u32, Waiting>,
        id: u32,
        tx: oneshot::Sender<Result<UnixStream, RelayError>>,
    ) {
        let Ok((ours, theirs)) = UnixStream::pair() else {
            // The sender is dropped: unreachable.
            return self.close_later(id);
        };
        let open = Arc::new(Open {
            inbox: Mutex::new(BytesMut::new()),
            arrived: Notify::new(),
            closed: Notify::new(),
            over: std::sync::atomic::AtomicBool::new(false),
            credit: Semaphore::new(WINDOW),
        });
        map.insert(id, Waiting::Open(Arc::clone(&open)));
        let (read, write) = ours.into_split();
        tokio::spawn(deliver(Arc::clone(self), Arc::clone(&open), id, write));
        tokio::spawn(collect(Arc::clone(self), open, id, read));
        let _ = tx.send(Ok(theirs));
    }

    fn close_later(self: &Arc<Self>, id: u32) {
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.send(kind::CLOSE, id, &[]).await });
    }

    fn forget(&self, id: u32) -> bool {
        self.lock().as_mut().is_some_and(|map| map.remove(&id).is_some())
    }
}

impl Open {
    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.closed.notify_one();
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// From the relay to the reader of this stream.
async fn deliver(shared: Arc<Shared>, open: Arc<Open>, id: u32, mut write: OwnedWriteHalf) {
    loop {
        let chunk = std::mem::take(&mut *open.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        if chunk.is_empty() {
            if open.over() {
                return;
            }
            open.arrived.notified().await;
            continue;
        }
        if write.write_all(&chunk).await.is_err() {
            // Nobody reads any more; `collect` sees the same and closes.
            return;
        }
        let credit = (chunk.len() as u32).to_le_bytes();
        if !open.over() && shared.send(kind::CREDIT, id, &credit).await.is_err() {
            return;
        }
    }
}

/// From the writer of this stream to the relay.
async fn collect(shared: Arc<Shared>, open: Arc<Open>, id: u32, mut read: OwnedReadHalf) {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(MAX_CHUNK);
        let end = tokio::select! {
            read = read.read_buf(&mut buf) => matches!(read, Ok(0) | Err(_)),
            () = open.closed.notified() => true,
        };
        while !buf.is_empty() && !open.over() {
            let want = buf.len().min(MAX_CHUNK);
            let Ok(first) = open.credit.acquire().await else { break };
            first.forget();
            let more = open.credit.available_permits().min(want - 1);
            // Only this task takes credit: what is available stays so.
            if let Ok(rest) = open.credit.try_acquire_many(more as u32) {
                rest.forget();
            }
            let chunk = buf.split_to(more + 1);
            if shared.send(kind::DATA, id, &chunk).await.is_err() {
                return;
            }
        }
        if end {
            if shared.forget(id) {
                let _ = shared.send(kind::CLOSE, id, &[]).await;
            }
            open.end();
            return;
        }
    }
}

fn gone() -> HostError {
    HostError::Unreachable("the relay has ended".to_owned())
}

/// Gives a request up when its future is dropped.
struct CancelOnDrop {
    shared: Arc<Shared>,
    id: u32,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.shared.forget(self.id)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (shared, id) = (Arc::clone(&self.shared), self.id);
            runtime.spawn(async move { shared.send(kind::CANCEL, id, &[]).await });
        }
    }
}

impl Channel for Pipe {
    fn call(
        &self,
        request: Request,
        data: Bytes,
        progress: Option<Progress>,
    ) -> BoxFuture<'_, Result<(Reply, Bytes), HostError>> {
        async move {
            let _turn = self.requests.acquire().await.map_err(|_| gone())?;
            let (tx, rx) = oneshot::channel();
            let id = self.shared.register(Waiting::Reply { tx, progress })?;
            let _cancel = CancelOnDrop { shared: Arc::clone(&self.shared), id };
            self.shared.send(kind::REQUEST, id, &pack(&request, &data)).await?;
            Ok(rx.await.map_err(|_| gone())??)
        }
        .boxed()
    }

    fn dial<'a>(&'a self, run: &'a RunDir) -> BoxFuture<'a, Result<UnixStream, HostError>> {
        async move {
            let _turn = self.requests.acquire().await.map_err(|_| gone())?;
            let (tx, rx) = oneshot::channel();
            let id = self.shared.register(Waiting::Stream { tx })?;
            self.shared.send(kind::REQUEST, id, &pack(&Request::Connect { run: run.0.clone() }, &[])).await?;
            Ok(rx.await.map_err(|_| HostError::Conn(ConnError::Closed))??)
        }
        .boxed()
    }
}
