//! Which recipient got which message how often: the compact book that proves "none lost, none twice".
//!
//! A message is known by its `X-Load-Id` (or `Message-ID`) and a recipient by its address; the pair is kept as a
//! 64-bit hash with a count and a time, about 32 bytes. That any two of a million pairs collide has a chance of 3 in
//! 10^8; counts still add up then. Plain data: no I/O, no clock.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;

/// Hands a key that is a hash already through unchanged.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys of the ledger are u64");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What is known of one message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// How many copies.
    pub count: u32,
    /// When the first one came, in microseconds since 1970 (UTC).
    pub first_us: u64,
}

/// Counts by message and recipient.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: HashMap<u64, Entry, BuildHasherDefault<Identity>>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes one copy of `message` for `recipient` at `at_us` microseconds since 1970. Case of the recipient does not
    /// matter.
    pub fn add(&mut self, message: &[u8], recipient: &[u8], at_us: u64) {
        let entry = self.entries.entry(key(message, recipient)).or_insert(Entry { count: 0, first_us: at_us });
        entry.count += 1;
        entry.first_us = entry.first_us.min(at_us);
    }

    /// What is known of `message` for `recipient`.
    #[must_use]
    pub fn get(&self, message: &[u8], recipient: &[u8]) -> Option<Entry> {
        self.entries.get(&key(message, recipient)).copied()
    }

    /// Different pairs of message and recipient.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds everything another ledger knows.
    pub fn merge(&mut self, other: &Self) {
        for (key, theirs) in &other.entries {
            let entry = self.entries.entry(*key).or_insert(Entry { count: 0, first_us: theirs.first_us });
            entry.count += theirs.count;
            entry.first_us = entry.first_us.min(theirs.first_us);
        }
    }

    /// Compares what was delivered (`self`) with what was accepted (`accepted`).
    #[must_use]
    pub fn reconcile(&self, accepted: &Self) -> Reconciliation {
        let mut result = Reconciliation { accepted: accepted.entries.len() as u64, ..Reconciliation::default() };
        let mut end_to_end = Latency::new();
        for (key, sent) in &accepted.entries {
            match self.entries.get(key) {
                None => result.missing += 1,
                Some(got) => {
                    end_to_end.record(Duration::from_micros(got.first_us.saturating_sub(sent.first_us)));
                    match got.count.cmp(&sent.count) {
                        Ordering::Less => result.missing += 1,
                        Ordering::Equal => result.delivered_once += 1,
                        Ordering::Greater => result.duplicated += 1,
                    }
                }
            }
        }
        result.unexpected = self.entries.keys().filter(|key| !accepted.entries.contains_key(key)).count() as u64;
        result.end_to_end = end_to_end.summary();
        result
    }
}

/// How deliveries compare with acceptances, in recipients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Accepted.
    pub accepted: u64,
    /// Of those: delivered as often as accepted.
    pub delivered_once: u64,
    /// Of those: not delivered (bounced, still queued, or lost: the sender's own books must tell).
    pub missing: u64,
    /// Of those: delivered more often than accepted.
    pub duplicated: u64,
    /// Delivered without being accepted.
    pub unexpected: u64,
    /// From acceptance to first delivery.
    pub end_to_end: crate::latency::Summary,
}

pub(crate) fn key(message: &[u8], recipient: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(message);
    hasher.write_u8(0xff); // in no address and no id, so that the two cannot run into each other
    let mut lower = [0; 64];
    for part in recipient.chunks(lower.len()) {
        let lower = &mut lower[..part.len()];
        lower.copy_from_slice(part);
        lower.make_ascii_lowercase();
        hasher.write(lower);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_duplicated_and_unexpected_are_told_apart() {
        let (mut accepted, mut delivered) = (Ledger::new(), Ledger::new());
        for recipient in ["a@x.test", "b@x.test", "c@x.test"] {
            accepted.add(b"run-1", recipient.as_bytes(), 1_000);
        }
        delivered.add(b"run-1", b"A@X.test", 3_000);
        delivered.add(b"run-1", b"b@x.test", 2_000);
        delivered.add(b"run-1", b"b@x.test", 9_000);
        delivered.add(b"run-2", b"a@x.test", 9_000);
        let result = delivered.reconcile(&accepted);
        assert_eq!((result.accepted, result.delivered_once, result.missing), (3, 1, 1));
        assert_eq!((result.duplicated, result.unexpected), (1, 1));
        assert_eq!(result.end_to_end.count, 2);
        assert_eq!(delivered.get(b"run-1", b"b@x.test"), Some(Entry { count: 2, first_us: 2_000 }));
    }

    #[test]
    fn merging_adds_counts() {
        let (mut one, mut other) = (Ledger::new(), Ledger::new());
        one.add(b"1", b"a@x.test", 5);
        other.add(b"1", b"a@x.test", 3);
        other.add(b"2", b"a@x.test", 3);
        one.merge(&other);
        assert_eq!(one.len(), 2);
        assert_eq!(one.get(b"1", b"a@x.test"), Some(Entry { count: 2, first_us: 3 }));
    }
}
