//! Whatever is cut, torn, reordered or refused: a spool comes back as it was at some moment not before its last good sync.
//!
//! A seeded world does what a shard does (append, chunks, settle, defer, attempt, note, sync, compact, chores, events) on
//! [`SimDisk`], which loses power at any write, fails syncs and runs full. After each cut the recovered spool must equal the
//! model after exactly so many operations as survived: all that were durable, and of the later ones a prefix.
//! `MAILRAIL_SEEDS=10000` runs more of them, `MAILRAIL_SEED=n` one.

use mailrail_spool::{
    ChunkRef, Full, Limits, MessageKey, NewMessage, OutboxKind, Position, SettleKind, Spool,
    sim::{Dice, SimDisk},
};
use std::collections::{BTreeMap, BTreeSet};

type Id = u64;

/// From so many segments on, each much larger than a message, a full spool must find its way out without help.
const ALONE: u64 = 24;

/// An open message, as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    content: Vec<u8>,
    /// Of each recipient: settled, attempts, next try.
    states: Vec<(bool, u16, u64)>,
}

/// What a spool must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Truth {
    open: BTreeMap<Id, Message>,
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One operation that changes the truth.
#[derive(Clone, Debug)]
enum Change {
    Accept(Id, Message),
    Settle(Id, Vec<u16>),
    Defer(Id, Vec<u16>, u16, u64),
    Note(Vec<u8>, Vec<u8>),
}

impl Truth {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Accept(id, message) => {
                self.open.insert(*id, message.clone());
            }
            Change::Settle(id, recipients) => {
                let Some(message) = self.open.get_mut(id) else { return };
                recipients.iter().for_each(|n| message.states[usize::from(*n)].0 = true);
                if message.states.iter().all(|state| state.0) {
                    self.open.remove(id);
                }
            }
            Change::Defer(id, recipients, attempts, next) => {
                let Some(message) = self.open.get_mut(id) else { return };
                for n in recipients {
                    let state = &mut message.states[usize::from(*n)];
                    (state.1, state.2) = (*attempts, *next);
                }
            }
            Change::Note(name, value) => {
                self.notes.insert(name.clone(), value.clone());
            }
        }
    }
}

