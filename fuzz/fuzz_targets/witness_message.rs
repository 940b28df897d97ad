//! What a witness reads off a connection: `cargo +nightly fuzz run witness_message ../tests/testdata/fuzz/witness_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_witness::fuzz::message(data));
