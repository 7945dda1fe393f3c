//! A campaign's file: what a fleet file says, and what is sent to whom. Read twice: the fleet's part by the server's own
//! parser, the rest here. Everything is checked before anything runs; a mistake is one line with its place.

use super::models::{self, Entry};
use mailrail_engine::{
    config::{friendly, parse_duration},
    control::rehearse_fleet,
};
use mailrail_queue::{
    policy::{DEFAULT_ACCOUNT, DEFAULT_DEDICATED_POOL, Policy, SHARED_POOL},
    retry::RetrySchedule,
    sim::{
        campaign::{Campaign, Stream, Volume},
        receiver::Model,
        world::BEGIN,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use std::{
    fmt::Write,
    net::IpAddr,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{Spanned, Value};

/// Leased IPs of one `[[ips]]`.
const IPS_MOST: u32 = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    campaign: FileCampaign,
    #[serde(default)]
    ips: Vec<FileIps>,
    #[serde(default)]
    stream: Vec<FileStream>,
    #[serde(default)]
    receiver: Vec<Spanned<Entry>>,
    // Of the fleet: read by its own parser.
    default_pool: Option<Spanned<IgnoredAny>>,
    day_starts: Option<Spanned<IgnoredAny>>,
    strict_rdns: Option<Spanned<IgnoredAny>>,
    account: Option<Spanned<IgnoredAny>>,
    pool: Option<Spanned<IgnoredAny>>,
    ip: Option<Spanned<IgnoredAny>>,
    dkim: Option<Spanned<IgnoredAny>>,
    domain: Option<Spanned<IgnoredAny>>,
    provider: Option<Spanned<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCampaign {
    days: Option<Spanned<u32>>,
    fleet: Option<Spanned<PathBuf>>,
    seed: Option<u64>,
    max_age: Option<Spanned<String>>,
    retry: Option<FileRetry>,
    connections: Option<Spanned<u32>>,
    message_time: Option<Spanned<String>>,
    granularity: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRetry {
    first: Option<Spanned<String>>,
    factor: Option<Spanned<u32>>,
    max: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIps {
    first: Spanned<IpAddr>,
    count: Spanned<u32>,
    pool: Spanned<String>,
    #[serde(default)]
    warm: bool,
    plan: Option<Spanned<Value>>,
    from_day: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStream {
    name: Spanned<String>,
    account: Option<Spanned<String>>,
    pool: Option<Spanned<String>>,
    to: Spanned<Value>,
    volume: Spanned<Value>,
    hours: Option<Spanned<Value>>,
    hard_bounces: Option<Spanned<f64>>,
    from_day: Option<Spanned<u32>>,
    to_day: Option<Spanned<u32>>,
}

/// Where in the text, and what is wrong there.
type Wrong = (usize, String);

fn wrong<T, O>(at: &Spanned<T>, why: impl Into<String>) -> Result<O, Wrong> {
    Err((at.span().start, why.into()))
}

/// Reads a campaign.
///
/// # Errors
/// One line: file, line, what is wrong there and what to write.
pub(super) fn parse(text: &str, path: &Path) -> Result<Campaign, String> {
    let place = |(at, why): Wrong| {
        let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: {why}", path.display())
    };
    let file: File = toml::from_str(text)
        .map_err(|error| place((error.span().map_or(0, |span| span.start), friendly(error.message()))))?;
    let (fleet, of) = file.fleet(text, path).map_err(place)?;
    let policy = rehearse_fleet(&fleet, &of, BEGIN)?;
    file.check_ips(&policy).map_err(place)?;
    let whole = format!("{fleet}\n{}", file.generated());
    let policy = rehearse_fleet(&whole, &of, BEGIN).map_err(|why| format!("{}: {why}", path.display()))?;
    if policy.leases.is_empty() {
        return Err(place((0, "there is no [[ip]] and no [[ips]]: nothing could be sent".into())));
    }
    let campaign = file.campaign(policy).map_err(place)?;
    campaign.check().map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(campaign)
}

impl File {
    /// The text that has the fleet, and the file that it is from.
    fn fleet(&self, text: &str, path: &Path) -> Result<(String, PathBuf), Wrong> {
        let Some(fleet) = &self.campaign.fleet else { return Ok((text.to_owned(), path.to_owned())) };
        let own = [
            ("default_pool", &self.default_pool),
            ("day_starts", &self.day_starts),
            ("strict_rdns", &self.strict_rdns),
            ("account", &self.account),
            ("pool", &self.pool),
            ("ip", &self.ip),
            ("dkim", &self.dkim),
            ("domain", &self.domain),
            ("provider", &self.provider),
        ];
        if let Some((key, Some(given))) = own.into_iter().find(|(_, given)| given.is_some()) {
            return wrong(given, format!("{key}: the fleet is in another file; write it there, or take fleet = away"));
        }
        let of = path.parent().unwrap_or(Path::new("")).join(fleet.get_ref());
        match std::fs::read_to_string(&of) {
            Ok(text) => Ok((text, of)),
            Err(error) => wrong(fleet, format!("fleet = \"{}\": {error}", fleet.get_ref().display())),
        }
    }

    fn check_ips(&self, policy: &Policy) -> Result<(), Wrong> {
        let mut taken: Vec<Range<u128>> = policy.leases.iter().map(|lease| range(lease.address, 1)).collect();
        for ips in &self.ips {
            let (first, count) = (*ips.first.get_ref(), *ips.count.get_ref());
            if !(1..=IPS_MOST).contains(&count) {
                return wrong(&ips.count, format!("[[ips]] {first}: count = {count}: 1 to {IPS_MOST}"));
            }
            let name = ips.pool.get_ref().as_str();
            let shared = match policy.pools.iter().find(|pool| *pool.name == *name) {
                Some(pool) => pool.kind == mailrail_queue::policy::PoolKind::Shared,
                None if [SHARED_POOL, DEFAULT_DEDICATED_POOL].contains(&name) => name == SHARED_POOL,
                None => return wrong(&ips.pool, format!("[[ips]] {first}: pool \"{name}\" is no [[pool]]")),
            };
            if shared && (ips.warm || ips.plan.is_some()) {
                return wrong(&ips.pool, format!("[[ips]] {first}: an IP of a shared pool has no plan, and is warm"));
            }
            let own = range(first, count);
            if taken.iter().any(|other| other.start < own.end && own.start < other.end) {
                return wrong(&ips.first, format!("[[ips]] {first}: overlaps with other leased IPs"));
            }
            taken.push(own);
            if let Some(day) = ips.from_day.as_ref().filter(|day| *day.get_ref() == 0) {
                return wrong(day, format!("[[ips]] {first}: from_day = 0: days are counted from 1"));
            }
            if let Some(plan) = &ips.plan
                && let Err(why) = mailrail_engine::control::check_plan(plan.get_ref())
            {
                return wrong(plan, format!("[[ips]] {first}: plan: {why}"));
            }
        }
        Ok(())
    }

    /// `[[ips]]` as the fleet writes them.
    fn generated(&self) -> String {
        let mut out = String::new();
        for ips in &self.ips {
            for (n, address) in addresses(*ips.first.get_ref(), *ips.count.get_ref()).enumerate() {
                let pool = Value::from(ips.pool.get_ref().as_str());
                let _ =
                    write!(out, "[[ip]]\naddress = \"{address}\"\nhelo = \"out{n}.rehearsal.test\"\npool = {pool}\n");
                if ips.warm {
                    out += "warm = true\nreason = \"rehearsal\"\n";
                }
                if let Some(plan) = &ips.plan {
                    let _ = writeln!(out, "plan = {}", plan.get_ref());
                }
            }
        }
        out
    }

    fn campaign(&self, policy: Policy) -> Result<Campaign, Wrong> {
        let receivers = models::table(&self.receiver, &policy)?;
        let settings = &self.campaign;
        let days = settings.days.as_ref().map_or(45, |days| *days.get_ref());
        if let Some(given) = settings.days.as_ref().filter(|_| !(1..=365).contains(&days)) {
            return wrong(given, format!("days = {days}: 1 to 365"));
        }
        if self.stream.is_empty() {
            return Err((0, "there is no [[stream]]: nothing would be sent".into()));
        }
        let mut streams: Vec<Stream> = Vec::new();
        for stream in &self.stream {
            let read = stream.read(&receivers, &policy, days)?;
            if streams.iter().any(|known| known.name == read.name) {
                return wrong(&stream.name, format!("[[stream]] \"{}\" is listed twice", read.name));
            }
            streams.push(read);
        }
        let day = |address: IpAddr| {
            let has = |ips: &&FileIps| range(*ips.first.get_ref(), *ips.count.get_ref()).contains(&number(address));
            let of = self.ips.iter().find(has);
            of.and_then(|ips| ips.from_day.as_ref()).map_or(1, |day| *day.get_ref())
        };
        let time = |given: &Option<Spanned<String>>, default| match given {
            None => Ok(default),
            Some(text) => duration(text),
        };
        let connections = settings.connections.as_ref().map_or(20, |given| *given.get_ref());
        if let Some(given) = settings.connections.as_ref().filter(|_| connections == 0) {
            return wrong(given, "connections = 0: nothing could be sent; the least is 1");
        }
        Ok(Campaign {
            leased: policy.leases.iter().map(|lease| day(lease.address)).collect(),
            policy,
            streams,
            receivers,
            days,
            max_age: time(&settings.max_age, Duration::from_secs(14 * 3600))?,
            retry: settings.retry.as_ref().map_or_else(|| Ok(RetrySchedule::default()), FileRetry::read)?,
            connections,
            message: time(&settings.message_time, Duration::from_millis(250))?,
            crowd: match &settings.granularity {
                Some(given) if !(1..=100_000).contains(given.get_ref()) => {
                    return wrong(given, "granularity: 1 (message by message) to 100000");
                }
                given => given.as_ref().map(|given| *given.get_ref()),
            },
            seed: settings.seed.unwrap_or(1),
        })
    }
}

impl FileRetry {
    fn read(&self) -> Result<RetrySchedule, Wrong> {
        let mut schedule = RetrySchedule::default();
        if let Some(first) = &self.first {
            schedule.first = duration(first)?;
        }
        if let Some(factor) = &self.factor {
            schedule.factor = *factor.get_ref();
            if !(1..=10).contains(&schedule.factor) {
                return wrong(factor, format!("retry.factor = {}: 1 to 10", schedule.factor));
            }
        }
        if let Some(max) = &self.max {
            schedule.max = duration(max)?;
        }
        schedule.max = schedule.max.max(schedule.first);
        Ok(schedule)
    }
}

impl FileStream {
    fn read(&self, receivers: &[Model], policy: &Policy, days: u32) -> Result<Stream, Wrong> {
        let name = self.name.get_ref();
        let say = |why: String| format!("[[stream]] \"{name}\": {why}");
        let account = self.account.as_ref().map_or(DEFAULT_ACCOUNT, |account| account.get_ref());
        if let Some(given) = self.account.as_ref().filter(|_| policy.account(account).is_none()) {
            return wrong(given, say(format!("account \"{account}\" is no [[account]]")));
        }
        let pool = self.pool.as_ref().map(|pool| pool.get_ref().as_str());
        if let Err(unknown) = mailrail_queue::egress::pool_of(policy, account, pool) {
            let given = self.pool.as_ref().unwrap_or(&self.name);
            return wrong(given, say(format!("{unknown}, or is not {account}'s")));
        }
        let bounces = self.hard_bounces.as_ref().map_or(1.0, |given| *given.get_ref());
        if let Some(given) = self.hard_bounces.as_ref().filter(|_| !(0.0..=100.0).contains(&bounces)) {
            return wrong(given, say(format!("hard_bounces = {bounces}: 0 to 100, per cent of the addresses")));
        }
        let day = |given: &Option<Spanned<u32>>, default| given.as_ref().map_or(default, |day| *day.get_ref());
        let (from, to) = (day(&self.from_day, 1), day(&self.to_day, days));
        if from == 0 || to < from {
            let given = self.to_day.as_ref().or(self.from_day.as_ref());
            let at = given.map_or(self.name.span().start, |given| given.span().start);
            return Err((
                at,
                say(format!("from_day = {from}, to_day = {to}: days are counted from 1, and go forward")),
            ));
        }
        Ok(Stream {
            name: name.as_str().into(),
            account: account.into(),
            pool: pool.map(Into::into),
            to: shares(self.to.get_ref(), receivers).map_err(|why| (self.to.span().start, say(why)))?,
            volume: volume(self.volume.get_ref()).map_err(|why| (self.volume.span().start, say(why)))?,
            hours: match &self.hours {
                None => [1; 24],
                Some(given) => hours(given.get_ref()).map_err(|why| (given.span().start, say(why)))?,
            },
            unknown: bounces / 100.0,
            days: (from, to),
        })
    }
}

/// `"gmail"`, or `{ gmail = 50, others = 50 }`.
fn shares(value: &Value, receivers: &[Model]) -> Result<Vec<(usize, u64)>, String> {
    let known = || receivers.iter().map(|model| &*model.name).collect::<Vec<_>>().join(", ");
    let find = |name: &str| {
        let place = receivers.iter().position(|model| *model.name == *name);
        place.ok_or_else(|| format!("to: \"{name}\" is no [[receiver]]; there are {}", known()))
    };
    let form = "to is the name of a receiver, or parts: { gmail = 50, others = 50 }";
    match value {
        Value::String(name) => Ok(vec![(find(name)?, 1)]),
        Value::Table(parts) => {
            let mut to = Vec::new();
            for (name, part) in parts {
                let part = number_of(part).filter(|part| (0.0..=1e9).contains(part));
                let part = part.ok_or_else(|| format!("{form}; that of {name} is no part"))?;
                to.push((find(name)?, (part * 1000.0).round() as u64));
            }
            if to.iter().all(|(_, part)| *part == 0) {
                return Err(format!("{form}; all of them are 0"));
            }
            Ok(to)
        }
        _ => Err(form.into()),
    }
}

fn number_of(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

fn volume(value: &Value) -> Result<Volume, String> {
    let form = "volume is a number a day, a list of one a day (the last holds on), or { start = 1000, factor = 1.3, target = 500000 }";
    let whole = |value: &Value| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| format!("{form}; {value} is no number of recipients"))
    };
    match value {
        Value::Integer(_) => Ok(Volume::Constant(whole(value)?)),
        Value::Array(days) if days.is_empty() => Err(format!("{form}; the list is empty")),
        Value::Array(days) => Ok(Volume::Table(days.iter().map(whole).collect::<Result<_, _>>()?)),
        Value::Table(table) => {
            if let Some(key) = table.keys().find(|key| !["start", "factor", "target"].contains(&key.as_str())) {
                return Err(format!("{form}; it has no {key}"));
            }
            let of = |key: &str| table.get(key).ok_or_else(|| format!("{form}; {key} is missing"));
            let factor = number_of(of("factor")?).filter(|factor| (1.0..=100.0).contains(factor));
            let factor = factor.ok_or("volume: its factor is 1 to 100")?;
            Ok(Volume::Growth { start: whole(of("start")?)?, factor, target: whole(of("target")?)? })
        }
        _ => Err(form.into()),
    }
}

/// `"even"`, `"day"`, or a weight for each hour.
fn hours(value: &Value) -> Result<[u32; 24], String> {
    let form = "hours is \"even\", \"day\", or a list of 24 weights, one for each hour from midnight UTC";
    match value {
        Value::String(name) if name == "even" => Ok([1; 24]),
        Value::String(name) if name == "day" => {
            Ok([1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 9, 8, 8, 8, 8, 7, 6, 5, 4, 3, 2, 2, 1])
        }
        Value::Array(list) => {
            let weight = |value: &Value| value.as_integer().and_then(|weight| u32::try_from(weight).ok());
            let weights: Option<Vec<u32>> = list.iter().map(weight).collect();
            let all: Option<[u32; 24]> = weights.and_then(|weights| weights.try_into().ok());
            all.filter(|all| all.iter().any(|weight| *weight > 0) && all.iter().all(|weight| *weight < 1_000_000))
                .ok_or_else(|| form.into())
        }
        _ => Err(form.into()),
    }
}

fn duration(text: &Spanned<String>) -> Result<Duration, Wrong> {
    match parse_duration(text.get_ref()) {
        Ok(time) if !time.is_zero() && time <= Duration::from_secs(30 * 86_400) => Ok(time),
        Ok(_) => wrong(text, format!("\"{}\": longer than nothing, 30 days at most", text.get_ref())),
        Err(why) => wrong(text, why),
    }
}

fn number(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(four) => u128::from(u32::from(four)),
        IpAddr::V6(six) => u128::from(six),
    }
}

fn range(first: IpAddr, count: u32) -> Range<u128> {
    number(first)..number(first).saturating_add(u128::from(count))
}

fn addresses(first: IpAddr, count: u32) -> impl Iterator<Item = IpAddr> {
    let of = move |n: u32| match first.to_canonical() {
        IpAddr::V4(four) => IpAddr::from(u32::from(four).saturating_add(n).to_be_bytes()),
        IpAddr::V6(six) => IpAddr::from(u128::from(six).saturating_add(u128::from(n)).to_be_bytes()),
    };
    (0..count).map(of)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
