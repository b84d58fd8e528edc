//! Sessions, hosts and their lives: the library that Rust programs embed. Refuses HTTP, terminal text and SQL.
//!
//! [`Supervisor::open`] takes a data folder, [`Supervisor::start`] begins a session in it, and [`Session`] is what a
//! program holds: [`handle`] shows it. Surfaces use [`Supervisor`] itself.

pub mod config;
mod engine;
pub mod error;
mod failpoint;
pub mod frame;
pub mod handle;
pub mod host;
pub mod provision;
mod redact;
pub mod sandbox;
mod session;
mod shown;
pub mod supervisor;
pub mod task;
mod team;
pub mod terminal;
mod trouble;

pub use castra_shim::return_large_blocks;

/// claude's messages, typed.
pub use castra_claude::message;
pub use castra_store::TaskFilter;
pub use config::{
    ClaudeConfig, Config, DefinitionFiles, Demo, DemoEndpoint, Install, ReadDefinitions, Retention,
};
pub use error::{Error, Result};
pub use frame::{ByteStream, EventFrame, Frame, ServerSubscription, Subscription};
pub use handle::{Approver, Events, Messages, Session, Spoken, Task, TaskEvents, Team};
pub use session::screen::{Picture, TypeError, View};
pub use supervisor::{Caller, Direction, ExportFormat, ListFilter, Supervisor, upload_scope};
pub use task::TaskLimits;
pub use task::hooks::{
    Answer, Answered, HookCtx, HookError, HookResult, Hooks, Outgoing, Post, PostError, Registered,
};
