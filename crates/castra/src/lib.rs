//! castra's surfaces: they call the supervisor and nothing below it. Refuses rules.

pub mod http;
