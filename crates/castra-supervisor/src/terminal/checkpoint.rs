//! A terminal as bytes, so that a new daemon need not replay the whole log.

use thiserror::Error;

use super::{Scrollback, Size, Terminal};

const MAGIC: &[u8; 4] = b"CSTM";
const VERSION: u8 = 1;
const HEADER: usize = 25;

/// Bytes that are no checkpoint of this version: replay the log instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CheckpointError {
    #[error("not a checkpoint")]
    Magic,
    #[error("checkpoint version {version} is not known")]
    Version { version: u8 },
    #[error("checkpoint cut short")]
    Short,
}

impl Terminal {
    /// The terminal, and `next`: the number of the first record that it has not been fed.
    pub fn checkpoint(&self, next: u64) -> Vec<u8> {
        let body = self.serialise();
        let mut out = Vec::with_capacity(HEADER + body.len());
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&self.size.rows.to_le_bytes());
        out.extend_from_slice(&self.size.cols.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// The terminal of [`Terminal::checkpoint`], and `next`.
    pub fn restore(bytes: &[u8], scrollback: Scrollback) -> Result<(Terminal, u64), CheckpointError> {
        let (header, body) = bytes.split_first_chunk::<HEADER>().ok_or(CheckpointError::Short)?;
        if &header[..4] != MAGIC {
            return Err(CheckpointError::Magic);
        }
        if header[4] != VERSION {
            return Err(CheckpointError::Version { version: header[4] });
        }
        let u64_at = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if u64_at(17) != body.len() as u64 {
            return Err(CheckpointError::Short);
        }
        let mut terminal = Terminal::new(Size::new(u16_at(13), u16_at(15)), scrollback);
        terminal.feed(body);
        Ok((terminal, u64_at(5)))
    }
}
