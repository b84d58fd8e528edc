//! What fuzzing once found stays found.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on fails.

use std::path::Path;

#[test]
fn the_committed_inputs_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/stream");
    let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 8, "{inputs:?}");
    inputs.iter().for_each(|path| castra_claude::fuzz::fuzz_stream(&std::fs::read(path).unwrap()));
}
