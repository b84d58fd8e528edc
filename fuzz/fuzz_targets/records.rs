//! Fuzzes a segment of the record log. Only calls `castra_proto::shim::fuzz_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castra_proto::shim::fuzz_records(data));
