use super::*;
use crate::retry::chance;
use std::collections::BTreeMap;

const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;
/// Midnight.
const START: u64 = 20_000 * DAY;

fn ms(milliseconds: u64) -> Mono {
    Mono(milliseconds * 1_000_000)
}

fn leased(plan: Plan) -> Ledger {
    Ledger::lease(IP, plan, false, DayStart::default(), ms(0), Wall(START))
}

/// Makes what is wanted durable.
fn save(ledger: &mut Ledger) -> Note {
    let note = ledger.note().expect("something to write");
    ledger.confirm(&note);
    note
}

/// Charges, making blocks durable as they are wanted.
fn charge(ledger: &mut Ledger, at: u64, recipients: u32) -> Result<Charge, Wait> {
    for _ in 0..3 {
        match ledger.charge(ms(at), Wall(START + at), recipients, None) {
            Err(Wait::Note) => drop(save(ledger)),
            other => return other,
        }
    }
    panic!("a durable block opens the way");
}

fn send(ledger: &mut Ledger, at: u64, recipients: u32) -> Paid {
    charge(ledger, at, recipients).expect("there is allowance").spend()
}

#[test]
fn nothing_is_charged_before_its_block_is_durable() {
    let mut ledger = leased(Plan::table(&[1000]).unwrap());
    assert_eq!(ledger.charge(ms(0), Wall(START), 3, None), Err(Wait::Note));
    let note = ledger.note().unwrap();
    assert_eq!((note.reserved, note.cap, note.plan_day), (10, Some(1000), Some(1)));
    assert_eq!(ledger.charge(ms(0), Wall(START), 3, None), Err(Wait::Note), "written is not durable");
    ledger.confirm(&note);
    for _ in 0..3 {
        assert_eq!(ledger.charge(ms(0), Wall(START), 3, None).unwrap().recipients(), 3);
    }
    assert_eq!(ledger.note(), None);
    assert_eq!(ledger.charge(ms(0), Wall(START), 3, None), Err(Wait::Note));
    assert_eq!(ledger.note().unwrap().reserved, 20);
}

#[test]
fn a_crash_forfeits_what_is_left_of_the_block() {
    let plan = Plan::table(&[1000]).unwrap();
    let mut ledger = leased(plan.clone());
    send(&mut ledger, 0, 1);
    let note = Note { reserved: 10, ..save_again(&ledger) };
    drop(ledger);
    let mut ledger = Ledger::restore(IP, plan, note, DayStart::default(), ms(0), Wall(START));
    let standing = ledger.standing(ms(0), Wall(START));
    assert_eq!((standing.sent, standing.tokens), (10, 0));
}

/// The note that is durable.
fn save_again(ledger: &Ledger) -> Note {
    let Ledger { day, plan_day, cap, reserved, set, held, .. } = *ledger;
    Note { day, plan_day, cap, reserved, set, held, rung: None }
}

#[test]
fn a_refund_needs_its_own_ip_and_day() {
    let mut ledger = leased(Plan::table(&[20, 20]).unwrap());
    let first = charge(&mut ledger, 0, 5).unwrap();
    let mut other = Ledger::lease(OTHER, Plan::standard(), false, DayStart::default(), ms(0), Wall(START));
    let foreign = charge(&mut other, 0, 5).unwrap();
    ledger.refund(foreign, NeverSeen::nothing_written());
    assert_eq!(ledger.standing(ms(0), Wall(START)).sent, 5);
    ledger.refund(first, NeverSeen::nothing_written());
    assert_eq!(ledger.standing(ms(0), Wall(START)).sent, 0);
    assert_eq!(ledger.allowance(ms(0), Wall(START)), 10);
    let late = charge(&mut ledger, 0, 5).unwrap();
    send(&mut ledger, DAY, 2);
    ledger.refund(late, NeverSeen::nothing_written());
    assert_eq!(ledger.standing(ms(DAY), Wall(START + DAY)).sent, 2);
}

