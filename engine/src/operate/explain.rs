//! Why queued mail goes or does not, in plain words.

use super::{Walk, select::Selector};
use crate::{
    clock,
    link::{
        WarmupStanding,
        orders::{Cause, Explanation, Filter},
    },
    message::meta::Meta,
    shard::Shard,
    warmup,
};
use mailrail_queue::{Height, LaneId, LaneInfo, OTHER, Queue, Seen, State, time::Wall};
use mailrail_spool::{MessageKey, Spool};
use rustc_hash::FxHashMap;
use std::{net::IpAddr, rc::Rc};

/// Names given as examples.
const EXAMPLES: usize = 10;

/// What holds a job.
pub(super) struct Why {
    pub(super) cause: Cause,
    pub(super) text: String,
    /// The next try, if that is known and not now.
    pub(super) next_try: Option<Wall>,
}

impl Why {
    fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into(), next_try: None }
    }

    fn at(self, at: mailrail_queue::time::Mono) -> Self {
        Self { next_try: Some(clock::wall().plus(at.since(clock::mono()))), ..self }
    }

    /// Is anything in its way?
    pub(super) fn holds(&self) -> bool {
        !matches!(self.cause, Cause::InFlight | Cause::Ready | Cause::ConnectionLimit | Cause::Ending)
    }
}

/// What holds a job. `lane` is its lane, if it has one.
pub(super) fn why(
    shard: &Shard,
    queue: &Queue<MessageKey>,
    spool: &Spool,
    seen: &Seen<'_, MessageKey>,
    lane: Option<&LaneInfo>,
) -> Why {
    if seen.state() == State::InFlight {
        return Why::new(Cause::InFlight, lane.map_or_else(|| "is being moved".into(), under_way));
    }
    if let Some((_, text)) = shard.rules.suspended(shard, spool, seen) {
        return Why::new(Cause::Suspended, text);
    }
    let trouble =
        |lane: &LaneInfo, otherwise: &str| shard.trouble_of(lane.lane).unwrap_or_else(|| otherwise.to_owned());
    match (seen.state(), lane) {
        (State::Waiting, Some(lane)) => {
            let text = match &lane.ladder {
                Some(provider) => format!("waits for the ladder of {} at {}", lane.lease, ladder_name(provider)),
                None => format!("waits for the warm-up allowance of {}", lane.lease),
            };
            let why = Why::new(Cause::WarmUp, text);
            if let Some(at) = lane.opens { why.at(at) } else { why }
        }
        (State::Deferred(due), Some(lane)) => {
            Why::new(Cause::Deferred, trouble(lane, "deferred by the receiver")).at(due)
        }
        (State::Ready | State::Held, Some(lane)) => ready(shard, queue, lane),
        (State::Ending, _) => Why::new(Cause::Ending, "is being ended"),
        (State::Unresolved, _) => {
            Why::new(Cause::Dns, format!("waiting for the DNS to say where mail for {} goes", seen.domain()))
        }
        _ => Why::new(Cause::NoLease, no_lease(shard, spool, seen.key())),
    }
}

/// Whose ladder it is, in words.
fn ladder_name(provider: &str) -> &str {
    if provider == OTHER { "receivers of no known provider" } else { provider }
}

fn under_way(lane: &LaneInfo) -> String {
    format!("is being delivered now, from {} to {}", lane.lease, host(&lane.site))
}

/// Nothing of its own holds it: perhaps something that holds the lane, or all.
fn ready(shard: &Shard, queue: &Queue<MessageKey>, lane: &LaneInfo) -> Why {
    if let Some(until) = lane.backed_off_until.filter(|until| *until > clock::mono()) {
        let text =
            shard.trouble_of(lane.lane).unwrap_or_else(|| format!("{} is left alone for a while", host(&lane.site)));
        return Why::new(Cause::SiteBackOff, text).at(until);
    }
    if let Some(until) = lane.suspended_until.filter(|until| *until > clock::mono()) {
        let provider = lane.provider.as_deref().unwrap_or("its provider");
        let text =
            format!("{} sends {provider} nothing for a while: see mailrail provider show {provider}", lane.lease);
        return Why::new(Cause::ProviderBackOff, text).at(until);
    }
    if let (Some(opens), Some(provider)) = (queue.rate_opens(lane.lane), &lane.provider) {
        let text = format!("waits its turn: {} sends no more a second to {provider}", lane.lease);
        return Why::new(Cause::ProviderRate, text).at(opens);
    }
    if !shard.may_deliver() {
        return Why::new(Cause::Spool, "the spool could not record what becomes of it: it is full, failed or closing");
    }
    if !queue.has_ready(lane.lane) && lane.ready > 0 {
        let text = format!("waits for the warm-up ledger of {} to be here and durable", lane.lease);
        return Why::new(Cause::Ledger, text);
    }
    if let Some(provider) = lane.provider.as_deref().filter(|_| queue.waits_for_connection(lane.lane)) {
        let text = format!("waits its turn: the connections that {} may have to {provider} are in use", lane.lease);
        return Why::new(Cause::ConnectionLimit, text);
    }
    let allowed = queue.connections_allowed(lane.lane).unwrap_or(u32::MAX);
    if lane.connections >= allowed {
        let text =
            format!("waits its turn: {} of {allowed} connections from {} are open", lane.connections, lane.lease);
        return Why::new(Cause::ConnectionLimit, text);
    }
    Why::new(Cause::Ready, format!("goes now, from {} to {}", lane.lease, host(&lane.site)))
}

