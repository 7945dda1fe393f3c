//! An operator who changes everything that may be changed while mail flows and the server is killed: suspensions, orders,
//! leases on the move, providers held and let go, addresses listed and taken off. At the end all is put right, and what was
//! answered must be there: a change that got its answer is durable, one that did not may be there or not.

use super::{
    Args,
    plan::{Fleet, POOLS},
    run::next,
};
use crate::{
    client::{Client, ClientError, encoded},
    cmd::Failure,
    server,
};
use mailrail_engine::{
    control::api::types::{
        QueueReport,
        audit::AuditPage,
        orders::{OrderReport, OrderRequest, Orders, SuspendRequest, Suspensions},
        provider::{Lift, ProviderDone, Suspend},
    },
    link::orders::{Action, Filter, Suspension},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How much an operator does.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Suspensions at a time, at most: mail has to flow, too.
    held_most: usize,
    /// Between two changes, milliseconds: from, to.
    pause_ms: (u64, u64),
}

/// Between kills there is time for a few changes.
const KILLING: Pace = Pace { held_most: 4, pause_ms: (50, 350) };
/// A long run is to be flat: what is suspended for long is a queue that grows, and nobody could tell it from a leak.
const SOAKING: Pace = Pace { held_most: 1, pause_ms: (1_000, 4_000) };
/// Between two looks while all is put right.
const LOOK: Duration = Duration::from_millis(100);

/// What was done and found, for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Findings {
    /// Changes that were answered well, by kind.
    pub(super) answered: BTreeMap<&'static str, u64>,
    /// Refused, with a reason.
    pub(super) refused: u64,
    /// Without an answer: the server was killed, or not there yet.
    pub(super) unanswered: u64,
    /// Answered, and not in force or not in the audit later: must be 0.
    pub(super) forgotten: u64,
    /// Orders that were not carried out in the end: must be 0.
    pub(super) unfinished: u64,
}

impl Findings {
    /// Changes that were answered well.
    pub(super) fn changes(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// What must be true of suspensions and orders, by the answers.
#[derive(Debug, Default)]
struct Truth {
    held: BTreeMap<u64, Filter>,
    let_go: BTreeSet<u64>,
    orders: BTreeSet<u64>,
}

impl Truth {
    /// How many answers do not hold, given what is in force and what the audit has of orders.
    fn forgotten(&self, in_force: &BTreeSet<u64>, orders: &BTreeSet<u64>) -> u64 {
        let held = self.held.keys().filter(|id| !in_force.contains(id)).count();
        let let_go = self.let_go.intersection(in_force).count();
        (held + let_go + self.orders.difference(orders).count()) as u64
    }
}

/// See the module; works in a thread of its own until it is stopped.
pub(super) struct Operator {
    thread: JoinHandle<Work>,
    stop: Arc<AtomicBool>,
}

/// One operator's means and books.
struct Work {
    client: Client,
    fleet: Fleet,
    domains: Vec<&'static str>,
    shards: u16,
    pace: Pace,
    chance: u64,
    findings: Findings,
    truth: Truth,
}

impl Operator {
    /// Begins; `shards` is how many the server has.
    pub(super) fn start(
        args: &Args,
        socket: PathBuf,
        fleet: Fleet,
        domains: Vec<&'static str>,
        shards: u16,
    ) -> Result<Self, Failure> {
        let client = Client::new(socket, Duration::from_secs(10))?;
        let (findings, truth) = (Findings::default(), Truth::default());
        let pace = if args.soak.is_some() { SOAKING } else { KILLING };
        // Not the same chance as that of the kills.
        let mut work = Work { client, fleet, domains, shards, pace, chance: !args.seed, findings, truth };
        let (least, most) = pace.pause_ms;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("operator".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(least + next(&mut work.chance) % (most - least)));
                work.change();
            }
            work
        })?;
        Ok(Self { thread, stop })
    }

    /// Stops, puts all right that holds up mail, and compares what was answered with what is there.
    pub(super) fn finish(self, patience: Duration) -> Result<Findings, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut work =
            self.thread.join().map_err(|_| Failure::Operation("torture: the operator's thread has panicked".into()))?;
        let suspensions: Suspensions = work.insist(patience, |client| client.get("/mailrail/v1/queue/suspensions"))?;
        let in_force: BTreeSet<u64> = suspensions.suspensions.iter().map(|rule| rule.id).collect();
        for id in &in_force {
            work.insist(patience, |client| {
                match client.delete::<Value>(&format!("/mailrail/v1/queue/suspensions/{id}")) {
                    // An answer that came too late may have been about this one.
                    Err(ClientError::Refused { status, .. }) if status == 404 => Ok(()),
                    answer => answer.map(drop),
                }
            })?;
        }
        for name in work.fleet.providers.clone() {
            work.insist(patience, |client| {
                client.post::<ProviderDone>(&format!("/mailrail/v1/providers/{name}/lift"), &Lift::default())
            })?;
        }
        let toml = work.fleet.text(|| None);
        work.insist(patience, |client| server::apply(client, toml.clone()))?;
        work.findings.unfinished = work.carried_out(patience)?;
        work.findings.forgotten = work.truth.forgotten(&in_force, &work.audited(patience)?);
        Ok(work.findings)
    }
}