#[test]
fn a_retry_on_the_same_day_and_ip_is_not_charged_again() {
    let mut ledger = leased(Plan::table(&[20, 20]).unwrap());
    let paid = Some(send(&mut ledger, 0, 5));
    assert_eq!(ledger.charge(ms(MINUTE), Wall(START + MINUTE), 5, paid).unwrap().recipients(), 0);
    assert_eq!(ledger.charge(ms(DAY), Wall(START + DAY), 5, paid), Err(Wait::Note), "another day");
    let mut other = Ledger::lease(OTHER, Plan::standard(), false, DayStart::default(), ms(0), Wall(START));
    assert_eq!(other.charge(ms(0), Wall(START), 5, paid), Err(Wait::Note), "another IP");
}

#[test]
fn what_there_is_to_wait_for_is_told() {
    let mut ledger = leased(Plan::table(&[20, 40]).unwrap());
    assert_eq!(charge(&mut ledger, 0, 21), Err(Wait::TooMany(20)));
    send(&mut ledger, 0, 10);
    let Err(Wait::Until(at)) = charge(&mut ledger, 0, 1) else { panic!("the burst is spent") };
    // Ten more in six hours.
    assert_eq!(at, ms(36 * MINUTE));
    send(&mut ledger, 7 * 60 * MINUTE, 10);
    assert_eq!(charge(&mut ledger, 7 * 60 * MINUTE, 1), Err(Wait::NextDay(Wall(START + DAY))));
    send(&mut ledger, DAY, 1);
}

#[test]
fn a_message_of_more_than_a_burst_goes_when_the_burst_is_there() {
    let mut ledger = leased(Plan::table(&[50]).unwrap());
    send(&mut ledger, 0, 40);
    assert_eq!(ledger.allowance(ms(0), Wall(START)), 0);
    assert!(matches!(charge(&mut ledger, 60 * MINUTE, 1), Err(Wait::Until(_))), "and the debt is paid first");
}

#[test]
fn a_clock_that_goes_back_freezes_the_day_and_one_that_leaps_is_believed_for_its_days() {
    let mut ledger = leased(Plan::table(&[10, 20, 30, 40, 50, 60]).unwrap());
    let turn = ledger.advance(ms(MINUTE), Wall(START + 3 * DAY)).unwrap();
    assert_eq!(turn, Turn { from: Day(20_000), to: Day(20_003), leapt: true, done: false });
    assert_eq!(ledger.standing(ms(MINUTE), Wall(START + 3 * DAY)).cap, Some(40));
    // Back where it belongs: the fourth day goes on until its time has passed.
    assert_eq!(ledger.advance(ms(2 * MINUTE), Wall(START + 2 * MINUTE)), None);
    let standing = ledger.standing(ms(2 * DAY), Wall(START + 2 * DAY));
    assert_eq!((standing.cap, standing.plan_day), (Some(40), Some(4)));
    let turn = ledger.advance(ms(4 * DAY), Wall(START + 4 * DAY)).unwrap();
    assert_eq!((turn.leapt, ledger.standing(ms(4 * DAY), Wall(START + 4 * DAY)).cap), (false, Some(50)));
}

#[test]
fn a_percentage_set_takes_effect_at_once_and_what_was_sent_counts() {
    let mut ledger = leased(Plan::standard());
    let p = |number: i64| Percentage::try_from(number).unwrap();
    send(&mut ledger, 0, 45);
    ledger.set_percentage(ms(0), Wall(START), p(50));
    let standing = ledger.standing(ms(0), Wall(START));
    assert_eq!(
        (standing.percentage, standing.plan_day, standing.cap, standing.sent),
        (p(50), Some(24), Some(1800), 45)
    );
    ledger.set_percentage(ms(0), Wall(START), p(0));
    let standing = ledger.standing(ms(0), Wall(START));
    assert_eq!((standing.percentage, standing.plan_day, standing.cap), (p(0), Some(1), Some(50)));
    assert_eq!(charge(&mut ledger, 9 * 60 * MINUTE, 6), Err(Wait::NextDay(Wall(START + DAY))));
    ledger.set_percentage(ms(0), Wall(START), p(100));
    send(&mut ledger, 10 * 60 * MINUTE, 60_000);
    let standing = ledger.standing(ms(0), Wall(START));
    assert_eq!((standing.status, standing.percentage, standing.cap), (Status::Done, p(100), None));
    // Back in the plan on the same day: all of it counts.
    ledger.set_percentage(ms(0), Wall(START), p(99));
    assert_eq!(charge(&mut ledger, 11 * 60 * MINUTE, 1), Err(Wait::NextDay(Wall(START + DAY))));
}