fn no_lease(shard: &Shard, spool: &Spool, key: MessageKey) -> String {
    let snapshot = shard.policy();
    if snapshot.policy.leases.is_empty() {
        return "no leased IP: apply a fleet file".into();
    }
    let pool = spool.message(key).and_then(|view| {
        let meta = Meta::decode(view.meta)?;
        Some(super::select::pool_of(&meta, &snapshot.policy).to_owned())
    });
    format!("waiting for a leased IP of its pool {}", pool.unwrap_or_default())
}

/// The host that a site is shown as.
pub(super) fn host(site: &str) -> &str {
    site.split(',').next().unwrap_or("")
}

/// Answers for what a filter selects, by lane and cause.
pub(super) async fn explain(shard: &Rc<Shard>, filter: &Filter) -> Vec<Explanation> {
    let selector = Selector::new(filter);
    let mut rows: FxHashMap<(Option<LaneId>, Option<String>, Cause), Explanation> = FxHashMap::default();
    let mut walk = Walk::new();
    while walk.slice(shard, |queue, spool, seen| {
        let picked = selector.pick(shard, spool, seen);
        if picked.is_empty() {
            return;
        }
        let lane = seen.lane().and_then(|lane| queue.lane(lane));
        let why = why(shard, queue, spool, seen, lane.as_ref());
        // Without a lane, by domain.
        let domain = lane.is_none().then(|| seen.domain().to_owned());
        let row =
            rows.entry((seen.lane(), domain, why.cause)).or_insert_with(|| begun(shard, seen, lane.as_ref(), &why));
        add(row, seen, &picked, &why);
        examples(row, spool, seen.key(), &picked);
    }) {
        glommio::executor().yield_now().await;
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.iter_mut().for_each(|row| add_figures(shard, row));
    rows.sort_by(|a, b| (a.cause, &a.site, a.ip).cmp(&(b.cause, &b.site, b.ip)));
    rows
}

fn begun(shard: &Shard, seen: &Seen<'_, MessageKey>, lane: Option<&LaneInfo>, why: &Why) -> Explanation {
    Explanation {
        shard: shard.number,
        cause: why.cause,
        text: why.text.clone(),
        recipients: 0,
        addresses: Vec::new(),
        domains: Vec::new(),
        site: seen.site().map(|site| host(site).to_owned()),
        provider: seen.site().and_then(|site| shard.provider_name(site)).map(|name| name.to_string()),
        ip: lane.map(|lane| lane.lease).or_else(|| seen.lease()),
        attempts: 0,
        next_try: None,
        expires: u64::MAX,
    }
}

fn add(row: &mut Explanation, seen: &Seen<'_, MessageKey>, picked: &[u16], why: &Why) {
    row.recipients += picked.len() as u64;
    row.attempts = row.attempts.max(u32::from(seen.attempts()));
    row.expires = row.expires.min(seen.expires().0);
    row.next_try = match (row.next_try, why.next_try) {
        (Some(a), Some(b)) => Some(a.min(b.0)),
        (a, b) => a.or(b.map(|at| at.0)),
    };
    for (_, domain) in seen.recipients().filter(|(number, _)| picked.contains(number)) {
        if row.domains.len() < EXAMPLES && !row.domains.iter().any(|known| known == domain) {
            row.domains.push(domain.to_owned());
        }
    }
}

fn examples(row: &mut Explanation, spool: &Spool, key: MessageKey, picked: &[u16]) {
    if row.addresses.len() >= EXAMPLES {
        return;
    }
    let Some(view) = spool.message(key) else { return };
    let Some(meta) = Meta::decode(view.meta) else { return };
    let addresses = picked.iter().filter_map(|number| meta.recipients.get(usize::from(*number)));
    let room = EXAMPLES - row.addresses.len();
    row.addresses.extend(addresses.take(room).map(|to| to.address.to_owned()));
}

/// How far the plan or ladder of its leased IP is, where that is what holds it.
fn add_figures(shard: &Shard, row: &mut Explanation) {
    let Some(ip): Option<IpAddr> = row.ip.filter(|_| row.cause == Cause::WarmUp) else { return };
    let (sent, cap, of) = match warmup::standing(shard, ip) {
        Some(WarmupStanding { sent, cap: Some(cap), plan_day: Some(day), .. }) => (sent, cap, format!("day {day}")),
        Some(_) => return,
        None => {
            let provider = row.provider.as_deref().unwrap_or(OTHER);
            let heights = shard.queue.borrow_mut().heights(clock::mono(), clock::wall());
            let mine = heights.into_iter().find(|height| height.ip == ip && &*height.provider == provider);
            let Some(Height { sent, cap: Some(cap), rung, .. }) = mine else { return };
            (sent, cap, format!("today, at step {},", rung.ladder.step))
        }
    };
    row.text += &format!(": {sent} of {cap} recipients of {of} are sent");
    if sent < cap {
        row.text += ", the rest is spread over the day";
    }
}
