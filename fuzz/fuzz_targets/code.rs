//! A one-time code: `cargo +nightly fuzz run code ../tests/testdata/fuzz/code`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_trust::fuzz::code(data));
