//! The rules of the house as tests, so that prose and code cannot drift apart (design §13, 1-3, 5, 6).
//!
//! They read sources as text and refuse to build or run anything. A rule that stands in the way is changed
//! here, in the open, with its reason; never worked around.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod graph;
mod prose;
mod source;
mod walls;
