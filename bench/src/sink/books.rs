//! What a reactor thread has written down: counters, ledger, kept copies. One per reactor thread, behind a lock that
//! the thread takes once per batch of events and a snapshot now and then.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::latency::Latency;
use crate::ledger::{self, Ledger};
use crate::sink::counts::Cells;
use crate::sink::{Delivery, Store};

const DAY_US: u64 = 86_400_000_000;

#[derive(Debug)]
pub(super) struct Books {
    pub(super) cells: Cells,
    pub(super) end_to_end: Latency,
    pub(super) ledger: Ledger,
    pub(super) deliveries: Vec<Arc<Delivery>>,
    pub(super) kept_bytes: usize,
    pub(super) not_kept: u64,
    /// Hashes of sender and recipient by watched source IP and day since 1970.
    pub(super) named: HashMap<(IpAddr, u64), HashSet<u64>>,
    store: Store,
}

impl Books {
    pub(super) fn new(store: Store) -> Self {
        Self {
            cells: Cells::default(),
            end_to_end: Latency::new(),
            ledger: Ledger::new(),
            deliveries: Vec::new(),
            kept_bytes: 0,
            not_kept: 0,
            named: HashMap::new(),
            store,
        }
    }

    /// Copies delivered so far.
    pub(super) fn recipients(&self) -> u64 {
        self.cells.iter().map(|(_, _, counts)| counts.recipients).sum()
    }

    pub(super) fn ledger_add(&mut self, message: &[u8], recipient: &[u8], at_us: u64) {
        if !matches!(self.store, Store::None) {
            self.ledger.add(message, recipient, at_us);
        }
    }

    /// A watched source IP names a recipient at `at_us` microseconds since 1970.
    pub(super) fn name(&mut self, ip: IpAddr, sender: &[u8], recipient: &[u8], at_us: u64) {
        self.named.entry((ip, at_us / DAY_US)).or_default().insert(ledger::key(sender, recipient));
    }

    /// Whether a copy of this size may be kept; counts it as not kept where not.
    pub(super) fn has_room(&mut self, len: usize) -> bool {
        let Store::Full { messages_max, bytes_max } = self.store else { return false };
        let has_room = self.deliveries.len() < messages_max && self.kept_bytes + len <= bytes_max;
        self.not_kept += u64::from(!has_room);
        has_room
    }

    /// Whether copies are kept here.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.store, Store::Full { .. })
    }

    pub(super) fn keep(&mut self, delivery: Delivery) {
        self.kept_bytes += delivery.content.len();
        self.deliveries.push(Arc::new(delivery));
    }
}