#[test]
fn a_percentage_set_stays_what_is_read_until_the_plan_is_past_it() {
    let mut ledger = leased(Plan::standard());
    let mut read = |day: u64| ledger.standing(ms(day * DAY), Wall(START + day * DAY)).percentage.get();
    assert_eq!((read(0), read(1), read(22)), (0, 2, 48));
    ledger.set_percentage(ms(22 * DAY), Wall(START + 22 * DAY), Percentage::try_from(99).unwrap());
    let mut read = |day: u64| ledger.standing(ms(day * DAY), Wall(START + day * DAY)).percentage.get();
    assert_eq!((read(22), read(23)), (99, 100));
}

#[test]
fn held_days_do_not_count_and_a_new_plan_waits_for_the_next_day() {
    let mut ledger = leased(Plan::table(&[10, 20, 30]).unwrap());
    let cap = |ledger: &mut Ledger, day: u64| ledger.standing(ms(day * DAY), Wall(START + day * DAY)).cap;
    assert_eq!(cap(&mut ledger, 1), Some(20));
    ledger.hold(ms(DAY), Wall(START + DAY));
    assert_eq!((cap(&mut ledger, 2), cap(&mut ledger, 5)), (Some(20), Some(20)));
    assert_eq!(ledger.standing(ms(5 * DAY), Wall(START + 5 * DAY)).done_on, None);
    ledger.release(ms(5 * DAY), Wall(START + 5 * DAY));
    assert_eq!(cap(&mut ledger, 5), Some(20));
    ledger.set_plan(Plan::table(&[1, 2, 3, 4]).unwrap());
    assert_eq!(
        (cap(&mut ledger, 5), cap(&mut ledger, 6), cap(&mut ledger, 7), cap(&mut ledger, 8)),
        (Some(20), Some(3), Some(4), None)
    );
}

#[test]
fn a_note_that_is_durable_only_after_its_day_opens_nothing() {
    let mut ledger = leased(Plan::table(&[1000, 1000]).unwrap());
    assert_eq!(ledger.charge(ms(0), Wall(START), 3, None), Err(Wait::Note));
    let late = ledger.note().unwrap();
    ledger.advance(ms(DAY), Wall(START + DAY));
    ledger.confirm(&late);
    assert_eq!(ledger.charge(ms(DAY), Wall(START + DAY), 3, None), Err(Wait::Note));
}

#[test]
fn a_plan_that_changed_before_a_restart_waits_for_the_next_day_too() {
    let mut ledger = leased(Plan::table(&[20, 20]).unwrap());
    send(&mut ledger, 0, 1);
    let larger = Plan::table(&[500, 600]).unwrap();
    let mut ledger = Ledger::restore(IP, larger, ledger.close(), DayStart::default(), ms(0), Wall(START));
    assert_eq!(ledger.standing(ms(0), Wall(START)).cap, Some(20));
    assert_eq!(ledger.standing(ms(DAY), Wall(START + DAY)).cap, Some(600));
}

#[test]
fn an_ip_leased_while_warm_up_is_off_is_done() {
    let mut ledger = Ledger::lease(IP, Plan::standard(), true, DayStart::default(), ms(0), Wall(START));
    assert_eq!(ledger.standing(ms(0), Wall(START)).percentage, Percentage::DONE);
    send(&mut ledger, 0, 1_000_000);
}

