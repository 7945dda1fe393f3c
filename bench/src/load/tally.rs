//! What a run counts: live, and in its report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::latency::{Latency, Summary};
use crate::ledger::Ledger;

/// Counters that a progress line reads while the run goes on.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) begun: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) recipients_accepted: AtomicU64,
    pub(super) recipients_refused: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Messages begun, each once however often it is tried.
    pub begun: u64,
    /// Transactions that ended in 250.
    pub accepted: u64,
    /// Recipients in them.
    pub recipients_accepted: u64,
    /// Recipients refused for good.
    pub recipients_refused: u64,
    /// Transactions tried again.
    pub retries: u64,
    /// Connections refused, lost or broken.
    pub errors: u64,
    /// Connections open now.
    pub connections: u64,
}

impl Live {
    pub(super) fn progress(&self, elapsed: Duration) -> Progress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            elapsed,
            begun: read(&self.begun),
            accepted: read(&self.accepted),
            recipients_accepted: read(&self.recipients_accepted),
            recipients_refused: read(&self.recipients_refused),
            retries: read(&self.retries),
            errors: read(&self.errors),
            connections: read(&self.connections),
        }
    }
}

/// Recipients by what became of them; the parts add up to `offered`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientCounts {
    /// In messages begun.
    pub offered: u64,
    /// 250 to the final dot.
    pub accepted: u64,
    /// Refused for good: 5xx, or 4xx at the last attempt.
    pub refused: u64,
    /// Connection lost between the final dot and its answer; not tried again, as that could make a second copy.
    pub in_doubt: u64,
    /// Never answered, at the last attempt or because the run was stopped.
    pub abandoned: u64,
}

/// What a run has come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The run's name, first part of every `X-Load-Id`.
    pub run: String,
    /// From start to the last answer.
    pub elapsed: Duration,
    /// Messages begun.
    pub messages: u64,
    /// Transactions that ended in 250; more than messages where some recipients came later.
    pub accepted: u64,
    /// Those a second.
    pub accepted_per_second: f64,
    /// Content bytes accepted.
    pub bytes: u64,
    /// Recipients by what became of them.
    pub recipients: RecipientCounts,
    /// Recipients refused for good, by the last reply code.
    pub refused_by_code: BTreeMap<u16, u64>,
    /// Transactions tried again.
    pub retries: u64,
    /// Connections opened.
    pub connections: u64,
    /// Connections refused, lost or broken, by reason.
    pub errors: BTreeMap<String, u64>,
    /// From the final dot to its 250.
    pub accept: Summary,
    /// From MAIL (closed loop) or the moment the message was due (open loop) to 250.
    pub transaction: Summary,
    /// From connect to the first MAIL possible: TCP, greeting, EHLO, TLS, AUTH.
    pub connect: Summary,
    /// How late messages were begun, for want of a free connection or of the generator's own time (open loop).
    pub lateness: Summary,
    /// CPU time of the generator's threads.
    pub cpu: Option<Duration>,
}

/// A report, and what it was made from.
#[derive(Debug, Clone, Default)]
pub struct LoadOutcome {
    /// The figures.
    pub report: LoadReport,
    /// From the final dot to its 250.
    pub accept: Latency,
    /// From MAIL or due moment to 250.
    pub transaction: Latency,
    /// Which recipients of which message were accepted, and when; empty unless asked for.
    pub ledger: Ledger,
}

/// What one thread has counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) report: LoadReport,
    pub(super) accept: Latency,
    pub(super) transaction: Latency,
    pub(super) connect: Latency,
    pub(super) lateness: Latency,
    pub(super) ledger: Ledger,
    pub(super) last_answer: Option<Instant>,
}

impl Tally {
    pub(super) fn merge(&mut self, other: Self) {
        let (mine, theirs) = (&mut self.report, other.report);
        mine.messages += theirs.messages;
        mine.accepted += theirs.accepted;
        mine.bytes += theirs.bytes;
        mine.recipients.offered += theirs.recipients.offered;
        mine.recipients.accepted += theirs.recipients.accepted;
        mine.recipients.refused += theirs.recipients.refused;
        mine.recipients.in_doubt += theirs.recipients.in_doubt;
        mine.recipients.abandoned += theirs.recipients.abandoned;
        mine.retries += theirs.retries;
        mine.connections += theirs.connections;
        mine.cpu = mine.cpu.zip(theirs.cpu).map(|(mine, theirs)| mine + theirs).or(mine.cpu).or(theirs.cpu);
        for (code, count) in theirs.refused_by_code {
            *mine.refused_by_code.entry(code).or_default() += count;
        }
        for (reason, count) in theirs.errors {
            *mine.errors.entry(reason).or_default() += count;
        }
        self.accept.merge(&other.accept);
        self.transaction.merge(&other.transaction);
        self.connect.merge(&other.connect);
        self.lateness.merge(&other.lateness);
        self.ledger.merge(&other.ledger);
        self.last_answer = self.last_answer.max(other.last_answer);
    }

    pub(super) fn outcome(mut self, run: &str, elapsed: Duration) -> LoadOutcome {
        let report = &mut self.report;
        report.run = run.to_owned();
        report.elapsed = elapsed;
        report.accepted_per_second = report.accepted as f64 / elapsed.as_secs_f64().max(1e-9);
        report.accept = self.accept.summary();
        report.transaction = self.transaction.summary();
        report.connect = self.connect.summary();
        report.lateness = self.lateness.summary();
        LoadOutcome { report: self.report, accept: self.accept, transaction: self.transaction, ledger: self.ledger }
    }
}
