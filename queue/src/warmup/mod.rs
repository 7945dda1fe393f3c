//! Warming up a leased IP: how many recipients it may have on which day, and how many it has had.

pub mod day;
pub mod ledger;
pub mod plan;
