//! What tests of several modules need.

pub(crate) mod two_shards;
