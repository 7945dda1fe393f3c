//! Campaigns: one large, and small ones of all kinds, from a seed.

use mailrail_queue::{
    policy::{Account, Lease, LeaseIndex, Overflow, Policy, Pool, PoolKind, Warmup},
    retry::RetrySchedule,
    shape::{entry::Entry, table::Table},
    sim::{
        campaign::{Campaign, Stream, Volume},
        receiver::{Model, Reply},
        world::BEGIN,
    },
    warmup::{day::DayStart, plan::Plan},
};
use std::{net::IpAddr, sync::Arc, time::Duration};

pub(crate) fn model(name: &str, provider: Option<&str>) -> Model {
    let reply = |text: &str| Reply::parse(text).unwrap();
    Model {
        name: name.into(),
        provider: provider.map(Into::into),
        volume: vec![(0.0, 100.0), (20.0, 2_000.0), (50.0, 50_000.0), (90.0, 1_000_000.0)],
        first_day: 300.0,
        growth: 2.0,
        start: 10.0,
        known: 85.0,
        rise: 3.0,
        ramp: 10.0,
        bounces: 5.0,
        bounces_over: 0.05,
        idle: 1.0,
        lenient: 0.1,
        block_at: 1.5,
        block: 0.02,
        block_for: Duration::from_secs(12 * 3600),
        defers: 0.003,
        slow: vec![
            reply("421 4.7.28 Our system has detected an unusual rate of mail"),
            reply("451 4.7.650 The mail server has been temporarily rate limited due to IP reputation"),
        ],
        blocked: vec![reply("550 5.7.1 Client host [192.0.2.1] blocked using our block list")],
        busy: reply("451 4.3.2 try again later"),
    }
}

fn policy(pools: Vec<Pool>, mut leases: Vec<Lease>) -> Policy {
    leases.sort_by_key(|lease| lease.address);
    let mut policy = Policy { version: 1, pools, leases, accounts: vec![Account::built_in()], ..Policy::default() };
    for (n, lease) in policy.leases.iter().enumerate() {
        policy.pools[lease.pool as usize].leases.push(LeaseIndex(n as u32));
    }
    policy
}

fn lease(n: u32, pool: u32, warmup: Option<Warmup>) -> Lease {
    let address = IpAddr::from((0x0a00_0001 + n).to_be_bytes());
    Lease { address, helo: "out.test".into(), pool, shard: 0, warmup: warmup.map(Arc::new), draining: false }
}

fn warmup(plan: Plan, warm: bool) -> Warmup {
    Warmup {
        leasing: 1,
        leased: BEGIN,
        warm,
        plan,
        spread: Duration::from_secs(6 * 3600),
        starts: DayStart::default(),
        set: None,
        held: false,
    }
}

/// One stream to four receivers, by IPs of an own pool and eight shared ones.
pub(crate) fn large(days: u32, volume: u64, ips: u32) -> Campaign {
    let own = Pool { name: "own".into(), kind: PoolKind::Dedicated, ..Pool::default() };
    let shared = Pool { name: "ses-shared-pool".into(), ..Pool::default() };
    let new = (0..ips).map(|n| lease(n, 0, Some(warmup(Plan::standard(), false))));
    let leases = new.chain((0..8).map(|n| lease(10_000 + n, 1, None))).collect();
    let mut policy = policy(vec![own, shared], leases);
    policy.default_pool = Some(0);
    policy.providers = Arc::new(Table::with(&[]).unwrap());
    let names = [("gmail", Some("gmail")), ("outlook", Some("outlook")), ("yahoo", Some("yahoo")), ("rest", None)];
    let stream = Stream {
        name: "all".into(),
        account: "default".into(),
        pool: None,
        to: vec![(0, 45), (1, 20), (2, 15), (3, 20)],
        volume: Volume::Constant(volume),
        hours: [1; 24],
        unknown: 0.01,
        days: (1, days),
    };
    Campaign {
        leased: vec![1; policy.leases.len()],
        policy,
        streams: vec![stream],
        receivers: names.map(|(name, provider)| model(name, provider)).to_vec(),
        days,
        max_age: Duration::from_secs(14 * 3600),
        retry: RetrySchedule::default(),
        connections: 20,
        message: Duration::from_millis(250),
        crowd: None,
        seed: 1,
    }
}

/// Small campaigns of all kinds.
pub(crate) struct Making(u64);

impl Making {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn plan(&mut self) -> Plan {
        match self.draw(4) {
            0 => Plan::standard(),
            1 => Plan::table(&[3, 5, 9, 200]).unwrap(),
            2 => Plan::growth(20, 1300, 5000).unwrap(),
            _ => Plan::table(&[1, 400, 400]).unwrap(),
        }
    }

