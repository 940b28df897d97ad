//! A node's own record in its log: `cargo +nightly fuzz run own_record ../tests/testdata/fuzz/own_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_replication::fuzz::own_record(data));
