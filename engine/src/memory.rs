//! What the server holds of the memory that grows with load, against `[limits] memory`. *One account a shard; all read all.*
//!
//! Counted from what is known to be held, by what a test has measured each thing to cost at most (`behaviour/overload.rs`,
//! `behaviour/hostile_clients.rs`): no system call, and the ceiling is believed before it is reached. Who would exceed it is
//! told to come again: a connection by 421, a transaction by 452 before anything of it is taken. Mail that was taken goes on.
//! Each shard writes its own number only; the sum may be old by what others took while it was made.

use crate::{shard::Shard, smtp::buffer};
use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The process without mail: code that was written to, tables, control thread, resolver, certificates.
const PROCESS: u64 = 32 << 20;
/// A shard without mail: rings, events on their way, a group being gathered.
const SHARD: u64 = 8 << 20;
/// Least ceiling that leaves room for mail, octets, for so many shards.
pub(crate) const fn least(shards: u16) -> u64 {
    PROCESS + (SHARD + (2 << 20)) * shards as u64
}
/// A client connection without its buffers.
const SESSION: u64 = 16 << 10;
/// What TLS adds to it: records both ways, and its state.
const TLS: u64 = 64 << 10;
/// A transaction may come to a full receive buffer, and another shard to a copy of it.
const TRANSACTION: u64 = 2 * buffer::MAX as u64;
/// A delivery connection, TLS included.
const DELIVERY: u64 = 96 << 10;
/// A message in the index of the spool (200 at most, as its tests say), and a recipient of it there and in the queue (120 at
/// most for the first one to a domain).
const MESSAGE: u64 = 256;
const RECIPIENT: u64 = 160;

/// What all shards hold. Each number has a cache line of its own.
#[derive(Debug)]
pub(crate) struct Ceiling {
    most: u64,
    held: Box<[Line]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Ceiling {
    pub(crate) fn new(most: u64, shards: u16) -> Arc<Self> {
        let most = most.saturating_sub(PROCESS + SHARD * u64::from(shards));
        Arc::new(Self { most, held: (0..shards).map(|_| Line::default()).collect() })
    }

    fn room(&self) -> u64 {
        let held: u64 = self.held.iter().map(|line| line.0.load(Relaxed)).sum();
        self.most.saturating_sub(held)
    }
}

/// One shard's account.
#[derive(Debug)]
pub(crate) struct Memory {
    ceiling: Arc<Ceiling>,
    number: usize,
    /// Of client connections.
    sessions: Cell<u64>,
}

impl Memory {
    pub(crate) fn new(ceiling: Arc<Ceiling>, number: u16) -> Self {
        Self { ceiling, number: number.into(), sessions: Cell::new(0) }
    }
}

/// What a shard holds now, octets; told to the others.
pub(crate) fn held(shard: &Shard) -> u64 {
    let memory = &shard.memory;
    let (messages, recipients) = {
        let spool = shard.spool.borrow();
        (spool.len() as u64, spool.recipients())
    };
    let deliveries = u64::from(shard.stats.borrow().deliveries);
    let signatures = shard.signatures.borrow().bytes() as u64;
    let held = memory.sessions.get() + deliveries * DELIVERY + messages * MESSAGE + recipients * RECIPIENT + signatures;
    if let Some(line) = memory.ceiling.held.get(memory.number) {
        line.0.store(held, Relaxed);
    }
    held
}

/// May another connection be taken? They may have three quarters of what there is, so that those that have one can use it.
pub(crate) fn takes_connection(shard: &Shard) -> bool {
    held(shard);
    let ceiling = &shard.memory.ceiling;
    ceiling.room() > ceiling.most / 4 + SESSION + buffer::START as u64
}

/// May another transaction be begun?
pub(crate) fn takes_transaction(shard: &Shard) -> bool {
    held(shard);
    shard.memory.ceiling.room() > TRANSACTION
}

/// What one client connection holds; given back when it is dropped.
pub(crate) struct Weight<'a> {
    memory: &'a Memory,
    octets: u64,
}

impl<'a> Weight<'a> {
    pub(crate) fn new(shard: &'a Shard) -> Self {
        let mut weight = Self { memory: &shard.memory, octets: 0 };
        weight.set(buffer::START, false, false);
        weight
    }

    /// It holds so many octets in buffers; with TLS, in a transaction.
    pub(crate) fn set(&mut self, buffers: usize, tls: bool, in_transaction: bool) {
        let buffers = (buffers as u64).max(if in_transaction { TRANSACTION } else { 0 });
        self.change(SESSION + buffers + if tls { TLS } else { 0 });
    }

    fn change(&mut self, octets: u64) {
        let sessions = &self.memory.sessions;
        sessions.set(sessions.get() - self.octets + octets);
        self.octets = octets;
    }
}

impl Drop for Weight<'_> {
    fn drop(&mut self) {
        self.change(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_share_one_ceiling() {
        let ceiling = Ceiling::new(least(2), 2);
        assert_eq!(ceiling.room(), 4 << 20);
        ceiling.held[0].0.store(3 << 20, Relaxed);
        assert_eq!(ceiling.room(), 1 << 20);
        ceiling.held[1].0.store(3 << 20, Relaxed);
        assert_eq!(ceiling.room(), 0);
    }

    #[test]
    fn a_connection_gives_back_what_it_held() {
        let memory = Memory::new(Ceiling::new(1 << 30, 1), 0);
        let mut weight = Weight { memory: &memory, octets: 0 };
        weight.set(8 << 10, false, false);
        assert_eq!(memory.sessions.get(), SESSION + (8 << 10));
        weight.set(8 << 10, true, true);
        assert_eq!(memory.sessions.get(), SESSION + TRANSACTION + TLS);
        weight.set(64 << 10, true, false);
        assert_eq!(memory.sessions.get(), SESSION + (64 << 10) + TLS);
        drop(weight);
        assert_eq!(memory.sessions.get(), 0);
    }
}
