//! What was put away of a part: `cargo +nightly fuzz run quarantine ../tests/testdata/fuzz/quarantine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_replication::fuzz::quarantine(data));
