//! Mail coming in: listeners and sessions of a shard.

pub(crate) mod listener;
pub(crate) mod session;
