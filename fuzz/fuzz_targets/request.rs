//! Requests of clients: `cargo +nightly fuzz run request ../tests/testdata/fuzz/request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kine2_etcd_api::fuzz::request(data));
