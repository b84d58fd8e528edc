//! A terminal session in this terminal: claude's own interface, left by a key, joined again when the daemon was away.
//! Leaving it, by whatever way, leaves the session running and the terminal as it was.

mod detach;
mod raw;
mod stage;

pub(super) use detach::DetachKey;

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use crate::client::tty::{self, End, Keyboard, Screen, Seat, Shown};
use crate::client::{Client, Error};
use castra_proto::{ErrorCode, Session};
use detach::Scanner;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use raw::{Raw, Writer};
use stage::Stage;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How a person looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    pub(super) read_only: bool,
    pub(super) detach: DetachKey,
}

/// Until a connection's first message, and between two tries.
const BREATH: Duration = Duration::from_millis(100);
/// How long a line for the person covers the last row.
const NOTICE: Duration = Duration::from_secs(3);
/// Messages that are taken before the terminal is painted, where more are there.
const GULP: usize = 64;
/// Keys on their way to the daemon, in portions; then the keyboard is not read.
const KEYS_AHEAD: usize = 256;
/// What waits to be written here before no more is asked for: the daemon skips forward.
const WRITE_AHEAD: usize = 256 << 10;

/// Why it ended.
#[derive(Debug)]
enum Left {
    Detached,
    Over,
    Signal(SignalKind),
    Refused(String),
    Failed(Failure),
}

/// Whether stdin and stdout are somebody's terminal; else what to do instead.
pub(super) fn check() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage("a terminal session is shown in a terminal, and stdin and stdout are none").hint(
        "`castra screen ID` prints what it shows, `castra type ID KEYS` types, `castra logs ID -f` follows it",
    ))
}

/// Shows a terminal session until the person leaves or its run is over.
pub(super) async fn attach(
    ctx: &Ctx,
    client: &Client,
    session: &Session,
    looks: Looks,
) -> Result<(), Failure> {
    check()?;
    let id = session.id.to_string();
    let mut show = Show::begin(client, &id, looks).await?;
    let left = show.run().await;
    show.end().await;
    let name = one_line(session.name.as_deref().unwrap_or(&id), 80);
    match left {
        Left::Detached => ctx.out.note(&format!("the session goes on; `castra attach {name}` returns to it")),
        Left::Over => match client.show(&id).await {
            Ok(now) => ctx.out.note(&format!("the run has {}; `castra resume {name}` continues", now.state)),
            Err(error) if is_gone(&error) => ctx.out.note("the session was removed"),
            Err(error) => return Err(error.into()),
        },
        Left::Signal(kind) => {
            ctx.out.note(&format!("the session goes on; `castra attach {name}` returns to it"));
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            return Err(Failure::silent(number.saturating_add(128)));
        }
        Left::Refused(why) => {
            return Err(Failure::new(one_line(&why, 200)).hint("`castra token create` makes a new token"));
        }
        Left::Failed(failure) => return Err(failure),
    }
    Ok(())
}

fn is_gone(error: &Error) -> bool {
    error.problem().is_some_and(|problem| problem.code == ErrorCode::SessionNotFound)
}

type Connection = (Screen, Keyboard);

/// Everything that one person's look at a terminal needs.
struct Show {
    client: Client,
    id: String,
    looks: Looks,
    stage: Stage,
    /// None: the daemon is away.
    screen: Option<Screen>,
    keyboard: Option<mpsc::Sender<bytes::Bytes>>,
    connecting: Option<BoxFuture<'static, Result<Connection, Error>>>,
    /// Bytes that go to the terminal as they are.
    out: Vec<u8>,
    writer: Writer,
    keys: mpsc::Receiver<Vec<u8>>,
    scanner: Scanner,
    seat: Option<Seat>,
    notice_until: Option<Instant>,
    resizes: Signal,
    raw: Raw,
}

impl Show {
    /// Connects first: what is refused is said on a terminal that is as it was.
    async fn begin(client: &Client, id: &str, looks: Looks) -> Result<Self, Failure> {
        // Before the window is looked at: a change that nobody hears of would be lost for good.
        let resizes = signal(SignalKind::window_change())?;
        let window = window();
        let connection = connect(client.clone(), id.to_owned(), looks.read_only).await?;
        let raw = Raw::enter()?;
        let mut show = Self {
            client: client.clone(),
            id: id.to_owned(),
            looks,
            stage: Stage::new(window),
            screen: None,
            keyboard: None,
            connecting: None,
            out: stage::ENTER.into(),
            writer: Writer::start()?,
            keys: raw::keys()?,
            scanner: Scanner::new(looks.detach),
            seat: None,
            notice_until: None,
            resizes,
            raw,
        };
        show.connected(connection);
        if looks.detach != DetachKey::NONE {
            show.notice(&format!("{} leaves, the session goes on", looks.detach));
        }
        Ok(show)
    }

    async fn run(&mut self) -> Left {
        match self.follow().await {
            Ok(left) => left,
            Err(error) => Left::Failed(error.into()),
        }
    }

