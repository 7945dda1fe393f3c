//! The Mailrail server as a library.
//!
//! A host ([`host`]) is a set of shards and one control thread. A shard is one core: it takes mail in over SMTP, keeps it
//! in its own spool, and delivers it from its own leased IPs; `flow` shows the path of a message on a few screens. Shards and
//! the control thread know only [`link`].
#![forbid(unsafe_code)]

mod adopt;
mod answer;
mod bounce;
mod claims;
pub mod clock;
mod commit;
pub mod config;
pub mod control;
pub mod credentials;
mod deliver;
pub mod event;
mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod host;
mod housekeeping;
mod life;
pub mod limits;
pub mod link;
mod memory;
mod mesh;
pub mod message;
mod operate;
mod outbox;
mod overflow;
pub mod privileges;
mod providers;
mod quota;
mod receive;
mod rehome;
mod returning;
pub mod sandbox;
mod shard;
pub mod sign;
mod signal;
pub mod smtp;
mod submit;
#[cfg(test)]
mod tests;
pub mod tls;
mod warmup;

pub use adopt::spools;