#[test]
fn a_year_of_the_standard_plan_uses_all_of_it_and_no_more_and_spreads_each_day() {
    let mut ledger = leased(Plan::standard());
    let (mut total, mut clock) = (0_u64, 0_u64);
    for day in 0..365_u64 {
        clock = clock.max(day * DAY);
        let begun = clock;
        let standing = ledger.standing(ms(clock), Wall(START + clock));
        let Some(cap) = standing.cap else {
            assert!(day >= 45 && standing.status == Status::Done);
            continue;
        };
        assert_eq!(standing.done_on, Some(Day(20_045)));
        assert!(day < 45);
        let mut sent = 0;
        loop {
            match charge(&mut ledger, clock, 1) {
                Ok(charge) => {
                    sent += charge.recipients();
                    charge.spend();
                }
                Err(Wait::Until(at)) => clock = at.0.div_ceil(1_000_000),
                Err(Wait::NextDay(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, cap, "day {}", day + 1);
        assert!(clock - begun >= SPREAD.as_millis() as u64 && clock < (day + 1) * DAY);
        total += u64::from(sent);
    }
    assert_eq!(total, 337_929);
}

/// An IP, the disk its notes go to, and the peers that count.
struct World {
    random: u64,
    ledger: Ledger,
    plan: Plan,
    starts: DayStart,
    durable: Note,
    mono: u64,
    wall: u64,
    /// Recipients that peers have seen, and the highest cap in force, by day of the ledger.
    seen: BTreeMap<Day, u64>,
    caps: BTreeMap<Day, u64>,
    operated_on: Day,
}

impl World {
    fn new(seed: u64) -> Self {
        let ledger = leased(Plan::standard());
        let durable = ledger.note().unwrap();
        let (seen, caps) = (BTreeMap::new(), BTreeMap::new());
        Self {
            random: seed,
            ledger,
            plan: Plan::standard(),
            starts: DayStart::default(),
            durable,
            mono: 0,
            wall: START,
            seen,
            caps,
            operated_on: Day(0),
        }
    }

    fn draw(&mut self, n: u64) -> u64 {
        chance(&mut self.random) % n
    }

    fn times(&self) -> (Mono, Wall) {
        (ms(self.mono), Wall(self.wall))
    }

    fn pass(&mut self, milliseconds: u64) {
        self.mono += milliseconds;
        self.wall += milliseconds;
    }

    fn send(&mut self) {
        let count = 1 + self.draw(60) as u32;
        let (now, wall) = self.times();
        match self.ledger.charge(now, wall, count, None) {
            Ok(charge) if self.draw(5) == 0 => self.ledger.refund(charge, NeverSeen::nothing_written()),
            Ok(charge) => {
                let recipients = u64::from(charge.recipients());
                *self.seen.entry(charge.spend().day).or_default() += recipients;
            }
            Err(Wait::Note) => self.write(),
            Err(Wait::Until(at)) => self.pass((at.0 / 1_000_000).saturating_sub(self.mono) + 1),
            Err(Wait::NextDay(at)) => {
                let some = self.draw(DAY) + 1;
                self.pass(at.0.saturating_sub(self.wall).min(some));
            }
            Err(Wait::TooMany(most)) => assert!(count > most),
        }
    }

    /// A crash may come before or after the note is durable, and before it is confirmed.
    fn write(&mut self) {
        let Some(note) = self.ledger.note() else { return };
        match self.draw(20) {
            0 => return self.crash(),
            1 => {
                self.durable = note;
                return self.crash();
            }
            _ => self.durable = note,
        }
        self.ledger.confirm(&note);
    }

    fn crash(&mut self) {
        // The new process has a monotonic clock of its own.
        self.mono = self.draw(1000);
        let (now, wall) = self.times();
        let (day, before) = (self.ledger.day, self.ledger.standing(now, wall));
        self.ledger = Ledger::restore(IP, self.plan.clone(), self.durable, self.starts, now, wall);
        let after = self.ledger.standing(now, wall);
        if let Some(cap) = after.cap.filter(|_| self.ledger.day == day && day != self.operated_on) {
            // A block, and what one message of up to 60 had reserved beyond it or had given back.
            assert!(after.sent <= before.sent + (cap / BLOCKS).max(1) + 120, "{before:?}, {after:?}");
        }
    }

    fn operate(&mut self) {
        let (now, wall) = self.times();
        self.operated_on = self.ledger.day;
        match self.draw(7) {
            0 => self.ledger.hold(now, wall),
            1 | 2 => self.ledger.release(now, wall),
            3 => {
                let percentage = Percentage::try_from(self.draw(101) as i64).unwrap();
                self.ledger.set_percentage(now, wall, percentage);
            }
            4 => {
                self.plan = Plan::growth(1 + self.draw(100) as u32, 1100 + self.draw(900) as u32, 20_000).unwrap();
                self.ledger.set_plan(self.plan.clone());
            }
            5 => {
                self.starts = format!("{:02}:{:02}+00:00", self.draw(24), self.draw(60)).parse().unwrap();
                self.ledger.set_starts(self.starts);
            }
            _ => {
                // The lease moves to another shard: its note is durable there before anything is sent from there.
                let whole = std::mem::replace(&mut self.ledger, leased(self.plan.clone()));
                self.durable = whole.close();
                self.ledger = Ledger::restore(IP, self.plan.clone(), self.durable, self.starts, now, wall);
            }
        }
        self.note_cap();
        self.write();
    }

    fn note_cap(&mut self) {
        let (now, wall) = self.times();
        let standing = self.ledger.standing(now, wall);
        let cap = standing.cap.map_or(u64::MAX, u64::from);
        let day = self.ledger.day;
        let highest = self.caps.entry(day).or_default();
        *highest = (*highest).max(cap);
        let seen = self.seen.get(&day).copied().unwrap_or(0);
        assert!(
            u64::from(standing.sent) >= seen,
            "day {day:?}: peers saw {seen}, the ledger knows of {}",
            standing.sent
        );
    }

    fn step(&mut self) {
        match self.draw(200) {
            0 => self.crash(),
            1 => self.operate(),
            2 => self.wall = self.wall.saturating_sub(self.draw(3 * DAY)),
            3 => self.wall += self.draw(2 * DAY),
            4..20 => {
                let wait = self.draw(6 * 60 * MINUTE);
                self.pass(wait);
            }
            20..30 => self.write(),
            _ => self.send(),
        }
        self.note_cap();
    }
}

#[test]
fn no_day_exceeds_its_cap_whatever_happens_in_a_year() {
    for seed in 1..=60 {
        let mut world = World::new(seed);
        let mut steps = 0;
        while world.wall < START + 365 * DAY && steps < 30_000 {
            world.step();
            steps += 1;
        }
        for (day, seen) in &world.seen {
            assert!(*seen <= world.caps[day], "seed {seed}, {day:?}: {seen} of {}", world.caps[day]);
        }
        assert!(world.seen.values().sum::<u64>() > 1000, "seed {seed} sends mail");
    }
}

#[test]
fn a_day_that_begins_at_another_time_is_never_cut_short() {
    for (starts, long) in [("06:00+00:00", 30 * 60), ("18:00-00:00", 42 * 60), ("00:00+00:00", 24 * 60)] {
        let mut ledger = leased(Plan::table(&[10, 20, 30]).unwrap());
        ledger.set_spread(ms(0), Duration::from_secs(1));
        let noon = 720 * MINUTE;
        ledger.advance(ms(noon), Wall(START + noon));
        ledger.set_starts(starts.parse().unwrap());
        // At the old midnight the second day begins, and lasts until the new time of the day after.
        let at = |ledger: &mut Ledger, minute: u64| {
            ledger.advance(ms(minute * MINUTE), Wall(START + minute * MINUTE));
            ledger.standing(ms(minute * MINUTE), Wall(START + minute * MINUTE)).plan_day
        };
        assert_eq!(at(&mut ledger, 1439), Some(1), "{starts}");
        assert_eq!(at(&mut ledger, 1440), Some(2), "{starts}");
        assert_eq!(at(&mut ledger, 1440 + long - 1), Some(2), "{starts}");
        assert_eq!(at(&mut ledger, 1440 + long), Some(3), "{starts}");
    }
}
