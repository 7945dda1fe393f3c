//! The end of a transaction: what is counted, recorded, tried again or given up.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::Record;
use super::super::client::{Fate, Transaction};
use super::{Retry, Worker};

impl Worker {
    /// Settles all transactions that have come to an end.
    pub(super) fn settle_done(&mut self, now: Instant) {
        while let Some(transaction) = self.done.pop() {
            self.in_flight -= 1;
            self.settle(transaction, now);
        }
    }

    fn settle(&mut self, mut transaction: Transaction, now: Instant) {
        self.id.clear();
        self.shared.recipe.id(transaction.number, &mut self.id);
        let may_retry = transaction.attempt < self.shared.attempts_max && !self.shared.stop.load(Ordering::Relaxed);
        let goes_again = |fate: Fate| may_retry && matches!(fate, Fate::Unsaid | Fate::Refused(400..500));
        let was_accepted = transaction.fates.contains(&Fate::Accepted);
        for (which, fate) in transaction.which.iter().zip(&transaction.fates) {
            let recipients = &mut self.tally.report.recipients;
            match fate {
                Fate::Accepted => {
                    recipients.accepted += 1;
                    self.shared.live.recipients_accepted.fetch_add(1, Ordering::Relaxed);
                    if self.shared.keeps_ledger {
                        let recipient = transaction.envelope.recipients[usize::from(*which)].as_bytes();
                        self.tally.ledger.add(&self.id, recipient, self.wall_us(now));
                    }
                }
                fate if goes_again(*fate) => {}
                Fate::Refused(code) => {
                    recipients.refused += 1;
                    *self.tally.report.refused_by_code.entry(*code).or_default() += 1;
                    self.shared.live.recipients_refused.fetch_add(1, Ordering::Relaxed);
                }
                Fate::InDoubt => recipients.in_doubt += 1,
                Fate::Unsaid | Fate::Named => recipients.abandoned += 1,
            }
        }
        if was_accepted {
            self.accepted(&transaction);
        }
        self.record(&transaction, goes_again);
        let again: Vec<u16> = transaction
            .which
            .iter()
            .zip(&transaction.fates)
            .filter(|(_, fate)| goes_again(**fate))
            .map(|(which, _)| *which)
            .collect();
        if !again.is_empty() {
            self.tally.report.retries += 1;
            self.shared.live.retries.fetch_add(1, Ordering::Relaxed);
            self.retries.push(Reverse(Retry {
                at: now + self.shared.retry_after,
                number: transaction.number,
                attempt: transaction.attempt + 1,
                which: again,
            }));
        }
        self.spare.push(std::mem::take(&mut transaction.envelope));
    }

    fn accepted(&mut self, transaction: &Transaction) {
        self.tally.report.accepted += 1;
        self.tally.report.bytes += transaction.envelope.size as u64;
        self.shared.live.accepted.fetch_add(1, Ordering::Relaxed);
        if let (Some(dot), Some(answered)) = (transaction.dot, transaction.answered) {
            self.tally.accept.record(answered.saturating_duration_since(dot));
            self.tally.transaction.record(answered.saturating_duration_since(transaction.due));
            self.tally.last_answer = self.tally.last_answer.max(Some(answered));
        }
    }

    /// Tells the recorder; recipients that go again are left to the transaction that settles them.
    fn record(&self, transaction: &Transaction, goes_again: impl Fn(Fate) -> bool) {
        let Some(record) = &self.shared.record else { return };
        let (mut accepted, mut refused, mut in_doubt) = (Vec::new(), Vec::new(), Vec::new());
        for (which, fate) in transaction.which.iter().zip(&transaction.fates) {
            let recipient = transaction.envelope.recipients[usize::from(*which)].as_str();
            match fate {
                Fate::Accepted => accepted.push(recipient),
                Fate::InDoubt => in_doubt.push(recipient),
                fate if goes_again(*fate) => {}
                Fate::Refused(code) => refused.push((recipient, *code)),
                Fate::Unsaid | Fate::Named => {}
            }
        }
        record(&Record {
            number: transaction.number,
            id: &String::from_utf8_lossy(&self.id),
            accepted: &accepted,
            refused: &refused,
            in_doubt: &in_doubt,
            reply: &String::from_utf8_lossy(&transaction.reply),
        });
    }

    /// Gives up what waits for another try.
    pub(super) fn abandon_rest(&mut self) {
        for Reverse(retry) in self.retries.drain() {
            self.tally.report.recipients.abandoned += retry.which.len() as u64;
        }
    }

    /// Microseconds since 1970.
    pub(super) fn wall_us(&self, now: Instant) -> u64 {
        self.wall.1 + u64::try_from(now.saturating_duration_since(self.wall.0).as_micros()).unwrap_or(u64::MAX)
    }
}
