//! Pure sending decisions: no I/O, no clock, no randomness of their own.
#![forbid(unsafe_code)]
pub mod policy;
pub mod time;
