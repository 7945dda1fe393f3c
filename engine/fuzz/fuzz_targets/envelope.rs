//! `cargo +nightly fuzz run envelope`, in `engine/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mailrail_engine::fuzzed::envelope::run(data));
