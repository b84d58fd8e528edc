//! castra: wiring of surfaces to the supervisor.
fn main() {}
