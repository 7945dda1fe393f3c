//! `cargo +nightly fuzz run suppression -- -dict=dictionaries/json.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::suppression::run(data));
