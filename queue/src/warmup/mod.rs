//! Warming up a leased IP: how many recipients it may have on which day, and how many it has had.

pub mod climb;
pub mod day;
pub mod ladder;
pub mod ledger;
pub mod plan;
