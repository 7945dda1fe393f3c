//! The leased IPs of torture: some warm up by small plans of their own, one climbs ladders in a managed pool, the rest are
//! shared and take what exceeds them.

use super::Args;
use crate::cmd::demo::world::{LEASES, World};
use mailrail_bench::load::Header;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

/// Small files, so that a long run can read them as they are complete.
pub(super) const EVENTS: &str = "\n[events]\nmax_file_size = \"16MiB\"\nkeep_files = 200\n";

/// Pools: what has no other goes by the first, whose IPs and those of the second warm up, and part of the mail by the third.
pub(super) const POOLS: [&str; 4] = ["cold", "spare", MANAGED, SHARED];
const MANAGED: &str = "managed";
const SHARED: &str = "ses-shared-pool";
/// Its only IP.
const CLIMBER: Ipv4Addr = Ipv4Addr::new(127, 0, 10, 21);
/// The one that stays in the second pool: mail that names a pool without an IP waits for one.
const SPARE: Ipv4Addr = Ipv4Addr::new(127, 0, 10, 14);
/// Providers: name, suffix of its hosts, what a ladder there begins with (in recipients for each second of the run), and
/// what else its entry says.
const PROVIDERS: [(&str, &str, u32, &str); 3] = [
    ("boxes", "box.test", 2, "rate = \"150/s\"\nconnections = 8\n"),
    (
        "busy",
        "mx.magpie.test",
        1,
        "connections = 4\nrecover = \"1s\"\n\
         [[provider.reply]]\ntext = [\"mailbox is busy\"]\nthen = \"fewer\"\n",
    ),
    (
        "moody",
        "mx.lark.test",
        1,
        "recover = \"200ms\"\n\
         [[provider.reply]]\ntext = [\"unusual rate\"]\nthen = \"suspend\"\nfor = \"500ms\"\n",
    ),
];
/// Recipients with which a ladder begins where nothing else is said.
const LADDER: u32 = 50;

/// A leased IP that warms up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cold {
    pub(super) address: Ipv4Addr,
    /// Most recipients of a day; the same every day.
    cap: u32,
}

/// What a leased IP has named to receivers on a day, against its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warming {
    pub(super) address: IpAddr,
    /// Days since 1970, UTC.
    pub(super) day: u64,
    /// Recipients that receivers were asked to take from it.
    pub(super) named: u64,
    pub(super) cap: u64,
}

impl Warming {
    pub(super) fn exceeds(&self) -> bool {
        self.named > self.cap
    }
}

/// Seconds that a run takes, more or less.
fn seconds(args: &Args) -> u32 {
    args.soak.map_or(args.kills().saturating_mul(2), |soak| u32::try_from(soak.as_secs()).unwrap_or(u32::MAX)).max(10)
}

/// Plans that are used up soon, so that every start is tempted, and one that lasts through many kills. Last the IP of the
/// managed pool, whose ladders are one plan to receivers.
pub(super) fn cold(args: &Args) -> [Cold; 5] {
    let most = 40 * seconds(args).min(100_000);
    let mut last = 10;
    let [a, b, c] = [60, 600, most].map(|cap| {
        last += 1;
        Cold { address: Ipv4Addr::new(127, 0, 10, last), cap }
    });
    let ladders: u32 = PROVIDERS.iter().map(|(_, _, share, _)| share * seconds(args)).sum();
    [a, b, c, Cold { address: SPARE, cap: 600 }, Cold { address: CLIMBER, cap: ladders + LADDER }]
}

/// The mail that names a pool of its own.
pub(super) fn headers() -> Vec<Header> {
    let share = |pool: &str, share| Header { name: "X-Mailrail-Pool".into(), value: pool.into(), share: Some(share) };
    vec![share(MANAGED, 15.0), share("spare", 5.0)]
}

/// The fleet file, but for the shards of its leased IPs.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    /// Tables of the leased IPs; a shard may be added to each.
    ips: Vec<String>,
    rest: String,
    /// IPs that need no plan, and may go and come back.
    pub(super) shared: Vec<Ipv4Addr>,
    /// Those that have one, and may be moved to another pool.
    pub(super) cold: Vec<Ipv4Addr>,
    pub(super) providers: Vec<&'static str>,
}

