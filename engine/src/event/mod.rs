//! What became of each message, told: from spool records to lines of the event log, and back to one message's story.

pub mod detail;
pub(crate) mod encode;
pub mod log;
#[doc(hidden)]
pub mod sample;
pub mod trace;
