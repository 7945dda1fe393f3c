//! `cargo +nightly fuzz run headers -- -dict=dictionaries/headers.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::headers::run(data));
