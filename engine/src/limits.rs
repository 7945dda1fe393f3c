//! The limits of the engine that are no setting, in one place, each with its reason.

use std::time::Duration;

/// See each member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Received fields of a message; more is a loop (RFC 5321 section 6.3 asks for at least 100 by those who only count; 50
    /// is what the product promises).
    pub hops: u32,
    /// Outcomes wait so long for a message to share its sync with; what a crash can put in doubt is what happened since.
    pub settle_delay: Duration,
    /// How long a group of messages waits at most for clients that were answered just now, when syncs follow closely: a
    /// twentieth of the syncs for a few milliseconds of a client's time.
    pub gather: Duration,
    /// Addresses of a site that one attempt to connect tries (RFC 5321 section 5.1 asks for at least two).
    pub hosts_per_attempt: usize,
    /// How long a delivery connection stays open without mail.
    pub idle_line: Duration,
    /// Memory for signatures of messages that are sent more than once, a shard.
    pub signature_bytes: usize,
    /// How long a message waits for a new segment before its client is told to try later.
    pub spool_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hops: 50,
            settle_delay: Duration::from_millis(50),
            gather: Duration::from_millis(3),
            hosts_per_attempt: 5,
            idle_line: Duration::from_secs(5),
            signature_bytes: 16 << 20,
            spool_wait: Duration::from_secs(5),
        }
    }
}
