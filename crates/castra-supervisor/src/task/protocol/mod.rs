//! The coordination protocol: what an agent says in `optio.log`, how it is told to say it, and what it is answered.
//! Refuses files, clocks and decisions.
//!
//! Words, forms, examples and explanations stand in one [`table`]; [`parse`] reads by it and [`text`] is written from
//! it, so that an agent is never told of a keyword that is not read, nor the other way round.
//!
//! # What ends a task, and what only looks like it
//!
//! `DONE` and `ERROR` end a task for good, and a text of several lines may hold a line that says just that (a list of
//! steps, a compiler's output). An **end line counts only where it stands alone**: the line before it and the line
//! after it are each nothing, empty, indented, a line with a keyword, or [`PAUSE`] away. Otherwise it is a
//! [`Said::Stray`]: shown as a line of text, ending nothing, and worth an answer ([`notice::stray`]) that says how to
//! end the task, so that the error costs one message where the other one would cost the task.
//!
//! Why this rule: what `echo DONE >> optio.log` writes after `echo "STATUS: …"` is byte for byte the beginning of a
//! status of three lines with `DONE` in the middle, so that no rule can do without the line that follows, nor without
//! a moment in which none follows. It asks of agents nothing that they do not do anyhow (one command, one line), where
//! a code word or quotes would be forgotten just when it matters, at the end of a long task. And it depends on the
//! file's text and on the times in the record log only, neither on how reads cut the file nor on when the daemon
//! looked, so that a replay after a crash says the same.
//!
//! Source of the grammar: facts/optio.md §1c; what differs from it is this rule.
//!
//! [`PAUSE`]: PAUSE_US

mod encoded;
mod grammar;
pub mod notice;
mod reader;
pub mod table;
pub mod text;

pub use grammar::{Enabled, Said, parse};
pub use reader::{Entry, MAX_LINE, PAUSE_US, Reader};
