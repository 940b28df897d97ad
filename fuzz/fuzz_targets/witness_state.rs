//! The witness's state file: `cargo +nightly fuzz run witness_state ../tests/testdata/fuzz/witness_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_witness::fuzz::state(data));
