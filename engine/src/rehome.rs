//! Mail whose leased IP is not this shard's any more: another lease of its pool, here or on another shard.
//!
//! A message changes owner only by an append in the new owner's spool that is durable before it is settled here, and is not
//! sent there before that is durable. What a crash leaves in both spools is settled at the next start (`claims.rs`).

use crate::{
    clock, commit,
    link::Snapshot,
    mesh::{self, Letter},
    message::{id::MessageId, meta::Meta},
    operate,
    shard::Shard,
};
use futures_lite::FutureExt;
use mailrail_queue::{JobId, egress, policy::Lease, time::Wall};
use mailrail_spool::{MessageKey, SettleKind};
use smallvec::SmallVec;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

/// Messages, and octets of them, on their way to other shards at a time: they share syncs there, and are in memory meanwhile.
pub(crate) const AT_ONCE: usize = 128;
const AT_ONCE_OCTETS: usize = 16 << 20;
/// Messages that are looked at before other tasks have their turn.
const SLICE: usize = 256;
/// Between two walks over all that is stranded: so many times as long as the last one worked.
const REST: u32 = 4;
/// How long mail that its new owner could not take stays, before that is asked again.
pub(crate) const NOT_TAKEN: Duration = Duration::from_secs(5);
/// Between two looks for room.
const LOOK: Duration = Duration::from_millis(10);

/// After a new snapshot: jobs of leases that are gone have none; [`place_stranded`] gives them another one.
pub(crate) fn strand_lost(shard: &Shard) {
    shard.queue.borrow_mut().strand_lost(|address| shard.owns(address));
}

/// Jobs without a leased IP may be given one now, or belong elsewhere: [`run`] looks.
pub(crate) fn place_stranded(shard: &Shard) {
    shard.stranded.raise();
}

/// Gives stranded mail a leased IP, or to the shard that has one, each time that there may be one. *One task per shard.*
pub(crate) async fn run(shard: Rc<Shard>) {
    while !shard.stopping.get() {
        shard.stranded.wait().await;
        if shard.queue.borrow().stranded() == 0 {
            continue;
        }
        let worked = walk(&shard).await;
        shard.work.raise();
        // A million messages that none may take must not be all that a shard thinks of.
        glommio::timer::sleep(worked * REST).await;
    }
}

/// Looks at all that is stranded, a little at a time; returns how long that took, without what others did meanwhile.
async fn walk(shard: &Rc<Shard>) -> Duration {
    shard.queue.borrow_mut().begin_placing();
    let (mut behind, mut away, mut worked) = (None, Vec::new(), Duration::ZERO);
    loop {
        let began = clock::mono();
        let snapshot = shard.policy();
        let (keys, last) = shard.queue.borrow().stranded_behind(behind, SLICE);
        for key in keys {
            match destination(shard, &snapshot, key) {
                Some((address, owner)) if owner == shard.number => {
                    let mut queue = shard.queue.borrow_mut();
                    let lease = queue.lease_id(address);
                    queue.place_stranded(clock::mono(), clock::wall(), key, lease);
                }
                // Taken out at once: to choose counts, and must not be done again for what is on its way.
                Some((address, owner)) => {
                    let jobs = shard.queue.borrow_mut().take_stranded(key);
                    operate::heard::set_off(shard, jobs.iter().map(|(job, _)| *job));
                    away.push(Leaving { key, jobs, address, owner });
                }
                None => {}
            }
        }
        worked += clock::mono().since(began);
        if last.is_none() || shard.stopping.get() {
            break;
        }
        behind = last;
        shard.work.raise();
        glommio::executor().yield_now().await;
    }
    if !away.is_empty() {
        glommio::spawn_local(send_away(Rc::clone(shard), away)).detach();
    }
    worked
}

/// Stranded jobs of a message, handed out, and whose they are to be.
struct Leaving {
    key: MessageKey,
    /// Only these: other recipients of the message may be on their way to their hosts.
    jobs: Vec<(JobId, SmallVec<[u16; 2]>)>,
    address: IpAddr,
    owner: u16,
}

