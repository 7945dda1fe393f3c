//! Listings of queued mail: sums by lane, or single messages.

use super::{
    Walk,
    explain::{Why, host, why},
    select::{Numbers, Selector},
};
use crate::{
    clock,
    link::{QueueFilter, QueueRow},
    message::{id::MessageId, meta::Meta},
    shard::Shard,
};
use mailrail_queue::{LaneId, LaneInfo, Seen, State};
use mailrail_spool::{MessageKey, Spool};
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// Domains named in a row.
const DOMAINS: usize = 10;

/// The rows of this shard.
pub(crate) async fn rows(shard: &Rc<Shard>, filter: &QueueFilter) -> Vec<QueueRow> {
    let selector = Selector::new(&filter.selects());
    let single = filter.messages || filter.message.is_some();
    let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
    let mut rows = Vec::new();
    // What has no lane is summed by domain.
    let mut sums: FxHashMap<(Option<LaneId>, Option<String>), QueueRow> = FxHashMap::default();
    // What holds a lane holds all in it that is ready, but for what an operator suspended.
    let alike = |seen: &Seen<'_, MessageKey>| seen.state() == State::Ready && !shard.rules.any();
    let mut walk = Walk::new();
    loop {
        let mut last: Option<LaneInfo> = None;
        let mut of_lane: FxHashMap<Option<LaneId>, Rc<Why>> = FxHashMap::default();
        let more = walk.slice(shard, |queue, spool, seen| {
            let picked = if rows.len() < limit { selector.pick(shard, spool, seen) } else { Numbers::new() };
            if picked.is_empty() {
                return;
            }
            if last.as_ref().map(|lane| lane.lane) != seen.lane() {
                last = seen.lane().and_then(|lane| queue.lane(lane));
            }
            let lane = last.as_ref();
            if single {
                let why = why(shard, queue, spool, seen, lane);
                rows.extend(message(shard, spool, seen, &picked, lane, &why));
                return;
            }
            let domain = lane.is_none().then(|| seen.domain().to_owned());
            let sum = sums.entry((seen.lane(), domain)).or_insert_with(|| empty(shard, seen, lane));
            // To say why takes longer than to count: once for what waits alike.
            let asks = sum.reason.is_empty() && seen.state() != State::InFlight || seen.state() == State::Ready;
            let why = || Rc::new(why(shard, queue, spool, seen, lane));
            let why = match asks {
                true if alike(seen) => Some(Rc::clone(of_lane.entry(seen.lane()).or_insert_with(why))),
                true => Some(why()),
                false => None,
            };
            add(shard, sum, seen, &picked, why.as_deref());
        });
        if !more || rows.len() >= limit {
            break;
        }
        glommio::executor().yield_now().await;
    }
    rows.extend(sums.into_values().take(limit));
    rows
}

fn empty(shard: &Shard, seen: &Seen<'_, MessageKey>, lane: Option<&LaneInfo>) -> QueueRow {
    let site = seen.site();
    QueueRow {
        shard: shard.number,
        site: site.map_or(seen.domain(), host).to_owned(),
        provider: site.and_then(|site| shard.provider_name(site)).map(|name| name.to_string()),
        ip: lane.map(|lane| lane.lease),
        domains: Vec::new(),
        message: None,
        recipients: Vec::new(),
        account: None,
        pool: None,
        queued: 0,
        deferred: 0,
        in_flight: 0,
        connections: lane.map_or(0, |lane| lane.connections),
        attempts: 0,
        oldest: u64::MAX,
        next_try: None,
        held: true,
        reason: String::new(),
    }
}

fn message(
    shard: &Shard,
    spool: &Spool,
    seen: &Seen<'_, MessageKey>,
    picked: &[u16],
    lane: Option<&LaneInfo>,
    why: &Why,
) -> Option<QueueRow> {
    let view = spool.message(seen.key())?;
    let meta = Meta::decode(view.meta)?;
    let mut row = empty(shard, seen, lane);
    add(shard, &mut row, seen, picked, Some(why));
    row.message = Some(MessageId::display(view.id));
    let numbers = picked.iter().filter_map(|number| meta.recipients.get(usize::from(*number)));
    row.recipients = numbers.map(|recipient| recipient.address.to_owned()).collect();
    row.account = Some(meta.account.to_owned());
    row.pool = Some(super::select::pool_of(&meta, &shard.policy().policy).to_owned());
    row.oldest = view.accepted_ms;
    Some(row)
}

fn add(shard: &Shard, row: &mut QueueRow, seen: &Seen<'_, MessageKey>, picked: &[u16], why: Option<&Why>) {
    let count = picked.len() as u64;
    let (now, wall) = (clock::mono(), clock::wall());
    row.queued += count;
    let next_try = match seen.state() {
        State::Deferred(due) if due > now => Some(wall.plus(due.since(now)).0),
        _ => why.and_then(|why| why.next_try).map(|at| at.0),
    };
    match seen.state() {
        State::InFlight => row.in_flight += count,
        State::Deferred(_) | State::Waiting | State::Held => row.deferred += count,
        _ => {}
    }
    row.attempts = row.attempts.max(u32::from(seen.attempts()));
    let age = u64::try_from(shard.config.delivery.max_age.as_millis()).unwrap_or(u64::MAX);
    row.oldest = row.oldest.min(seen.expires().0.saturating_sub(age));
    let idle = matches!(seen.state(), State::Held | State::Waiting) || why.is_some_and(Why::holds);
    // What comes first counts; a row that is not held and has no time has something that may go now.
    match next_try {
        Some(at) if row.held => (row.next_try, row.held) = (Some(at), false),
        Some(at) => row.next_try = row.next_try.map(|known| known.min(at)),
        None if idle => {}
        None => (row.next_try, row.held) = (None, false),
    }
    if row.reason.is_empty()
        && let Some(why) = why.filter(|why| why.holds())
    {
        row.reason.clone_from(&why.text);
    }
    for (_, domain) in seen.recipients().filter(|(number, _)| picked.contains(number)) {
        if row.domains.len() < DOMAINS && !row.domains.iter().any(|known| known == domain) {
            row.domains.push(domain.to_owned());
        }
    }
}
