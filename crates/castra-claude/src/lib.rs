//! All that castra knows of the Claude Code CLI: launching, stream-json both ways, transcripts, files.
//!
//! Pure: no file, no clock, no process, no tokio. What it needs of the world its callers hand in, so that its
//! tests are tables. Facts about the CLI were measured on 2.1.197 (npm) and 2.1.329 (bundled in the Python SDK).

pub mod config;
pub mod control;
pub mod decode;
pub mod fact;
mod field;
pub mod fuzz;
pub mod history;
pub mod input;
pub mod launch;
pub mod line;
pub mod message;
pub mod open;
mod peek;
pub mod permission;
pub mod price;
pub mod tail;
pub mod terminal;
pub mod transcript;

pub use decode::Decoder;
pub use fact::{Decoded, Fact, Note};
pub use line::{LineId, RecordIn, StreamIn};
pub use open::{BlockKind, OpenBlock, OpenMessage};
pub use tail::{Tail, Told};