    fn volume(&mut self) -> Volume {
        match self.draw(3) {
            0 => Volume::Constant(self.draw(1500)),
            1 => Volume::Table((0..5).map(|_| self.draw(2000)).collect()),
            _ => Volume::Growth { start: 1 + self.draw(100), factor: 1.0 + self.draw(15) as f64 / 10.0, target: 3000 },
        }
    }

    fn pools(&mut self) -> Vec<Pool> {
        let overflows = [
            Overflow::Auto,
            Overflow::Auto,
            Overflow::Pool,
            Overflow::Shared,
            Overflow::Dedicated,
            Overflow::Defer,
            Overflow::Reject,
        ];
        let kinds = [PoolKind::Dedicated, PoolKind::Dedicated, PoolKind::Managed];
        let mut pool = |name: &str| Pool {
            name: name.into(),
            kind: kinds[self.draw(3) as usize],
            overflow: overflows[self.draw(7) as usize],
            overflow_after: Duration::from_secs([0, 0, 600][self.draw(3) as usize]),
            ..Pool::default()
        };
        let mut pools = vec![pool("a"), pool("b")];
        pools.push(Pool { name: "ses-shared-pool".into(), ..Pool::default() });
        pools
    }

    fn stream(&mut self, n: u64, days: u32) -> Stream {
        let mut hours = [0; 24];
        hours.iter_mut().for_each(|hour| *hour = self.draw(4) as u32);
        hours[self.draw(24) as usize] += 1;
        Stream {
            name: format!("s{n}").into(),
            account: "default".into(),
            pool: Some(["a", "a", "b", "ses-shared-pool"][self.draw(4) as usize].into()),
            to: (0..3).map(|to| (to, 1 + self.draw(5))).collect(),
            volume: self.volume(),
            hours,
            unknown: self.draw(10) as f64 / 100.0,
            days: (1 + self.draw(2) as u32, days),
        }
    }

    fn receiver(&mut self, n: u64) -> Model {
        let providers = [Some("gmail"), Some("qq"), None];
        let model = model(&format!("r{n}"), providers[n as usize % 3]);
        let slow = vec![model.slow[self.draw(2) as usize].clone()];
        let blocks = ["550 5.7.1 Client host [x] blocked using y", "421 4.7.0 Our block list has you", "554 refused"];
        let blocked = vec![Reply::parse(blocks[self.draw(3) as usize]).unwrap()];
        Model {
            first_day: 1.0 + self.draw(300) as f64,
            growth: 1.0 + self.draw(20) as f64 / 10.0,
            lenient: self.draw(11) as f64 / 10.0,
            defers: self.draw(30) as f64 / 100.0,
            block: self.draw(10) as f64 / 20.0,
            slow,
            blocked,
            ..model
        }
    }

    pub(crate) fn campaign(&mut self) -> Campaign {
        let days = 2 + self.draw(6) as u32;
        let mut leases = Vec::new();
        for n in 0..2 + self.draw(4) as u32 {
            let (plan, warm) = (self.plan(), self.draw(6) == 0);
            leases.push(lease(n, n % 2, Some(warmup(plan, warm))));
        }
        if self.draw(3) > 0 {
            leases.push(lease(100, 2, None));
        }
        let mut policy = policy(self.pools(), leases);
        let qq = Entry { name: "qq".into(), rate: Some("6/min".into()), ..Entry::default() };
        policy.providers = Arc::new(Table::with(&[qq]).unwrap());
        policy.default_pool = Some(0);
        let leased = policy.leases.iter().map(|_| 1 + self.draw(4) as u32 / 3).collect();
        let mut streams: Vec<Stream> = (0..1 + self.draw(3)).map(|n| self.stream(n, days)).collect();
        let has_shared = !policy.pools[2].leases.is_empty();
        streams.iter_mut().filter(|_| !has_shared).for_each(|stream| stream.pool = Some("a".into()));
        Campaign {
            policy,
            leased,
            streams,
            receivers: (0..3).map(|n| self.receiver(n)).collect(),
            days,
            max_age: Duration::from_secs([3600, 14 * 3600, 72 * 3600][self.draw(3) as usize]),
            retry: RetrySchedule::default(),
            connections: 1 + self.draw(10) as u32,
            message: Duration::from_millis(10 + self.draw(900)),
            crowd: [None, None, Some(2), Some(17), Some(200)][self.draw(5) as usize],
            seed: self.draw(u64::MAX),
        }
    }
}
