//! The terminal of a run: its master, its size, its bytes. What they mean is the daemon's.

use std::io;
use std::os::fd::OwnedFd;

use castra_proto::shim;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    /// Held, so that the master is never hung up while claude lives, even when claude closes its own
    /// descriptors and opens `/dev/tty` again: the end is claude's exit, not EIO.
    pub(crate) slave: OwnedFd,
    pub(crate) size: shim::Pty,
}

/// What one turn read of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// So many bytes, and there may be more.
    More(usize),
    /// So many, and the terminal is empty.
    Empty(usize),
    /// So many, and nothing can ever come again.
    Gone(usize),
}

impl Pty {
    pub(crate) fn open(size: shim::Pty) -> io::Result<Pty> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        // By the descriptor, not by name: whatever is mounted on /dev/pts.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let mut modes = tcgetattr(&slave)?;
        // Erasing in line mode takes whole characters, as in any terminal since UTF-8.
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let mut pty = Pty { master, slave, size };
        pty.resize(size)?;
        Ok(pty)
    }

    /// Sets the size; the kernel signals the foreground process when it is another.
    pub(crate) fn resize(&mut self, size: shim::Pty) -> io::Result<()> {
        let window = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, window)?;
        self.size = size;
        Ok(())
    }

    /// Fills `buf` with what is there. A read brings 4 to 8 kB at most, however much waits: one record of
    /// several costs a third of one record each.
    pub(crate) fn drain(&self, buf: &mut [u8]) -> Drained {
        let mut have = 0;
        while have < buf.len() {
            match rustix::io::read(&self.master, &mut buf[have..]) {
                Ok(0) => return Drained::Gone(have),
                Ok(read) => have += read,
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Drained::Empty(have),
                // EIO: every slave is closed.
                Err(_) => return Drained::Gone(have),
            }
        }
        Drained::More(have)
    }
}
