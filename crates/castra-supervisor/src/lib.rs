//! Sessions, hosts and their lives: the library that Rust programs embed.

pub mod host;
