//! What the server says still waits when patience has ended: keys for the books, sums by cause for whoever must find out why.

use super::books;
use crate::{
    cmd::queue,
    ui::table::{Left, Right, Table, figure, text},
};
use mailrail_engine::link::QueueRow;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) keys: HashSet<u64>,
    /// Most recipients first.
    pub(super) causes: Vec<Cause>,
}

/// Recipients that wait alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cause {
    pub(super) shard: u16,
    pub(super) ip: Option<IpAddr>,
    pub(super) pool: Option<String>,
    /// What the server says of it; empty: nothing.
    pub(super) reason: String,
    /// No time lets it go.
    pub(super) held: bool,
    pub(super) recipients: u64,
    pub(super) in_flight: u64,
    /// Most attempts that one of them has had.
    pub(super) attempts: u32,
    /// Soonest next try, milliseconds since 1970.
    pub(super) next_try: Option<u64>,
}

impl Waits {
    /// Of rows of single messages.
    pub(super) fn new(rows: &[QueueRow]) -> Self {
        let (mut keys, mut causes) = (HashSet::new(), BTreeMap::new());
        for row in rows {
            let id = row.message.as_deref().unwrap_or_default();
            keys.extend(row.recipients.iter().map(|recipient| books::key(id, recipient)));
            let cause = causes.entry((row.shard, row.ip, &row.pool, &row.reason, row.held)).or_insert_with(|| Cause {
                shard: row.shard,
                ip: row.ip,
                pool: row.pool.clone(),
                reason: row.reason.clone(),
                held: row.held,
                recipients: 0,
                in_flight: 0,
                attempts: 0,
                next_try: row.next_try,
            });
            cause.recipients += row.queued;
            cause.in_flight += row.in_flight;
            cause.attempts = cause.attempts.max(row.attempts);
            cause.next_try = cause.next_try.min(row.next_try);
        }
        let mut causes: Vec<_> = causes.into_values().collect();
        causes.sort_by_key(|cause: &Cause| std::cmp::Reverse(cause.recipients));
        Self { keys, causes }
    }
}

/// The causes, for people; `now` in milliseconds since 1970.
pub(super) fn table(causes: &[Cause], now: u64) -> Table {
    let mut table = Table::new(&[
        Left("STILL QUEUED"),
        Left("IP"),
        Left("POOL"),
        Right("RECIPIENTS"),
        Right("IN FLIGHT"),
        Right("ATTEMPTS"),
        Left("NEXT TRY"),
        Left("REASON"),
    ]);
    for cause in causes {
        table.row([
            text(format!("shard {}", cause.shard)),
            queue::lease(cause.ip),
            text(cause.pool.as_deref().unwrap_or("")),
            figure(cause.recipients),
            figure(cause.in_flight),
            figure(u64::from(cause.attempts)),
            queue::next_try(cause.next_try, cause.held, cause.in_flight, now),
            text(&cause.reason),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_waits_alike_is_one_cause_and_each_recipient_is_known_by_its_key() {
        let row = |message: &str, recipients: &[&str], reason: &str, next_try: Option<u64>| -> QueueRow {
            serde_json::from_value(json!({
                "shard": 0, "site": "mx.x.test", "ip": "127.0.10.11", "domains": ["x.test"], "message": message,
                "recipients": recipients, "queued": recipients.len(), "deferred": recipients.len(), "inFlight": 0,
                "connections": 0, "attempts": 1, "oldest": 1, "nextTry": next_try, "held": false, "reason": reason,
            }))
            .unwrap()
        };
        let rows = [
            row("m1", &["a@x.test"], "421 busy", Some(9)),
            row("m2", &["a@x.test", "b@x.test"], "no connection", Some(7)),
            row("m3", &["c@x.test"], "no connection", Some(5)),
        ];
        let waits = Waits::new(&rows);
        let of = |cause: &Cause| (cause.reason.clone(), cause.recipients, cause.next_try);
        let causes: Vec<_> = waits.causes.iter().map(of).collect();
        assert_eq!(causes, [("no connection".into(), 3, Some(5)), ("421 busy".into(), 1, Some(9))]);
        let keys = [("m1", "a"), ("m2", "a"), ("m2", "b"), ("m3", "c")];
        assert_eq!(waits.keys, keys.map(|(id, user)| books::key(id, &format!("{user}@x.test"))).into());
        assert!(table(&waits.causes, 1).to_string().contains("no connection"));
    }
}
