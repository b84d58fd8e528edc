//! claude's messages, typed: what stdout says, what stdin takes, and a view that answers what users ask.
//!
//! A field that is missing or null is `None`, one that is not known is in `extra`, a message that is not known, or
//! whose known fields have other types, is `Unknown`. Nothing here is written back: the original bytes are kept.

#[macro_use]
mod define;
pub mod answer;
pub mod control;
pub mod stdin;
pub mod stdout;
pub mod system;
mod view;

pub use stdin::Stdin;
pub use stdout::Stdout;
pub use view::{Message, ToolResultView, ToolUse};
