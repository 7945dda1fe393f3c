//! `cargo +nightly fuzz run host -- -dict=dictionaries/toml.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::host::run(data));
