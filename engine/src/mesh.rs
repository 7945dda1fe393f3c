//! Shard ↔ shard: the choice of the owner, the hand-over before the append, and what is needed to choose fairly.
//!
//! A message has one owner from the moment it is appended. Before that, the receiving shard gives envelope and content
//! over and answers 250 when the owner says durable; what it holds meanwhile is its own client's wait.

use crate::{
    claims::{self, Claim},
    clock,
    flow::{self, Proof},
    link::Overflowed,
    rehome,
    shard::Shard,
    warmup::{self, Counted, Told},
};
use futures_lite::FutureExt;
use mailrail_queue::{
    Left,
    egress::{self, Ask, Choice, News},
    policy::{Lease, LeaseIndex, Policy, PoolKind},
    time::Wall,
};
use mailrail_spool::{ChunkRef, Full, MessageKey, NewMessage};
use rustc_hash::FxHashMap;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for one shard; each holds at most one message or piece.
pub(crate) const REQUESTS: usize = 256;
/// How often shards tell each other what they assigned.
const GOSSIP: Duration = Duration::from_millis(250);
/// Messages that a lease of this shard may be ahead before a hand-over to another shard pays for itself.
const SLACK: u64 = 32;

/// A message that is to be kept, borrowed from whoever has it.
#[derive(Clone, Copy)]
pub(crate) struct Letter<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) accepted: Wall,
    pub(crate) meta: &'a [u8],
    pub(crate) recipients: u16,
    pub(crate) chunks: &'a [ChunkRef],
    pub(crate) parts: &'a [&'a [u8]],
}

impl Letter<'_> {
    pub(crate) fn as_new(&self) -> NewMessage<'_> {
        let Self { id, accepted, meta, recipients, chunks, parts } = *self;
        NewMessage { id, accepted_ms: accepted.0, meta, recipients, chunks, parts }
    }

    /// Bytes of content.
    pub(crate) fn size(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(ChunkRef::len).sum();
        chunks + self.parts.iter().map(|part| part.len()).sum::<usize>()
    }
}

/// The same, owned, for the way to another shard.
pub(crate) struct OwnedLetter {
    id: Vec<u8>,
    accepted: Wall,
    meta: Vec<u8>,
    recipients: u16,
    chunks: Vec<ChunkRef>,
    content: Vec<u8>,
}

impl OwnedLetter {
    fn of(letter: &Letter<'_>) -> Self {
        Self {
            id: letter.id.to_vec(),
            accepted: letter.accepted,
            meta: letter.meta.to_vec(),
            recipients: letter.recipients,
            chunks: letter.chunks.to_vec(),
            content: letter.parts.concat(),
        }
    }

    /// Appends it; returns when it is durable.
    async fn keep(&self, shard: &Rc<Shard>) -> Result<MessageKey, Full> {
        let Self { ref id, accepted, ref meta, recipients, ref chunks, ref content } = *self;
        let parts = [content.as_slice()];
        let letter = Letter { id, accepted, meta, recipients, chunks, parts: &parts };
        flow::append_held(shard, &letter).await.map(|(key, _)| key)
    }
}

/// What one shard asks of another.
pub(crate) enum Request {
    /// Keep this piece.
    Chunk { content: Vec<u8>, answer: oneshot::Sender<Result<ChunkRef, Full>> },
    /// Keep this message; answer when it is durable.
    Message { letter: Box<OwnedLetter>, answer: oneshot::Sender<Result<(), Full>> },
    /// Keep this message of the sender's, and hold it; answer when it is durable.
    Take { letter: Box<OwnedLetter>, answer: oneshot::Sender<Result<MessageKey, Full>> },
    /// The sender has settled, durably, what it gave: it is the receiver's to deliver. Answer when it is queued.
    Moved { key: MessageKey, answer: oneshot::Sender<()> },
    /// What was moved to the sender, before a start; answer what of it the sender is to give up.
    Claims { by: u16, claims: Arc<[Claim]>, answer: oneshot::Sender<Vec<Claim>> },
    /// The sender has heard all claims, and what it gave up is durable.
    Cleared,
    /// These pieces will not be used.
    Discard(Vec<ChunkRef>),
    /// What the sender has assigned to each leased IP of late, and what the plans of its own let go.
    Assigned { by: u16, counts: Vec<(IpAddr, u64)>, left: Vec<(IpAddr, Left)> },
    /// The sender was given this lease by the snapshot `version`: what is known of its ledger?
    Ledger { of: Counted, version: u64, answer: oneshot::Sender<Told> },
}

