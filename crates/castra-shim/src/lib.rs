//! The process that owns one claude and its record log; the guard beside it; the relay that starts them.
//!
//! Bytes only: no JSON meaning, no SQL, no network. `castra-shim run` is one poll loop and one sync thread;
//! the relay is a library for the daemon's own machine and `castra-shim relay` for the others.

mod child;
mod command;
mod conn;
mod exit;
mod full;
mod guard;
mod input;
mod log;
mod peer;
mod poll;
mod procs;
mod pty;
pub mod relay;
mod run;
mod start;
mod sys;
mod tail;

pub use start::run_main;

/// Sets this whole process's allocator to return blocks of 1 MiB or more as soon as they are freed. For a daemon that
/// is castra's own; a program that embeds castra decides for itself.
pub fn return_large_blocks() {
    sys::return_large_blocks();
}

/// Environment variable that marks every process of a run with the run's id.
pub const RUN_VARIABLE: &str = "CASTRA_RUN";

/// For people: which build this is.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Protocol versions to offer; tests of version skew override them.
pub(crate) fn versions() -> Vec<u32> {
    #[cfg(feature = "failpoints")]
    if let Ok(list) = std::env::var("CASTRA_TEST_SHIM_VERSIONS") {
        return list.split(',').filter_map(|v| v.trim().parse().ok()).collect();
    }
    castra_proto::shim::VERSIONS.to_vec()
}
