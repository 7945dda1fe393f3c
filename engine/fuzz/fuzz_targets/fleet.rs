//! `cargo +nightly fuzz run fleet -- -dict=dictionaries/toml.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::fleet::run(data));
