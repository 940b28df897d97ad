//! What one without a certificate sends, and certificates: `cargo +nightly fuzz run stranger ../tests/testdata/fuzz/stranger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_trust::fuzz::stranger(data));