struct World {
    seed: u64,
    dice: Dice,
    disk: SimDisk,
    limits: Limits,
    /// The truth at the last good sync, and what was done since, each with its place in the log.
    durable: Truth,
    since: Vec<(Position, Change)>,
    now: Truth,
    keys: BTreeMap<Id, MessageKey>,
    next_id: Id,
    clock_ms: u64,
    /// Acceptances that are durable, and those that were told as events.
    answered: BTreeSet<Id>,
    told: BTreeSet<Id>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut limits = Limits::tiny();
        limits.segment_size = [8 << 10, 16 << 10, 32 << 10][dice.below(3)];
        limits.max_bytes = (limits.segment_size * (10 + dice.below(40))) as u64;
        limits.spares = 1 + dice.below(2);
        limits.reserve = limits.segment_size / 4;
        limits.census_from = dice.below(4) as u64;
        limits.compact_below_percent = [10, 25, 60][dice.below(3)];
        Self {
            seed,
            disk: SimDisk::new(dice.roll()),
            dice,
            limits,
            durable: Truth::default(),
            since: Vec::new(),
            now: Truth::default(),
            keys: BTreeMap::new(),
            next_id: 1,
            clock_ms: 0,
            answered: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// Opens the spool and compares it with every truth that a crash may have left.
    fn open(&mut self) -> Spool<SimDisk> {
        let seed = self.seed;
        self.disk.set_sync_failures(0);
        self.disk.set_fuse(None);
        let opened = Spool::open_sim(&self.disk, self.limits.clone());
        let (spool, recovery) = opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(recovery.lost, Vec::new(), "seed {seed}: a sound disk has no damage");
        let found = self.read(&spool);
        let mut truth = self.durable.clone();
        let mut survived = None;
        for count in 0..=self.since.len() {
            if count > 0 {
                truth.apply(&self.since[count - 1].1);
            }
            if truth == found {
                survived = Some(truth.clone());
                break;
            }
        }
        let Some(truth) = survived else {
            panic!("seed {seed}: recovered what never was; against what was durable:\n{}", difference(&found, self));
        };
        (self.durable, self.now) = (truth.clone(), truth);
        self.since.clear();
        spool
    }

    /// What the spool says it holds.
    fn read(&mut self, spool: &Spool<SimDisk>) -> Truth {
        let mut truth = Truth::default();
        self.keys.clear();
        spool.for_each_message(|key, view| {
            let id = u64::from_le_bytes(view.id.try_into().expect("ids are ours"));
            let content: Vec<u8> = view.pieces().flatten().copied().collect();
            assert_eq!(content.len() as u64, view.content_len, "seed {}: content of {id}", self.seed);
            let states =
                view.recipients.iter().map(|state| (state.settled, state.attempts, state.next_try_ms)).collect();
            assert_eq!(view.meta, meta(id), "seed {}", self.seed);
            self.keys.insert(id, key);
            assert!(truth.open.insert(id, Message { content, states }).is_none(), "seed {}: {id} twice", self.seed);
        });
        truth.notes = spool.notes(b"test/").map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        truth
    }

    fn note(&mut self, spool: &Spool<SimDisk>, change: Change) {
        self.now.apply(&change);
        self.since.push((spool.position(), change));
    }

    /// What is durable now was answered.
    fn advance(&mut self, spool: &Spool<SimDisk>) {
        let count = self.since.iter().take_while(|(position, _)| spool.proof(*position).is_some()).count();
        for (_, change) in self.since.drain(..count) {
            if let Change::Accept(id, _) = &change {
                self.answered.insert(*id);
            }
            self.durable.apply(&change);
        }
    }

    fn accept(&mut self, spool: &mut Spool<SimDisk>) {
        let id = self.next_id;
        let recipients = 1 + self.dice.below(4) as u16;
        let mut content = Vec::new();
        let mut chunks: Vec<ChunkRef> = Vec::new();
        for _ in 0..if self.dice.once_in(6) { self.dice.below(4) } else { 0 } {
            let piece = self.bytes(2000);
            match spool.append_chunk(&[&piece]) {
                Ok(chunk) => chunks.push(chunk),
                Err(_) => return spool.discard_chunks(&chunks),
            }
            content.extend(piece);
        }
        if self.dice.once_in(12) {
            return spool.discard_chunks(&chunks);
        }
        let (one, two) = (self.bytes(1200), self.bytes(300));
        let (name, meta) = (id.to_le_bytes(), meta(id));
        let new =
            NewMessage { id: &name, accepted_ms: id, meta: &meta, recipients, chunks: &chunks, parts: &[&one, &two] };
        match spool.append_message(&new) {
            Ok(appended) => {
                content.extend(one);
                content.extend(two);
                self.next_id += 1;
                self.keys.insert(id, appended.key);
                let states = vec![(false, 0, 0); usize::from(recipients)];
                self.now.apply(&Change::Accept(id, Message { content, states }));
                let message = self.now.open[&id].clone();
                self.since.push((appended.position, Change::Accept(id, message)));
            }
            Err(Full::Failed(_) | Full::NoSpace(_) | Full::TooLarge(_)) => spool.discard_chunks(&chunks),
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let (length, first) = (self.dice.below(most), self.dice.roll());
        // Some bytes look like records of a spool: a client may send anything.
        (0..length).map(|at| (first >> (at % 8 * 8)) as u8).collect()
    }

    /// Some open message, and some of its open recipients.
    fn some_recipients(&mut self) -> Option<(Id, Vec<u16>)> {
        let skip = self.dice.below(self.now.open.len().max(1));
        let (id, message) = self.now.open.iter().nth(skip)?;
        let open: Vec<u16> = (0..).zip(&message.states).filter(|(_, state)| !state.0).map(|(n, _)| n).collect();
        let id = *id;
        let some: Vec<u16> = open.iter().copied().filter(|_| !self.dice.once_in(3)).collect();
        Some((id, if some.is_empty() { open } else { some }))
    }

    /// As the engine does it: nothing is delivered whose outcome could not be recorded.
    fn may_record(&self, spool: &Spool<SimDisk>) -> bool {
        spool.failure().is_none() && spool.room_for_outcomes()
    }

    fn settle(&mut self, spool: &mut Spool<SimDisk>) {
        let Some((id, recipients)) = self.some_recipients().filter(|_| self.may_record(spool)) else { return };
        let settled = spool.settle(self.keys[&id], &recipients, SettleKind::Delivered, b"detail");
        assert!(settled.recorded, "seed {}: there was room", self.seed);
        self.note(spool, Change::Settle(id, recipients));
        assert_eq!(settled.wholly, !self.now.open.contains_key(&id));
    }

    fn defer(&mut self, spool: &mut Spool<SimDisk>) {
        let Some((id, recipients)) = self.some_recipients().filter(|_| self.may_record(spool)) else { return };
        let (attempts, next) = (1 + self.dice.below(9) as u16, self.dice.roll() >> 20);
        let recorded = spool.defer(self.keys[&id], &recipients, attempts, next, b"later");
        assert!(recorded, "seed {}: there was room", self.seed);
        self.note(spool, Change::Defer(id, recipients, attempts, next));
    }

    fn put_note(&mut self, spool: &mut Spool<SimDisk>) {
        let name = format!("test/{}", self.dice.below(5)).into_bytes();
        let value = self.bytes(100);
        if spool.note(&name, &value).is_ok() {
            self.note(spool, Change::Note(name, value));
        }
    }

    /// Reads events; some are acknowledged at once, some later, some are lost on the way and read again.
    fn events(&mut self, spool: &mut Spool<SimDisk>) {
        let mut told = Vec::new();
        let cursor = spool.read_outbox(1 + self.dice.below(4000), |record| {
            let id = u64::from_le_bytes(record.id.try_into().expect("ids are ours"));
            assert_eq!(record.meta, meta(id));
            if record.kind == OutboxKind::Accepted {
                told.push(id);
            }
        });
        for id in &told {
            assert!(*id < self.next_id, "seed {}: an event of a message that never was", self.seed);
        }
        let Some(cursor) = cursor else { return };
        if self.dice.once_in(8) {
            return spool.rewind_outbox();
        }
        // Kept by the log before it is acknowledged.
        self.told.extend(told);
        spool.acknowledge_outbox(cursor);
    }

    fn chore(&mut self, spool: &mut Spool<SimDisk>) {
        self.clock_ms += 20;
        if let Some(chore) = spool.chore(self.clock_ms) {
            spool.finish_chore(chore.run(), self.clock_ms);
        }
    }

    /// One group commit, with work going on between its start and its end.
    fn sync(&mut self, spool: &mut Spool<SimDisk>) {
        let Some(job) = spool.start_sync() else { return };
        for _ in 0..self.dice.below(4) {
            self.act(spool, 8);
        }
        let result = spool.sim_sync(&job);
        let _ = spool.finish_sync(job, result);
        self.advance(spool);
    }

    fn act(&mut self, spool: &mut Spool<SimDisk>, kinds: usize) {
        match self.dice.below(kinds) {
            0..2 => self.accept(spool),
            2 | 3 => self.settle(spool),
            4 => self.defer(spool),
            5 => self.put_note(spool),
            6 => self.events(spool),
            7 => spool.sim_write_back(),
            8 => self.chore(spool),
            9 => drop(spool.compact(1 + self.dice.below(8000))),
            _ => self.sync(spool),
        }
    }

    /// One life of the spool, up to its sudden end.
    fn live(&mut self) {
        let mut spool = self.open();
        if self.dice.once_in(3) {
            self.disk.set_sync_failures(5 + self.dice.below(100));
        }
        if self.dice.once_in(2) {
            self.disk.set_fuse(Some(self.dice.below(60)));
        }
        self.disk.set_space(if self.dice.once_in(3) { 4 + self.dice.below(10) } else { usize::MAX });
        let steps = 20 + self.dice.below(300);
        for _ in 0..steps {
            self.act(&mut spool, 13);
            if self.disk.is_dark() {
                break;
            }
        }
        let failed = spool.failure().is_some();
        drop(spool);
        // After a failed sync the process ends; the machine may go on.
        if self.disk.is_dark() || !failed || self.dice.once_in(2) {
            self.disk.power_cut();
        }
    }

    /// Everything is settled: the spool lets go of it, and of its space, and every acceptance was told.
    ///
    /// A spool of a few tiny segments, left with the copies of many interrupted compactions, may need its owner's help; a
    /// larger one must find its way out alone.
    fn drain(&mut self) {
        let mut spool = self.open();
        self.disk.set_space(usize::MAX);
        for round in 0..10_000 {
            if round == 3_000 {
                let (size, most) = (self.limits.segment_size as u64, self.limits.max_bytes);
                let small = size < 16 << 10 || most < ALONE * size;
                assert!(small, "seed {}: stuck in {most} bytes\n{}", self.seed, spool.sim_describe());
                drop(spool);
                self.limits.max_bytes *= 2;
                spool = self.open();
            }
            let (seed, left) = (self.seed, self.now.open.len());
            assert!(round < 9_999, "seed {seed}: {left} messages cannot be drained\n{}", spool.sim_describe());
            self.chore(&mut spool);
            self.settle(&mut spool);
            spool.compact(1 << 20);
            self.sync(&mut spool);
            self.events(&mut spool);
            if self.now.open.is_empty() && self.since.is_empty() && self.answered.is_subset(&self.told) {
                break;
            }
        }
        assert!(spool.is_empty());
        assert_eq!(spool.usage().recipients, 0);
        let never_told: Vec<_> = self.answered.difference(&self.told).collect();
        assert!(never_told.is_empty(), "seed {}: accepted and never told: {never_told:?}", self.seed);
    }
}

fn meta(id: Id) -> Vec<u8> {
    format!("envelope of {id}").into_bytes()
}

/// Where what was found differs from what was durable, and what was done since.
fn difference(found: &Truth, world: &World) -> String {
    let mut text = String::new();
    let ids: BTreeSet<_> = found.open.keys().chain(world.durable.open.keys()).collect();
    for id in ids {
        let (was, is) = (world.durable.open.get(id), found.open.get(id));
        if was != is {
            let states =
                |message: Option<&Message>| message.map(|message| (message.content.len(), message.states.clone()));
            text += &format!("  {id}: durable {:?}, found {:?}\n", states(was), states(is));
        }
    }
    for (name, value) in &world.durable.notes {
        if found.notes.get(name) != Some(value) {
            let length = found.notes.get(name).map(Vec::len);
            text += &format!("  {}: durable {} bytes, found {length:?}\n", String::from_utf8_lossy(name), value.len());
        }
    }
    text + &format!("  since: {:?}", world.since.iter().map(|(_, change)| short(change)).collect::<Vec<_>>())
}

fn short(change: &Change) -> String {
    match change {
        Change::Accept(id, message) => format!("accept {id} for {}", message.states.len()),
        Change::Settle(id, recipients) => format!("settle {id} {recipients:?}"),
        Change::Defer(id, recipients, attempts, _) => format!("defer {id} {recipients:?} {attempts}"),
        Change::Note(name, _) => format!("note {}", String::from_utf8_lossy(name)),
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..2 + world.dice.below(6) {
        world.live();
    }
    world.drain();
}

#[expect(clippy::disallowed_methods, reason = "how many seeds a run takes is for whoever starts it to say")]
#[test]
fn any_crash_point_recovers_exactly_the_synced_prefix() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("MAILRAIL_SEED") {
        return run(seed);
    }
    for seed in 0..number("MAILRAIL_SEEDS").unwrap_or(200) {
        run(seed);
    }
}
