//! `cargo +nightly fuzz run canonical -- -dict=dictionaries/headers.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::canonical::run(data));
