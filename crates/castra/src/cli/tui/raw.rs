//! The person's own terminal while it shows another: raw, and put back on every way out, a panic included.

use super::stage;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::client::tty::Window;

/// Typed ahead, in portions; the reader waits beyond.
const AHEAD: usize = 256;
/// One read of the keyboard.
const PORTION: usize = 4096;
/// For a terminal that takes nothing any more.
const STALLED: Duration = Duration::from_secs(2);

/// The modes to go back to, while they are others. Locked for the time of a swap.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    modes: Termios,
    farewell: String,
}

/// Raw mode. Dropping it ends it.
pub(super) struct Raw(());

impl Raw {
    pub(super) fn enter() -> std::io::Result<Self> {
        static HOOK: Once = Once::new();
        let modes = tcgetattr(std::io::stdin())?;
        let mut raw = modes.clone();
        raw.make_raw();
        swap(Some(Before { modes, farewell: stage::leave(false) }));
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // First, so that the panic can be read.
                restore();
                before(info);
            }));
        });
        let this = Self(());
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(this)
    }

    /// What is written at the end; nothing: the terminal takes nothing.
    pub(super) fn farewell(&self, text: String) {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before.as_mut() {
            before.farewell = text;
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn swap(new: Option<Before>) -> Option<Before> {
    std::mem::replace(&mut *BEFORE.lock().unwrap_or_else(PoisonError::into_inner), new)
}

fn restore() {
    let Some(before) = swap(None) else { return };
    let mut action = OptionalActions::Now;
    if !before.farewell.is_empty() {
        let _ = write_all(before.farewell.as_bytes());
        // With what the terminal still says about its mouse or its focus: nobody reads that any more.
        action = OptionalActions::Flush;
    }
    let _ = tcsetattr(std::io::stdin(), action, &before.modes);
}

/// Past the lock of stdout, which a thread that is stalled may hold.
fn write_all(mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(std::io::stdout(), bytes) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(n) => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// The size of the window that stdout is; none: of no use.
pub(super) fn window() -> Option<Window> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Window { rows: size.ws_row, columns: size.ws_col })
}

/// What is typed, in portions as they were read. The thread ends with the process: a blocked read cannot be cancelled.
pub(super) fn keys() -> std::io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, keys) = mpsc::channel(AHEAD);
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        let mut buffer = [0; PORTION];
        loop {
            match rustix::io::read(std::io::stdin(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(n) if n > 0 => {
                    if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    })?;
    Ok(keys)
}

/// Writes to the terminal from a thread of its own: one that is stalled must not keep a person from leaving.
pub(super) struct Writer {
    /// One portion at a time; the rest stays where it can be skipped.
    pub(super) portions: mpsc::Sender<Vec<u8>>,
    done: oneshot::Receiver<()>,
}

impl Writer {
    pub(super) fn start() -> std::io::Result<Self> {
        let (portions, mut received): (_, mpsc::Receiver<Vec<u8>>) = mpsc::channel(1);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new().name("screen".into()).spawn(move || {
            while let Some(portion) = received.blocking_recv() {
                if write_all(&portion).is_err() {
                    break;
                }
            }
            let _ = finished.send(());
        })?;
        Ok(Self { portions, done })
    }

    /// Returns when all is written. False: the terminal takes nothing.
    pub(super) async fn finish(self) -> bool {
        drop(self.portions);
        tokio::time::timeout(STALLED, self.done).await.is_ok()
    }
}
