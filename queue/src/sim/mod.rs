//! Rehearsals: a sending plan against models of receivers, in virtual time, by the very code that sends.
//!
//! [`world`] runs a [`campaign`]: it adds mail to a [`crate::Queue`], chooses leased IPs by [`crate::egress`], and answers what
//! goes out as a [`receiver`] would. Pure like the rest: same campaign, same seed, same report. What must hold of any sending
//! is checked on every day of every run; a run in which it did not hold has no report.

pub mod campaign;
pub mod fit;
mod flow;
mod hand;
pub mod receiver;
pub mod report;
pub mod world;
