//! `cargo +nightly fuzz run smtp_client -- -dict=dictionaries/smtp.dict`, in `engine/fuzz`.
#![no_main]

#[path = "../harness/smtp_client.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::run(data));
