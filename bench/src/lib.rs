//! Load-test library of Mailrail: SMTP load generator, sink with receiver models, test DNS.

#![forbid(unsafe_code)]

pub mod cpu;
pub mod dns;
pub mod latency;
pub mod ledger;
pub mod load;
pub mod model;
mod providers;
pub mod sink;
pub mod tls;
mod wire;
