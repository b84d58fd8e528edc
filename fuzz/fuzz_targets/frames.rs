//! Fuzzes frames of the shim's socket, in both directions. Only calls `castra_proto::shim::fuzz_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castra_proto::shim::fuzz_frames(data));
