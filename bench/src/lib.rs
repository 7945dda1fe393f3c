//! Load-test library of Mailrail: SMTP load generator, sink with receiver models, test DNS.

#![forbid(unsafe_code)]

pub mod dns;
