//! Dev-only: a world of its own for each test (folders, daemon, scripted model), the real CLIs, `fake-claude`.
//! Refuses to be a dependency of anything that ships, and to touch a process that is not its own.
//!
//! Calls block and panic: a test that cannot go on says so where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clis;
mod command;
mod daemon;
mod events;
mod fake;
mod http;
pub mod proc;
mod project;
mod session;
mod task;
pub mod tmux;
mod wait;
mod world;

pub use clis::{Cli, clis, each};
pub use command::Output;
pub use daemon::Daemon;
pub use events::Events;
pub use fake::fake_claude;
pub use http::{Http, Reply};
pub use project::{Projected, line_of, normalise};
pub use session::Session;
pub use task::Task;
pub use wait::{DEADLINE, wait_for, wait_until};
pub use world::World;
