//! The Mailrail server as a library.
#![forbid(unsafe_code)]
pub mod clock;
pub mod config;
pub mod control;
pub mod event;
pub mod limits;
pub mod link;
pub mod message;
pub mod privileges;
pub mod sign;
mod signal;
pub mod smtp;
pub mod tls;
