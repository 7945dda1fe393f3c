//! `cargo +nightly fuzz run reader`, in `spool/fuzz`.
#![no_main]

#[path = "../harness/reader.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::run(data));
