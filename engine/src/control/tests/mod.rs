//! The control thread whole, over its real socket, with shards that only answer the link.

mod api;
mod events;
mod fleet;
mod rig;
mod stopping;

pub(super) use rig::config;