/// A shard's view of the others. *One per shard.*
pub(crate) struct Mesh {
    pub(crate) peers: Vec<mpsc::Sender<Request>>,
    mine: RefCell<FxHashMap<IpAddr, u64>>,
    others: RefCell<Vec<FxHashMap<IpAddr, u64>>>,
    /// What the plans of leased IPs of other shards let go, as last heard, less what was given to them since.
    left: RefCell<FxHashMap<IpAddr, Left>>,
    /// A choice was made without knowing all that it depends on: what waits is asked about again.
    unsure: Cell<bool>,
    /// Recipients that overflowed, by account, own pool and pool used.
    overflowed: RefCell<BTreeMap<[Box<str>; 3], u64>>,
}

impl Mesh {
    pub(crate) fn new(peers: Vec<mpsc::Sender<Request>>) -> Self {
        let others = RefCell::new(vec![FxHashMap::default(); peers.len()]);
        Self {
            peers,
            mine: RefCell::default(),
            others,
            left: RefCell::default(),
            unsure: Cell::new(false),
            overflowed: RefCell::default(),
        }
    }

    /// What overflowed since start.
    pub(crate) fn overflowed(&self) -> Vec<Overflowed> {
        let all = self.overflowed.borrow();
        let each = all.iter().map(|([account, from, to], recipients)| Overflowed {
            account: account.to_string(),
            from_pool: from.to_string(),
            to_pool: to.to_string(),
            reason: "warmup".into(),
            recipients: *recipients,
        });
        each.collect()
    }

    pub(crate) fn count_overflow(&self, policy: &Policy, from: u32, to: u32, recipients: usize) {
        let (Some(from), Some(to)) = (policy.pools.get(from as usize), policy.pools.get(to as usize)) else { return };
        let names = [egress::account_of(from), &from.name, &to.name].map(Box::from);
        *self.overflowed.borrow_mut().entry(names).or_default() += recipients as u64;
    }

    fn load(&self, address: IpAddr) -> u64 {
        let mine = self.mine.borrow().get(&address).copied().unwrap_or(0);
        mine + self.others.borrow().iter().filter_map(|other| other.get(&address)).sum::<u64>()
    }
}

/// What this shard knows of all leased IPs.
struct Known<'a> {
    shard: &'a Shard,
    policy: &'a Policy,
    unsure: Cell<bool>,
}

impl News for Known<'_> {
    fn load(&self, lease: LeaseIndex) -> u64 {
        self.policy.leases.get(lease.0 as usize).map_or(0, |lease| self.shard.mesh.load(lease.address))
    }

    fn left(&self, lease: LeaseIndex) -> Left {
        let Some(lease) = self.policy.leases.get(lease.0 as usize) else { return Left::Unknown };
        let managed = self.policy.pools.get(lease.pool as usize).is_some_and(|pool| pool.kind == PoolKind::Managed);
        if lease.warmup.is_none() || managed {
            // Of a managed pool only the provider says whether there is room: asked about once that is known.
            return Left::Free;
        }
        let left = if lease.shard == self.shard.number {
            let mut queue = self.shard.queue.borrow_mut();
            let id = queue.lease_id(lease.address);
            queue.left(clock::mono(), clock::wall(), id)
        } else {
            self.shard.mesh.left.borrow().get(&lease.address).copied().unwrap_or(Left::Unknown)
        };
        if left == Left::Unknown {
            self.unsure.set(true);
        }
        left
    }
}

/// The leased IP for a message of `pool` with so many recipients, and how it came to it.
pub(crate) fn choose(shard: &Shard, policy: &Policy, pool: u32, of_host: bool, recipients: usize, hash: u64) -> Choice {
    let known = Known { shard, policy, unsure: Cell::new(false) };
    let choice = egress::choose(policy, Ask { pool, of_host, local_shard: shard.number, slack: SLACK, hash }, &known);
    let Some(lease) = choice.lease().and_then(|lease| policy.leases.get(lease.0 as usize)) else {
        shard.mesh.unsure.set(shard.mesh.unsure.get() || known.unsure.get());
        return choice;
    };
    match choice {
        Choice::Over(_) => shard.mesh.count_overflow(policy, pool, lease.pool, recipients),
        Choice::Go(_) => {}
        Choice::Wait(_) | Choice::Reject(_) => {
            shard.mesh.unsure.set(shard.mesh.unsure.get() || known.unsure.get());
            return choice;
        }
    }
    *shard.mesh.mine.borrow_mut().entry(lease.address).or_default() += 1;
    if let Some(Left::Warming(left)) = shard.mesh.left.borrow_mut().get_mut(&lease.address) {
        *left = left.saturating_sub(u32::try_from(recipients).unwrap_or(u32::MAX));
    }
    choice
}