    async fn follow(&mut self) -> std::io::Result<Left> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
        loop {
            let writes = !self.out.is_empty() || self.stage.is_due();
            tokio::select! {
                // Whoever wants to leave is heard first.
                biased;
                _ = terminate.recv() => return Ok(Left::Signal(SignalKind::terminate())),
                _ = hang_up.recv() => return Ok(Left::Signal(SignalKind::hangup())),
                _ = interrupt.recv() => return Ok(Left::Signal(SignalKind::interrupt())),
                _ = quit.recv() => return Ok(Left::Detached),
                keys = self.keys.recv(), if self.takes_keys() => match keys {
                    Some(keys) => if self.typed(&keys) { return Ok(Left::Detached) },
                    // The terminal is gone.
                    None => return Ok(Left::Signal(SignalKind::hangup())),
                },
                _ = self.resizes.recv() => self.resized(),
                permit = self.writer.portions.clone().reserve_owned(), if writes => {
                    let Ok(permit) = permit else { return Ok(Left::Signal(SignalKind::hangup())) };
                    if let Some(left) = self.gulp() {
                        return Ok(left);
                    }
                    drop(permit.send(self.portion()));
                }
                shown = next(&mut self.screen), if self.out.len() < WRITE_AHEAD => {
                    if let Some(left) = self.take(shown) {
                        return Ok(left);
                    }
                }
                connected = connecting(&mut self.connecting) => {
                    self.connecting = None;
                    match connected {
                        Ok(connection) => self.connected(connection),
                        Err(error) => return Ok(Left::Failed(error.into())),
                    }
                }
                () = until(self.notice_until) => {
                    self.notice_until = None;
                    self.stage.notice(None);
                }
            }
        }
    }

    /// What is there already is taken before the terminal is painted.
    fn gulp(&mut self) -> Option<Left> {
        for _ in 0..GULP {
            if self.out.len() >= WRITE_AHEAD {
                break;
            }
            match next(&mut self.screen).now_or_never() {
                Some(shown) => {
                    if let Some(left) = self.take(shown) {
                        return Some(left);
                    }
                }
                None => break,
            }
        }
        None
    }

    /// What the terminal is given next.
    fn portion(&mut self) -> Vec<u8> {
        let mut portion = std::mem::take(&mut self.out);
        if self.stage.is_due() {
            portion.extend_from_slice(&self.stage.paint());
        }
        portion
    }

    fn take(&mut self, shown: Shown) -> Option<Left> {
        match shown {
            Shown::Output(bytes) => {
                if self.stage.output(&bytes) {
                    self.out.extend_from_slice(&bytes);
                }
            }
            Shown::Seat(seat) => {
                self.stage.seat(seat);
                self.seat = Some(seat);
            }
            Shown::Other => {}
            Shown::End(End::Over) => return Some(Left::Over),
            Shown::End(End::Refused(why)) => return Some(Left::Refused(why)),
            Shown::End(End::Away) => {
                self.screen = None;
                self.keyboard = None;
                let (client, id) = (self.client.clone(), self.id.clone());
                let read_only = self.looks.read_only;
                self.connecting = Some(Box::pin(async move {
                    tokio::time::sleep(BREATH).await;
                    connect(client, id, read_only).await
                }));
                self.stage.notice(Some("the daemon is away; waiting for it"));
                self.notice_until = None;
            }
        }
        None
    }

    fn connected(&mut self, (screen, mut keyboard): Connection) {
        let (sender, mut messages) = mpsc::channel(KEYS_AHEAD);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                keyboard.send(message).await;
            }
        });
        self.screen = Some(screen);
        self.keyboard = Some(sender);
        self.stage.notice(None);
        // It was told the window as it was when the connection began.
        self.resized();
    }

    fn takes_keys(&self) -> bool {
        self.keyboard.as_ref().is_none_or(|keyboard| keyboard.capacity() > 0)
    }

    /// True: the person leaves.
    fn typed(&mut self, keys: &[u8]) -> bool {
        let (ours, leaves) = self.scanner.feed(keys);
        if ours > 0 {
            match &self.keyboard {
                _ if self.looks.read_only => self.notice("read-only"),
                _ if self.seat.is_some_and(|seat| !seat.writable) => {
                    self.notice("keys need the scope `approve`; this is read-only");
                }
                Some(keyboard) => drop(keyboard.try_send(tty::input(&keys[..ours]))),
                // Nobody is there to take them, and they would arrive at another screen.
                None => {}
            }
        }
        leaves
    }

    fn resized(&mut self) {
        let window = window();
        self.stage.window(window);
        if let Some(keyboard) = &self.keyboard {
            // Full: whoever types so much is at another size soon enough.
            let _ = keyboard.try_send(tty::resize(window));
        }
    }

    fn notice(&mut self, text: &str) {
        self.stage.notice(Some(text));
        self.notice_until = Some(Instant::now() + NOTICE);
    }

    /// What was shown last is written, then the terminal is put back.
    async fn end(mut self) {
        let portion = self.portion();
        let farewell = stage::leave(self.stage.has_progress());
        let written = async {
            // Of a terminal that takes nothing, this fails by the time that `finish` allows.
            let sent = tokio::time::timeout(NOTICE, self.writer.portions.send(portion)).await.is_ok();
            sent && self.writer.finish().await
        };
        self.raw.farewell(if written.await { farewell } else { String::new() });
        drop(self.raw);
    }
}

fn window() -> tty::Window {
    raw::window().unwrap_or(tty::Window { rows: 24, columns: 80 })
}

async fn next(screen: &mut Option<Screen>) -> Shown {
    match screen {
        Some(screen) => screen.next().await,
        None => std::future::pending().await,
    }
}

async fn connecting(
    connecting: &mut Option<BoxFuture<'static, Result<Connection, Error>>>,
) -> Result<Connection, Error> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A connection, as soon as there is a daemon.
async fn connect(client: Client, id: String, read_only: bool) -> Result<Connection, Error> {
    loop {
        match client.terminal(&id, read_only, window()).await {
            Err(error) if error.is_connection() => client.recover().await?,
            other => return other,
        }
    }
}
