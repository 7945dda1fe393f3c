//! A year of one IP under the standard plan.

use mailrail_queue::{
    time::{Mono, Wall},
    warmup::{
        day::DayStart,
        ledger::{Ledger, Status, Wait},
        plan::Plan,
    },
};
use std::collections::BTreeMap;

const DAY: u64 = 86_400_000;

fn send_all(ledger: &mut Ledger, now: Mono, wall: Wall, sent: &mut u32) {
    loop {
        match ledger.charge(now, wall, 1, None) {
            Ok(charge) => {
                let _ = charge.spend();
                *sent += 1;
            }
            Err(Wait::Note) => {
                let note = ledger.note().unwrap();
                ledger.confirm(&note);
            }
            Err(_) => return,
        }
    }
}

/// Sends all that it can every minute of a year.
pub(crate) fn a_year() {
    let ip = [192, 0, 2, 1].into();
    let at = |minute: u64| (Mono(1 + minute * 60_000_000_000), Wall(19_700 * DAY + minute * 60_000));
    let (now, wall) = at(0);
    let mut ledger = Ledger::lease(ip, Plan::standard(), false, DayStart::default(), now, wall);
    let mut sent: BTreeMap<u64, u32> = BTreeMap::new();
    for minute in 0..365 * 1440 {
        let (now, wall) = at(minute);
        let warming = minute < 45 * 1440;
        if warming {
            let sent = sent.entry(minute / 1440).or_default();
            send_all(&mut ledger, now, wall, sent);
        }
        let status = ledger.standing(now, wall).status;
        assert_eq!(status, if warming { Status::InProgress } else { Status::Done }, "minute {minute}");
    }
    let plan = Plan::standard();
    assert_eq!(sent.into_values().collect::<Vec<_>>(), plan.caps(), "each day's cap is used, and none exceeded");
    assert_eq!(plan.caps().last(), Some(&50_000));
}
