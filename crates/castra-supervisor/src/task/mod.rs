//! Tasks: what an agent says on its way to an outcome. Pure so far: no clock, no I/O.

pub mod protocol;
