//! Fuzzes the body of every HTTP request. Only calls `castra::http::fuzz_http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castra::http::fuzz_http(data));