/// Hands stranded messages over, many at a time: each waits for a sync of its new owner, which is the same one for all.
async fn send_away(shard: Rc<Shard>, away: Vec<Leaving>) {
    let (mut away, mut all_went) = (away.into_iter().peekable(), true);
    while away.peek().is_some() && !shard.stopping.get() {
        let (mut batch, mut octets) = (Vec::new(), 0);
        while batch.len() < AT_ONCE && octets < AT_ONCE_OCTETS {
            let Some(one) = away.next() else { break };
            octets += shard.spool.borrow().message(one.key).map_or(0, |view| view.pieces().map(<[u8]>::len).sum());
            batch.push(glommio::spawn_local(send_stranded(Rc::clone(&shard), one)));
        }
        for one in batch {
            all_went &= one.await;
        }
    }
    if !all_went && !shard.stopping.get() {
        glommio::timer::sleep(NOT_TAKEN).await;
        place_stranded(&shard);
    }
}

/// False: its new owner could not take it.
async fn send_stranded(shard: Rc<Shard>, Leaving { key, jobs, address, owner }: Leaving) -> bool {
    let recipients: Vec<u16> = jobs.iter().flat_map(|(_, numbers)| numbers.iter().copied()).collect();
    let went = hand_over(&shard, key, Some(&recipients), (address, None), owner).await;
    let mut queue = shard.queue.borrow_mut();
    for (job, _) in jobs {
        if went { queue.drop_job(job) } else { queue.stay(job) }
    }
    went
}

/// The leased IP and shard that a message should have now.
fn destination(shard: &Shard, snapshot: &Snapshot, key: MessageKey) -> Option<(IpAddr, u16)> {
    let spool = shard.spool.borrow();
    let view = spool.message(key)?;
    let meta = Meta::decode(view.meta)?;
    let policy = &snapshot.policy;
    // Sticky: a message keeps its leased IP as long as there is one, wherever that is now, and no other account has it.
    let may =
        |lease: &&Lease| policy.pools.get(lease.pool as usize).is_some_and(|of| egress::may_use(of, meta.account));
    let kept = meta.lease.and_then(|address| policy.leases.iter().find(|lease| lease.address == address)).filter(may);
    if let Some(lease) = kept {
        return Some((lease.address, lease.shard));
    }
    let pool = egress::pool_again(policy, meta.account, meta.pool, meta.lease.is_some())?;
    let hash = MessageId::from_bytes(view.id).map_or(0, |id| id.hash());
    let chosen = mesh::choose(shard, policy, pool, meta.flags.dsn, meta.recipients.len(), hash).lease()?;
    let lease = policy.leases.get(chosen.0 as usize)?;
    Some((lease.address, mesh::owner(shard, lease)))
}

/// Gives a message, or `only` these recipients of it, to the shard that owns a leased IP; `to` may name another pool than
/// that of the message. False: they are still here.
///
/// That they have gone must be recorded here before anybody hears that they have: what only this process knows, the next
/// start does not, and both shards would send them.
pub(crate) async fn hand_over(
    shard: &Rc<Shard>,
    key: MessageKey,
    only: Option<&[u16]>,
    to: (IpAddr, Option<&str>),
    owner: u16,
) -> bool {
    // A shard that has just started makes room first.
    if !has_room(shard).await {
        return false;
    }
    let Some(parcel) = pack(shard, key, only, to) else { return false };
    let Parcel { id, accepted, meta, pieces, open } = parcel;
    let mut chunks = Vec::new();
    let (last, before) = pieces.split_last().map_or((&[][..], &[][..]), |(last, before)| (last.as_slice(), before));
    for piece in before {
        match mesh::append_chunk(shard, owner, &[piece]).await {
            Ok(chunk) => chunks.push(chunk),
            Err(full) => {
                give_up(shard, owner, &chunks, &full).await;
                return false;
            }
        }
    }
    let recipients = open.len() as u16;
    let letter = Letter { id: &id, accepted, meta: &meta, recipients, chunks: &chunks, parts: &[last] };
    match mesh::give(shard, owner, letter).await {
        Ok(there) => {
            // Others may have taken the room meanwhile.
            if !has_room(shard).await || !shard.spool.borrow_mut().settle(key, &open, SettleKind::Moved, &[]).recorded {
                // The copy is held there, and the next start lets one of the two go.
                return false;
            }
            release(shard, owner, there);
            true
        }
        Err(full) => {
            give_up(shard, owner, &chunks, &full).await;
            false
        }
    }
}

