//! A configuration file: `cargo +nightly fuzz run config ../tests/testdata/fuzz/config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2::fuzz::config(data));
