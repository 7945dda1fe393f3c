//! `cargo +nightly fuzz run smtp_server -- -dict=dictionaries/smtp.dict`, in `engine/fuzz`.
#![no_main]

#[path = "../harness/smtp_server.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::run(data));
