//! The stream of a state: `cargo +nightly fuzz run state_import ../tests/testdata/fuzz/state_import`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_backend::fuzz::state_import(data));
