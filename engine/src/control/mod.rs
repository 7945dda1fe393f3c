//! The control thread: everything that may block, away from the data path.
//!
//! One per host: a tokio runtime on a thread of its own, with the resolver, the control store, the event log, the control
//! socket and the metrics. It knows the shards only through [`crate::link`]; mail already accepted flows on without it.

pub mod api;
pub mod fleet;
pub mod store;
