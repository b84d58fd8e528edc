//! Sessions, hosts and their lives: the library that Rust programs embed. Refuses HTTP, terminal text and SQL.

pub mod config;
mod engine;
pub mod error;
mod failpoint;
pub mod frame;
pub mod host;
pub mod provision;
mod redact;
pub mod sandbox;
mod session;
mod shown;
pub mod supervisor;

pub use config::{ClaudeConfig, Config, Demo, DemoEndpoint, Install, Retention};
pub use error::{Error, Result};
pub use frame::{ByteStream, EventFrame, Frame, ServerSubscription, Subscription};
pub use supervisor::{Caller, Direction, ExportFormat, ListFilter, Supervisor, upload_scope};
