//! Tasks: from instructions to an outcome. A task's attempts drive sessions; what its agent reports arrives as events of
//! the session, and is folded here. Refuses to touch a run: sessions are told what to do as anybody tells them.

pub(crate) mod announce;
pub(crate) mod block;
pub(crate) mod browser;
mod children;
mod choose;
pub(crate) mod clock;
pub mod cron;
pub mod document;
pub(crate) mod driver;
mod end;
pub mod filter;
pub(crate) mod firing;
pub(crate) mod group;
pub(crate) mod handover;
pub(crate) mod held;
pub(crate) mod hooks;
pub(crate) mod hub;
pub(crate) mod inputs;
mod mended;
pub mod params;
pub mod protocol;
pub(crate) mod queue;
pub(crate) mod reach;
mod reply;
mod resumed;
pub(crate) mod state;
pub(crate) mod todos;
pub(crate) mod upload;
pub(crate) mod view;
pub(crate) mod workspace;

pub(crate) use end::again as end_again;
pub use queue::TaskLimits;