/// The shared leased IP for mail with so many recipients that overflows from the pool `from`; it is counted as such.
pub(crate) fn choose_shared(
    shard: &Shard,
    policy: &Policy,
    from: u32,
    recipients: usize,
    hash: u64,
) -> Option<LeaseIndex> {
    let known = Known { shard, policy, unsure: Cell::new(false) };
    let ask = Ask { pool: from, of_host: false, local_shard: shard.number, slack: SLACK, hash };
    let chosen = egress::choose_shared(policy, ask, &known)?;
    let lease = policy.leases.get(chosen.0 as usize)?;
    shard.mesh.count_overflow(policy, from, lease.pool, recipients);
    *shard.mesh.mine.borrow_mut().entry(lease.address).or_default() += 1;
    Some(chosen)
}

/// The shard to give the mail of a lease to.
pub(crate) fn owner(shard: &Shard, lease: &Lease) -> u16 {
    if usize::from(lease.shard) < shard.mesh.peers.len() { lease.shard } else { shard.number }
}

/// What another shard knows of a lease that the snapshot `version` gave to this one; none: it was not to be asked.
pub(crate) async fn ask_ledger(shard: &Rc<Shard>, peer: u16, of: Counted, version: u64) -> Option<Told> {
    let (answer, answered) = oneshot::channel();
    ask(shard, peer, Request::Ledger { of, version, answer }).await.ok()?;
    answered.await.ok()
}

/// Keeps a message in its owner's spool; returns when it is durable there.
pub(crate) async fn append(shard: &Rc<Shard>, owner: u16, letter: Letter<'_>) -> Result<Proof, Full> {
    if owner == shard.number {
        return flow::append_here(shard, &letter).await.map(Proof::Mine);
    }
    let (answer, answered) = oneshot::channel();
    shard.stats.borrow_mut().handed_over += 1;
    ask(shard, owner, Request::Message { letter: Box::new(OwnedLetter::of(&letter)), answer }).await?;
    answered.await.map_err(|_| gone())?.map(|()| Proof::Peer)
}

/// Gives a message of this shard's to another one, which holds it until [`release`]; returns when it is durable there.
pub(crate) async fn give(shard: &Rc<Shard>, owner: u16, letter: Letter<'_>) -> Result<MessageKey, Full> {
    let (answer, answered) = oneshot::channel();
    shard.stats.borrow_mut().handed_over += 1;
    ask(shard, owner, Request::Take { letter: Box::new(OwnedLetter::of(&letter)), answer }).await?;
    answered.await.map_err(|_| gone())?
}

/// What was given to another shard is that one's to deliver; returns when it is queued there, or that shard has ended.
pub(crate) async fn release(shard: &Rc<Shard>, owner: u16, key: MessageKey) {
    let (answer, answered) = oneshot::channel();
    if ask(shard, owner, Request::Moved { key, answer }).await.is_ok() {
        let _ = answered.await;
    }
}

/// Keeps a piece of a message in its owner's spool.
pub(crate) async fn append_chunk(shard: &Rc<Shard>, owner: u16, parts: &[&[u8]]) -> Result<ChunkRef, Full> {
    if owner == shard.number {
        return flow::with_room(shard, |spool| spool.append_chunk(parts)).await;
    }
    let (answer, answered) = oneshot::channel();
    ask(shard, owner, Request::Chunk { content: parts.concat(), answer }).await?;
    answered.await.map_err(|_| gone())?
}

/// Gives up pieces of a message.
pub(crate) async fn discard(shard: &Rc<Shard>, owner: u16, chunks: &[ChunkRef]) {
    if chunks.is_empty() {
        return;
    }
    if owner == shard.number {
        shard.spool.borrow_mut().discard_chunks(chunks);
    } else {
        let _ = ask(shard, owner, Request::Discard(chunks.to_vec())).await;
    }
}

