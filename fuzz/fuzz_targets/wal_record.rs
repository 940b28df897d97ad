//! Bytes of a log segment: `cargo +nightly fuzz run wal_record ../tests/testdata/fuzz/wal_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_wal::fuzz::wal_record(data));