impl Fleet {
    pub(super) fn new(args: &Args, world: &World, cold: &[Cold]) -> Self {
        let spread = (seconds(args) / 3).min(15);
        let pool = |name: &str, kind: &str| {
            format!(
                "[[pool]]\nname = \"{name}\"\nkind = \"{kind}\"\nspread = \"{spread}s\"\noverflow_after = \"3s\"\n\n"
            )
        };
        let mut rest = format!(
            "default_pool = \"cold\"\n\n{}{}{}\
             [[account]]\nname = \"default\"\nmax_24_hour_send = -1\nmax_send_rate = -1\nsuppressed_reasons = [\"BOUNCE\"]\n",
            pool("cold", "dedicated"),
            pool("spare", "dedicated"),
            pool(MANAGED, "managed"),
        );
        for (name, mx, share, more) in PROVIDERS {
            let start = share * seconds(args);
            let warm = start.saturating_mul(1 << 10);
            rest += &format!(
                "\n[[provider]]\nname = \"{name}\"\nmx = [\"{mx}\"]\n{more}\
                 [provider.ladder]\nstart = {start}\nfactor = 2.0\nwarm = {warm}\n"
            );
        }
        let ip = |address: &Ipv4Addr, pool: &str, more: &str| {
            let n = address.octets()[3];
            format!("\n[[ip]]\naddress = \"{address}\"\nhelo = \"out{n}.acme.example\"\npool = \"{pool}\"\n{more}")
        };
        let warming = cold.iter().filter(|cold| cold.address != CLIMBER);
        let mut ips: Vec<_> = warming
            .map(|Cold { address, cap }| {
                let pool = if *address == SPARE { "spare" } else { "cold" };
                ip(address, pool, &format!("plan = [{cap}, {cap}, {cap}]\n"))
            })
            .collect();
        ips.extend(LEASES.iter().map(|address| ip(address, SHARED, "")));
        ips.push(ip(&CLIMBER, MANAGED, ""));
        let moves = |address: &Ipv4Addr| ![CLIMBER, SPARE].contains(address);
        let addresses = cold.iter().map(|cold| cold.address).filter(moves).collect();
        let providers = PROVIDERS.map(|(name, ..)| name).to_vec();
        Self { ips, rest: rest + &world.signing(), shared: LEASES.to_vec(), cold: addresses, providers }
    }

    /// The file; the server chooses the shards where none is given.
    pub(super) fn text(&self, mut shard: impl FnMut() -> Option<u16>) -> String {
        let at = |shard: Option<u16>| shard.map_or_else(String::new, |shard| format!("shard = {shard}\n"));
        let ips = self.ips.iter().map(|ip| format!("{ip}{}", at(shard())));
        // Top-level keys stand before the first table.
        std::iter::once(self.rest.clone()).chain(ips).collect()
    }
}

/// The plans and what receivers saw. A ladder may be one step higher each day.
pub(super) fn compare(cold: &[Cold], named: &BTreeMap<(IpAddr, u64), u64>) -> Vec<Warming> {
    let first = named.keys().map(|(_, day)| *day).min().unwrap_or(0);
    let of = |((address, day), named): (&(IpAddr, u64), &u64)| {
        let cold = cold.iter().find(|cold| IpAddr::from(cold.address) == *address)?;
        let steps = if cold.address == CLIMBER { (*day - first).min(10) } else { 0 };
        Some(Warming { address: *address, day: *day, named: *named, cap: u64::from(cold.cap) << steps })
    };
    named.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_its_own_cap() {
        let address = Ipv4Addr::new(127, 0, 10, 11);
        let cold = [Cold { address, cap: 60 }];
        let named = BTreeMap::from([((address.into(), 7), 60), ((address.into(), 8), 61)]);
        let exceeds: Vec<_> = compare(&cold, &named).iter().map(Warming::exceeds).collect();
        assert_eq!(exceeds, [false, true]);
        let cold = [Cold { address: CLIMBER, cap: 60 }];
        let named = BTreeMap::from([((CLIMBER.into(), 7), 61), ((CLIMBER.into(), 8), 120)]);
        let exceeds: Vec<_> = compare(&cold, &named).iter().map(Warming::exceeds).collect();
        assert_eq!(exceeds, [true, false], "a ladder rises by a step a day");
    }
}
