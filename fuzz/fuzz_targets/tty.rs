//! Fuzzes the messages of terminal viewers. Only calls `castra::http::fuzz_tty`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castra::http::fuzz_tty(data));
