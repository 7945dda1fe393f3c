//! `cargo +nightly fuzz run dsn -- -dict=dictionaries/dsn.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::dsn::run(data));
