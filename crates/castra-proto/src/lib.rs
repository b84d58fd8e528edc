//! Everything of castra that leaves a process: ids, events, API types, shim frames.

pub mod shim;
