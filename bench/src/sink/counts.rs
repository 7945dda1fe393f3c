//! What a sink counts: one [`Counts`] for each pair of receiver model and source IP, from which a report makes sums.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::latency::Summary;
use crate::model::Table;
use crate::sink::dkim::DkimCounts;

/// Counters of one receiver model towards one source IP, or sums over several. Names with `max_` are maxima of the
/// single pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// Connections turned away with 421.
    pub connections_refused: u64,
    /// Transactions begun: MAIL accepted.
    pub transactions: u64,
    /// Messages delivered: 250 to the final dot.
    pub messages: u64,
    /// Copies delivered: recipients of those messages.
    pub recipients: u64,
    /// Content bytes delivered, as on the wire.
    pub bytes: u64,
    /// Commands, recipients and messages answered 4xx.
    pub refused_4xx: u64,
    /// Commands, recipients and messages answered 5xx.
    pub refused_5xx: u64,
    /// Messages complete whose final reply was withheld: the sender cannot know.
    pub in_doubt: u64,
    /// Misbehaviour shown on purpose.
    pub faults: u64,
    /// Commands out of order, malformed, or using what was not offered.
    pub protocol_errors: u64,
    /// Commands sent ahead of a reply though PIPELINING was not offered.
    pub pipelined_unasked: u64,
    /// Plaintext bytes thrown away behind STARTTLS (RFC 3207 section 6).
    pub plaintext_discarded: u64,
    /// TLS 1.2 handshakes completed.
    pub tls12: u64,
    /// TLS 1.3 handshakes completed.
    pub tls13: u64,
    /// TLS handshakes failed.
    pub tls_failed: u64,
    /// Most connections open at once.
    pub max_connections: u64,
    /// Most messages delivered on one connection.
    pub max_messages_on_connection: u64,
    /// Most recipients in one transaction.
    pub max_recipients_in_transaction: u64,
}

impl Counts {
    /// Adds another pair's counters: sums, and maxima of maxima.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.connections_refused += other.connections_refused;
        self.transactions += other.transactions;
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.refused_4xx += other.refused_4xx;
        self.refused_5xx += other.refused_5xx;
        self.in_doubt += other.in_doubt;
        self.faults += other.faults;
        self.protocol_errors += other.protocol_errors;
        self.pipelined_unasked += other.pipelined_unasked;
        self.plaintext_discarded += other.plaintext_discarded;
        self.tls12 += other.tls12;
        self.tls13 += other.tls13;
        self.tls_failed += other.tls_failed;
        self.max_connections = self.max_connections.max(other.max_connections);
        self.max_messages_on_connection = self.max_messages_on_connection.max(other.max_messages_on_connection);
        self.max_recipients_in_transaction =
            self.max_recipients_in_transaction.max(other.max_recipients_in_transaction);
    }
}

/// All pairs met so far; one per reactor thread.
#[derive(Debug, Default)]
pub(super) struct Cells {
    index: HashMap<(usize, IpAddr), usize>,
    cells: Vec<((usize, IpAddr), Counts)>,
}

impl Cells {
    /// The place of a pair, to be kept by the connection that counts there.
    pub(super) fn place(&mut self, model: usize, ip: IpAddr) -> usize {
        *self.index.entry((model, ip)).or_insert_with(|| {
            self.cells.push(((model, ip), Counts::default()));
            self.cells.len() - 1
        })
    }

    pub(super) fn at(&mut self, place: usize) -> &mut Counts {
        &mut self.cells[place].1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, IpAddr, &Counts)> {
        self.cells.iter().map(|((model, ip), counts)| (*model, *ip, counts))
    }
}

/// What a sink has seen so far, or in all once it has stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkReport {
    /// Everything together.
    pub total: Counts,
    /// By receiver model.
    pub models: BTreeMap<String, Counts>,
    /// By source IP.
    pub sources: BTreeMap<IpAddr, Counts>,
    /// By receiver model, then by source IP.
    pub pairs: BTreeMap<String, BTreeMap<IpAddr, Counts>>,
    /// Different pairs of message and recipient in the ledger.
    pub copies: u64,
    /// From the time stamped by the load generator (`X-Load-Time`) to delivery.
    pub end_to_end: Summary,
    /// Messages beyond the bounds of [`super::Store::Full`]: counted, not kept.
    pub not_kept: u64,
    /// Signatures checked, where the sink checks them.
    pub dkim: Option<DkimCounts>,
}

impl SinkReport {
    pub(super) fn add(&mut self, table: &Table, cells: &Cells) {
        for (model, ip, counts) in cells.iter() {
            let name = &table.models[model].name;
            self.total.add(counts);
            self.models.entry(name.clone()).or_default().add(counts);
            self.sources.entry(ip).or_default().add(counts);
            self.pairs.entry(name.clone()).or_default().entry(ip).or_default().add(counts);
        }
    }
}
