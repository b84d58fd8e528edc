//! Fuzzes what claude writes, through the decoder. Only calls `castra_claude::fuzz::fuzz_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castra_claude::fuzz::fuzz_stream(data));
