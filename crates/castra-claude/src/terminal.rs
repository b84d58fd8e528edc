//! Everything about the interactive CLI that is not in its transcript: typing into it, reading its screen, its signals.
//!
//! No key goes into a screen that was not recognised: whoever types asks [`screen`] first. Refuses terminals: rows come
//! in as text and bytes go out; what runs the terminal is elsewhere.

pub mod answer;
pub mod keys;
pub mod screen;
pub mod signal;
pub mod typing;