/// Puts a request into another shard's channel.
///
/// # Errors
/// It has ended.
pub(crate) async fn ask(shard: &Rc<Shard>, owner: u16, request: Request) -> Result<(), Full> {
    shard.mesh.peers[usize::from(owner)].send(request).await.map_err(|_| gone())
}

fn gone() -> Full {
    Full::NoSpace("the shard of that IP has stopped".into())
}

/// Serves what the other shards ask of this one. Mail waits until what the spool held at the start is in the queue.
pub(crate) async fn serve(shard: Rc<Shard>, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Chunk { content, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    shard.is_loaded().await;
                    let _ = answer.send(flow::with_room(&shard, |spool| spool.append_chunk(&[&content])).await);
                })
                .detach();
            }
            Request::Discard(chunks) => shard.spool.borrow_mut().discard_chunks(&chunks),
            Request::Assigned { by, counts, left } if shard.loaded.get() => hear(&shard, by, counts, left),
            // The next one will be heard.
            Request::Assigned { .. } => {}
            Request::Ledger { of, version, answer } => {
                let told = if shard.loaded.get() { warmup::tell(&shard, &of, version) } else { Told::NotYet };
                let _ = answer.send(told);
            }
            Request::Message { letter, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    shard.is_loaded().await;
                    let kept = letter.keep(&shard).await;
                    let _ = answer.send(kept.map(|key| deliver(&shard, key)));
                })
                .detach();
            }
            Request::Take { letter, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    shard.is_loaded().await;
                    let _ = answer.send(letter.keep(&shard).await);
                })
                .detach();
            }
            Request::Moved { key, answer } => {
                deliver(&shard, key);
                let _ = answer.send(());
            }
            Request::Claims { by, claims, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    let _ = answer.send(claims::compare(&shard, by, &claims).await);
                })
                .detach();
            }
            Request::Cleared => shard.claims.clear(),
        }
    }
}

fn deliver(shard: &Shard, key: MessageKey) {
    flow::schedule(shard, key);
    shard.work.raise();
}

fn hear(shard: &Rc<Shard>, by: u16, counts: Vec<(IpAddr, u64)>, left: Vec<(IpAddr, Left)>) {
    if let Some(other) = shard.mesh.others.borrow_mut().get_mut(usize::from(by)) {
        *other = counts.into_iter().collect();
    }
    let mut known = shard.mesh.left.borrow_mut();
    let mut changed = false;
    for (ip, left) in left {
        let before = known.insert(ip, left);
        changed |= (before == Some(Left::Done)) != (left == Left::Done);
    }
    if changed || shard.mesh.unsure.replace(false) {
        // An IP that is done may take what others may not, and its account has no first one any more.
        drop(known);
        shard.queue.borrow_mut().ask_again();
        rehome::place_stranded(shard);
        shard.work.raise();
    }
}

/// Tells the other shards what this one assigned, and what its plans let go; old counts fade, so that a new IP is not
/// flooded to catch up.
pub(crate) async fn gossip(shard: Rc<Shard>) {
    let mut quiet = true;
    let mut done = 0;
    while !shard.stopping.get() {
        let pause = async { glommio::timer::sleep(GOSSIP).await };
        shard.news.wait().or(pause).await;
        let counts: Vec<_> = {
            let mut mine = shard.mesh.mine.borrow_mut();
            mine.retain(|_, count| {
                *count -= count.div_ceil(8);
                *count > 0
            });
            mine.iter().map(|(address, count)| (*address, *count)).collect()
        };
        let left = warmup::left(&shard);
        let now_done = left.iter().filter(|(_, left)| *left == Left::Done).count();
        if std::mem::replace(&mut done, now_done) != now_done || shard.mesh.peers.len() == 1 && shard.mesh.unsure.take()
        {
            shard.queue.borrow_mut().ask_again();
            rehome::place_stranded(&shard);
        }
        if counts.is_empty() && left.is_empty() && quiet {
            continue;
        }
        quiet = counts.is_empty() && left.is_empty();
        for (number, peer) in shard.mesh.peers.iter().enumerate() {
            if number != usize::from(shard.number) {
                // A peer too busy to hear it now hears the next one.
                let news = Request::Assigned { by: shard.number, counts: counts.clone(), left: left.clone() };
                let _ = peer.try_send(news);
            }
        }
    }
}
