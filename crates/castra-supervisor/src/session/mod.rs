//! A session's life: states, derived state, the actor that owns its newest run.

pub(crate) mod actor;
pub(crate) mod commands;
pub(crate) mod coordinate;
pub(crate) mod deliver;
pub(crate) mod drive;
pub(crate) mod finish;
mod fixed;
pub(crate) mod forward;
pub(crate) mod hub;
pub(crate) mod launch;
pub(crate) mod line;
pub(crate) mod records;
pub(crate) mod screen;
pub(crate) mod serve;
pub(crate) mod state;
pub(crate) mod stop;
pub(crate) mod tty;
pub(crate) mod view;
