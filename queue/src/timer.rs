//! What lanes and domains are to be looked at when. Entries are never taken back: who set one leaves a stamp, and an old
//! stamp means nothing. Jobs have a calendar of their own, as they are many.

use crate::time::Mono;
use std::{cmp::Reverse, collections::BinaryHeap};

/// What to look at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A lane that was backed off, or kept to few connections.
    Lane(u32),
    /// A domain that nobody knew, or whose answer is overdue.
    Domain(u32),
    /// A leased IP, by its position, whose plan lets go more of the mail that waits.
    Lease(u32),
    /// A leased IP and a provider, that have something to give each other again.
    Shape(u32),
}

/// In milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(u64, Due, u32)>>);

fn ms(at: Mono) -> u64 {
    at.0.div_ceil(1_000_000)
}

impl Timers {
    /// `due` is to be looked at, at `at` or a little later, if its stamp is still this one.
    pub(crate) fn set(&mut self, at: Mono, due: Due, stamp: u32) {
        self.0.push(Reverse((ms(at), due, stamp)));
    }

    /// The next entry that is due.
    pub(crate) fn pop(&mut self, now: Mono) -> Option<(Due, u32)> {
        let Reverse((at, due, stamp)) = *self.0.peek()?;
        if at > now.0 / 1_000_000 {
            return None;
        }
        self.0.pop();
        Some((due, stamp))
    }

    /// When there is something to pop.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.0.peek().map(|Reverse((at, ..))| Mono(at.saturating_mul(1_000_000)))
    }
}
