//! `cargo +nightly fuzz run control_json -- -dict=dictionaries/json.dict`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::control_json::run(data));