/// Waits until an outcome can be recorded; false once this shard is about to end.
async fn has_room(shard: &Shard) -> bool {
    while !shard.may_deliver() {
        if shard.stopping.get() || shard.spool.borrow().failure().is_some() {
            return false;
        }
        shard.chores.raise();
        shard.room.wait().or(async { glommio::timer::sleep(LOOK).await }).await;
    }
    true
}

/// Once the settling here is durable, the new owner may send. If this shard ends before, the next start sees to it.
fn release(shard: &Rc<Shard>, owner: u16, there: MessageKey) {
    let (shard, position) = (Rc::clone(shard), shard.spool.borrow().position());
    let number = shard.landing.begin();
    glommio::spawn_local(async move {
        if commit::durable(&shard, position).await.is_ok() {
            mesh::release(&shard, owner, there).await;
        }
        shard.landing.under_way.borrow_mut().remove(&number);
    })
    .detach();
}

/// Mail that has left this shard's queue and is not in that of its new owner yet. *One per shard.*
#[derive(Debug, Default)]
pub(crate) struct Landing {
    begun: Cell<u64>,
    /// By number, in the order in which they began.
    under_way: RefCell<BTreeSet<u64>>,
}

impl Landing {
    fn begin(&self) -> u64 {
        let number = self.begun.get();
        self.begun.set(number + 1);
        self.under_way.borrow_mut().insert(number);
        number
    }
}

/// Waits until all that has left this shard by now is in the queues of its new owners; less if this shard is about to end.
pub(crate) async fn landed(shard: &Shard) {
    let begun = shard.landing.begun.get();
    let is_under_way = || shard.landing.under_way.borrow().first().is_some_and(|first| *first < begun);
    while is_under_way() && !shard.stopping.get() {
        glommio::timer::sleep(LOOK).await;
    }
}

/// A message on its way to another shard.
struct Parcel {
    id: Vec<u8>,
    accepted: Wall,
    meta: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    /// Numbers, here, of the recipients that go.
    open: Vec<u16>,
}

fn pack(
    shard: &Shard,
    key: MessageKey,
    only: Option<&[u16]>,
    (address, pool): (IpAddr, Option<&str>),
) -> Option<Parcel> {
    let spool = shard.spool.borrow();
    let view = spool.message(key)?;
    let meta = Meta::decode(view.meta)?;
    let goes = |n: &u16| !view.recipients[usize::from(*n)].settled && only.is_none_or(|only| only.contains(n));
    let open: Vec<u16> = (0..view.recipients.len() as u16).filter(goes).collect();
    let mut encoded = Vec::new();
    // The new owner must find its own leased IP in it, or would look for another owner.
    let pool = pool.unwrap_or(meta.pool);
    Meta { lease: Some(address), pool, ..meta.moved(&open) }.encode(&mut encoded);
    let pieces = view.pieces().map(<[u8]>::to_vec).collect();
    Some(Parcel { id: view.id.to_vec(), accepted: Wall(view.accepted_ms), meta: encoded, pieces, open })
}

/// The message stays here, and is asked about again.
async fn give_up(shard: &Rc<Shard>, owner: u16, chunks: &[mailrail_spool::ChunkRef], full: &mailrail_spool::Full) {
    shard.note_error(&format!("a message could not be moved to shard {owner}: {full}"));
    mesh::discard(shard, owner, chunks).await;
}

#[cfg(test)]
mod tests;
