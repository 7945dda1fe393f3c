//! Pure sending decisions of one shard: what to send next, when to try again, what a reply means, which leased IP.
//!
//! No I/O, no clock and no randomness of its own: time and seeds are arguments. Generic over the message key; knows no
//! spool and no runtime. It must never lose a job, hand one out twice, or exceed a limit of connections.
#![forbid(unsafe_code)]

pub mod admit;
pub mod bucket;
pub mod classify;
mod domain;
pub mod egress;
mod job;
mod lane;
mod list;
pub mod policy;
mod queue;
pub mod retry;
pub mod shape;
pub mod sim;
mod slab;
pub mod time;
mod timer;
pub mod warmup;

pub use domain::Resolution;
pub use job::{JobId, New, Target};
pub use lane::{LaneId, LaneInfo, LaneLimits, LeaseId};
pub use queue::{Crowd, Height, Left, NextTry, OTHER, Queue, Seen, ShapeInfo, State, Taken, Work};
