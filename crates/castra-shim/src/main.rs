//! `castra-shim`: argv to shim, guard and relay.
fn main() {}