impl Work {
    /// One change, of a kind that chance chooses.
    fn change(&mut self) {
        // What nobody could hear says nothing of what was heard and not answered.
        if self.client.get::<Value>("/mailrail/v1/status").is_err() {
            return;
        }
        let held = self.truth.held.len();
        let (kind, done) = match self.below(24) {
            0..5 if held < self.pace.held_most => ("suspend", self.suspend()),
            0..9 if held > 0 => ("resume", self.resume()),
            0..9 => ("suspend", self.suspend()),
            9..12 => ("retry", self.order(Action::Retry)),
            12..15 => ("reroute", self.order(Action::Reroute)),
            15 => ("bounce", self.order(Action::Bounce)),
            16 => ("cancel", self.order(Action::Cancel)),
            17..19 => ("move to another shard", self.move_shards()),
            19 => ("move to another pool", self.move_pool()),
            20 => ("drain or release", self.release()),
            21..23 => ("hold a provider", self.provider()),
            _ => ("list an address", self.list()),
        };
        match done {
            Ok(()) => *self.findings.answered.entry(kind).or_default() += 1,
            Err(ClientError::Refused { .. }) => self.findings.refused += 1,
            Err(_) => self.findings.unanswered += 1,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        (next(&mut self.chance) % n.max(1) as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }

    /// Some of the mail, or all of it.
    fn filter(&mut self) -> Filter {
        let all = Filter::default();
        match self.below(6) {
            0..3 => Filter { domain: self.one(&self.domains.clone()).map(Into::into), ..all },
            3 => {
                let ips: Vec<_> = self.fleet.shared.iter().chain(&self.fleet.cold).copied().collect();
                Filter { ip: self.one(&ips).map(Into::into), ..all }
            }
            4 => Filter { pool: self.one(&POOLS).map(Into::into), ..all },
            _ => Filter { provider: self.one(&self.fleet.providers.clone()).map(Into::into), ..all },
        }
    }

    fn suspend(&mut self) -> Result<(), ClientError> {
        let filter = if self.below(10) == 0 { Filter::default() } else { self.filter() };
        let request = SuspendRequest { all: filter.is_empty(), filter, reason: "torture".into() };
        let made: Suspension = self.client.post("/mailrail/v1/queue/suspensions", &request)?;
        self.truth.held.insert(made.id, made.filter);
        self.truth.let_go.remove(&made.id);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), ClientError> {
        let Some((id, _)) = self.truth.held.pop_first() else { return Ok(()) };
        // Without an answer nobody knows whether it is still in force.
        let _: Value = self.client.delete(&format!("/mailrail/v1/queue/suspensions/{id}"))?;
        self.truth.let_go.insert(id);
        Ok(())
    }

    /// Mail is ended message by message, or domain by domain: no notification of the host is among it, whose loss would be
    /// taken for the host's.
    fn order(&mut self, action: Action) -> Result<(), ClientError> {
        let filter = match action {
            Action::Retry | Action::Reroute => self.filter(),
            Action::Bounce | Action::Cancel if self.below(2) == 0 => {
                Filter { domain: self.one(&self.domains.clone()).map(Into::into), ..Filter::default() }
            }
            Action::Bounce | Action::Cancel => Filter { message: self.some_message()?.0, ..Filter::default() },
        };
        if filter.is_empty() {
            return Ok(());
        }
        let pool = (action == Action::Reroute).then(|| self.one(&POOLS)).flatten().map(Into::into);
        let request = OrderRequest { action, filter, all: false, pool, reason: "torture".into() };
        let given: OrderReport = self.client.post("/mailrail/v1/queue/orders", &request)?;
        self.truth.orders.insert(given.id);
        Ok(())
    }

    /// A message that waits, for people rather than for a sender; and one of its recipients.
    fn some_message(&mut self) -> Result<(Option<String>, Option<String>), ClientError> {
        let waiting: QueueReport = self.client.get("/mailrail/v1/queue?messages=true&limit=50")?;
        let domains = self.domains.clone();
        let fits = |domain: &String| domains.contains(&domain.as_str());
        let rows: Vec<_> = waiting.rows.iter().filter(|row| row.domains.iter().all(fits)).collect();
        let row = self.one(&rows);
        Ok((row.and_then(|row| row.message.clone()), row.and_then(|row| row.recipients.first().cloned())))
    }

    /// The fleet file again, whatever was changed besides it; with leased IPs on other shards.
    fn move_shards(&mut self) -> Result<(), ClientError> {
        let (mut chance, shards) = (self.chance, u64::from(self.shards));
        let toml = self.fleet.text(|| Some((next(&mut chance) % shards) as u16));
        self.chance = chance;
        server::apply(&self.client, toml).map(drop)
    }

    fn move_pool(&mut self) -> Result<(), ClientError> {
        let (Some(ip), Some(pool)) = (self.one(&self.fleet.cold.clone()), self.one(&POOLS[..2])) else { return Ok(()) };
        let path = format!("/v2/email/dedicated-ips/{ip}/pool");
        let _: Value = self.client.put(&path, &json!({ "DestinationPoolName": pool }))?;
        Ok(())
    }

    /// Of a shared IP: a new lease of one that warms up would begin a new plan on the same day. The next apply leases it again.
    fn release(&mut self) -> Result<(), ClientError> {
        let Some(ip) = self.one(&self.fleet.shared.clone()) else { return Ok(()) };
        let path = format!("/mailrail/v1/leases/{ip}");
        let _: Value = if self.below(2) == 0 {
            self.client.post(&format!("{path}/drain"), &json!({}))?
        } else {
            self.client.delete(&path)?
        };
        Ok(())
    }

    fn provider(&mut self) -> Result<(), ClientError> {
        let Some(name) = self.one(&self.fleet.providers.clone()) else { return Ok(()) };
        let path = format!("/mailrail/v1/providers/{name}");
        let _: ProviderDone = if self.below(3) == 0 {
            self.client.post(&format!("{path}/lift"), &Lift::default())?
        } else {
            let request = Suspend { ip: None, time: "2s".into(), reason: Some("torture".into()) };
            self.client.post(&format!("{path}/suspend"), &request)?
        };
        Ok(())
    }

    /// Puts an address on the suppression list, or takes it off.
    fn list(&mut self) -> Result<(), ClientError> {
        let Some(address) = self.some_message()?.1 else { return Ok(()) };
        let _: Value = if self.below(3) == 0 {
            self.client.delete(&format!("/v2/email/suppression/addresses/{}", encoded(&address)))?
        } else {
            let request = json!({ "EmailAddress": address, "Reason": "BOUNCE" });
            self.client.put("/v2/email/suppression/addresses", &request)?
        };
        Ok(())
    }

    /// Asks until it is answered well: a busy machine may keep a shard from answering in time.
    fn insist<T>(&self, patience: Duration, ask: impl Fn(&Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        let end = Instant::now() + patience;
        loop {
            match ask(&self.client) {
                Err(_) if Instant::now() < end => thread::sleep(LOOK),
                answer => return answer,
            }
        }
    }

    /// Waits for every order to be carried out; how many are not in time.
    fn carried_out(&self, patience: Duration) -> Result<u64, ClientError> {
        let end = Instant::now() + patience;
        loop {
            let known: Orders = self.insist(patience, |client| client.get("/mailrail/v1/queue/orders"))?;
            let open = known.orders.iter().filter(|order| !order.finished).count() as u64;
            if open == 0 || Instant::now() > end {
                return Ok(open);
            }
            thread::sleep(LOOK);
        }
    }

    /// The orders that the audit has.
    fn audited(&self, patience: Duration) -> Result<BTreeSet<u64>, ClientError> {
        let (mut found, mut before) = (BTreeSet::new(), String::new());
        loop {
            let path = format!("/mailrail/v1/audit?kind=order&limit=1000{before}");
            let page: AuditPage = self.insist(patience, |client| client.get(&path))?;
            found.extend(page.entries.iter().filter_map(|row| row.name.parse::<u64>().ok()));
            let Some(next) = page.next else { return Ok(found) };
            before = format!("&before={next}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_and_is_not_there_is_forgotten() {
        let truth = Truth {
            held: BTreeMap::from([(1, Filter::default()), (2, Filter::default())]),
            let_go: BTreeSet::from([3, 4]),
            orders: BTreeSet::from([5, 6]),
        };
        // A suspension that nobody answered, 7, may be there.
        let (in_force, orders) = (BTreeSet::from([1, 2, 7]), BTreeSet::from([5, 6, 8]));
        assert_eq!(truth.forgotten(&in_force, &orders), 0);
        assert_eq!(truth.forgotten(&BTreeSet::from([1, 4]), &BTreeSet::from([5])), 3);
    }
}
