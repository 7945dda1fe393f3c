//! Wherever the power goes, no leased IP names more recipients on a day than its plan says: the ledger of the queue, kept as
//! a note in a spool on a disk that loses, tears and reorders what was not synced.
//! `MAILRAIL_SEEDS=10000` runs more seeds than 200, `MAILRAIL_SEED=n` one.

use mailrail_queue::{
    time::{Mono, Wall},
    warmup::{
        day::DayStart,
        ledger::{Ledger, NeverSeen, Note, Wait},
        plan::Plan,
    },
};
use mailrail_spool::{
    Limits, Position, Spool,
    sim::{Dice, SimDisk},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const NAME: &[u8] = b"lease/192.0.2.1";
const DAY: u64 = 86_400_000;
/// Midnight.
const START: u64 = 20_000 * DAY;

struct World {
    seed: u64,
    dice: Dice,
    disk: SimDisk,
    plan: Plan,
    caps: [u32; 4],
    clock_ms: u64,
    /// Recipients that a receiver was told, by day of the plan: what no crash takes back.
    named: BTreeMap<u64, u64>,
    /// The last note of a good sync.
    durable: Option<Note>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut caps = [0; 4].map(|_| 1 + dice.below(60) as u32);
        // A plan does not fall.
        caps.sort_unstable();
        let plan = Plan::table(&caps).expect("caps of at least one");
        let disk = SimDisk::new(dice.roll());
        Self { seed, dice, disk, plan, caps, clock_ms: 0, named: BTreeMap::new(), durable: None }
    }

    fn time(&self) -> (Mono, Wall) {
        (Mono(self.clock_ms * 1_000_000), Wall(START + self.clock_ms))
    }

    /// The spool and the ledger after a start.
    fn open(&mut self) -> (Spool<SimDisk>, Ledger) {
        self.disk.set_fuse(None);
        self.disk.set_sync_failures(0);
        let opened = Spool::open_sim(&self.disk, Limits::tiny());
        let (spool, _) = opened.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let (now, wall) = self.time();
        let mut found = None;
        for (name, value) in spool.notes(b"lease/") {
            assert_eq!(name, NAME, "seed {}", self.seed);
            found = Some(postcard::from_bytes::<Note>(value).expect("what was written can be read"));
        }
        assert!(found.is_some() || self.durable.is_none(), "seed {}: the ledger is gone", self.seed);
        let plan = self.plan.clone();
        let mut ledger = match found {
            Some(note) => Ledger::restore(IP, plan, note, DayStart::default(), now, wall),
            None => Ledger::lease(IP, plan, false, DayStart::default(), now, wall),
        };
        ledger.set_spread(now, Duration::from_secs(1));
        (spool, ledger)
    }

    /// Writes the note down and, if all goes well, makes it durable: only then does the ledger hear of it.
    fn keep(&mut self, spool: &mut Spool<SimDisk>, ledger: &mut Ledger) {
        if let Some(chore) = spool.chore(self.clock_ms) {
            spool.finish_chore(chore.run(), self.clock_ms);
        }
        let Some(note) = ledger.note() else { return };
        let Ok(value) = postcard::to_extend(&note, Vec::new()) else { return };
        if spool.note(NAME, &value).is_err() {
            return;
        }
        let position: Position = spool.position();
        if self.dice.once_in(3) {
            spool.sim_write_back();
        }
        let Some(job) = spool.start_sync() else { return };
        let result = spool.sim_sync(&job);
        let _ = spool.finish_sync(job, result);
        if spool.proof(position).is_some() {
            ledger.confirm(&note);
            self.durable = Some(note);
        }
    }

    fn send(&mut self, spool: &mut Spool<SimDisk>, ledger: &mut Ledger) {
        let (now, wall) = self.time();
        ledger.advance(now, wall);
        let recipients = 1 + self.dice.below(4) as u32;
        match ledger.charge(now, wall, recipients, None) {
            Ok(charge) if self.dice.once_in(6) => ledger.refund(charge, NeverSeen::nothing_written()),
            Ok(charge) => {
                *self.named.entry(self.clock_ms / DAY).or_default() += u64::from(charge.recipients());
                let _paid = charge.spend();
            }
            Err(Wait::Note) => self.keep(spool, ledger),
            Err(Wait::Until(_) | Wait::NextDay(_) | Wait::TooMany(_)) => {}
        }
    }

    /// One life, up to its sudden end.
    fn live(&mut self) {
        let (mut spool, mut ledger) = self.open();
        if self.dice.once_in(3) {
            self.disk.set_sync_failures(2 + self.dice.below(20));
        }
        if self.dice.once_in(2) {
            self.disk.set_fuse(Some(self.dice.below(40)));
        }
        for _ in 0..self.dice.below(200) {
            self.clock_ms += self.dice.below(2_000) as u64;
            if self.dice.once_in(150) {
                self.clock_ms += DAY / 2;
            }
            self.send(&mut spool, &mut ledger);
            if self.dice.once_in(10) {
                self.keep(&mut spool, &mut ledger);
            }
            if self.disk.is_dark() || spool.failure().is_some() {
                break;
            }
        }
        drop(spool);
        self.disk.power_cut();
    }
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..3 + world.dice.below(8) {
        world.live();
    }
    for (day, named) in &world.named {
        // Behind the plan the IP is warm.
        let Some(cap) = world.caps.get(*day as usize) else { continue };
        assert!(*named <= u64::from(*cap), "seed {seed}: {named} recipients on day {day} of {cap}");
    }
    world.named.values().sum()
}

#[test]
fn no_power_cut_lets_an_ip_exceed_its_day() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("MAILRAIL_SEED") {
        run(seed);
        return;
    }
    let named: u64 = (0..number("MAILRAIL_SEEDS").unwrap_or(200)).map(run).sum();
    assert!(named > 1000, "so little was sent that it proves nothing: {named}");
}
