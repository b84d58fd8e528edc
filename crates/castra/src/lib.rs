//! Surfaces and wiring of the one binary: argv, routes, exit codes. Rules live in castra-supervisor.

pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod exec;
pub mod http;
pub mod webhook;
