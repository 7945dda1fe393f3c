//! Shard ↔ shard: the choice of the owner, the hand-over before the append, and what is needed to choose fairly.
//!
//! A message has one owner from the moment it is appended. Before that, the receiving shard gives envelope and content
//! over and answers 250 when the owner says durable; what it holds meanwhile is its own client's wait.

use crate::{
    flow::{self, Proof},
    shard::Shard,
};
use mailrail_queue::{egress, policy::Policy, time::Wall};
use mailrail_spool::{ChunkRef, Full, NewMessage};
use rustc_hash::FxHashMap;
use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc, time::Duration};
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

/// What one shard asks of another.
pub(crate) enum Request {
    /// Keep this piece.
    Chunk { content: Vec<u8>, answer: oneshot::Sender<Result<ChunkRef, Full>> },
    /// Keep this message; answer when it is durable.
    Message { letter: Box<OwnedLetter>, answer: oneshot::Sender<Result<(), Full>> },
    /// These pieces will not be used.
    Discard(Vec<ChunkRef>),
    /// What the sender has assigned to each leased IP of late.
    Assigned { by: u16, counts: Vec<(IpAddr, u64)> },
}

/// A shard's view of the others. *One per shard.*
pub(crate) struct Mesh {
    pub(crate) peers: Vec<mpsc::Sender<Request>>,
    mine: RefCell<FxHashMap<IpAddr, u64>>,
    others: RefCell<Vec<FxHashMap<IpAddr, u64>>>,
}

impl Mesh {
    pub(crate) fn new(peers: Vec<mpsc::Sender<Request>>) -> Self {
        let others = RefCell::new(vec![FxHashMap::default(); peers.len()]);
        Self { peers, mine: RefCell::default(), others }
    }

    fn load(&self, address: IpAddr) -> u64 {
        let mine = self.mine.borrow().get(&address).copied().unwrap_or(0);
        mine + self.others.borrow().iter().filter_map(|other| other.get(&address)).sum::<u64>()
    }
}

/// The leased IP for a message of `pool`, and the shard that owns it. Without a lease this shard keeps it until there is
/// one.
pub(crate) fn choose(shard: &Shard, policy: &Policy, pool: Option<u32>, hash: u64) -> (Option<IpAddr>, u16, Arc<str>) {
    let Some(pool) = pool else { return (None, shard.number, Arc::from("")) };
    let name = policy.pools.get(pool as usize).map_or_else(|| Arc::from(""), |pool| Arc::clone(&pool.name));
    let load = |lease: mailrail_queue::policy::LeaseIndex| shard.mesh.load(policy.leases[lease.0 as usize].address);
    let Some(chosen) = egress::choose(policy, pool, load, shard.number, SLACK, hash) else {
        return (None, shard.number, name);
    };
    let lease = &policy.leases[chosen.0 as usize];
    *shard.mesh.mine.borrow_mut().entry(lease.address).or_default() += 1;
    let owner = if usize::from(lease.shard) < shard.mesh.peers.len() { lease.shard } else { shard.number };
    (Some(lease.address), owner, name)
}

/// Keeps a message in its owner's spool; returns when it is durable there.
pub(crate) async fn append(shard: &Rc<Shard>, owner: u16, letter: Letter<'_>) -> Result<Proof, Full> {
    if owner == shard.number {
        return flow::append_here(shard, &letter).await.map(Proof::Mine);
    }
    let (answer, answered) = oneshot::channel();
    let owned = Box::new(OwnedLetter {
        id: letter.id.to_vec(),
        accepted: letter.accepted,
        meta: letter.meta.to_vec(),
        recipients: letter.recipients,
        chunks: letter.chunks.to_vec(),
        content: letter.parts.concat(),
    });
    shard.stats.borrow_mut().handed_over += 1;
    ask(shard, owner, Request::Message { letter: owned, answer }).await?;
    answered.await.map_err(|_| gone())?.map(|()| Proof::Peer)
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

async fn ask(shard: &Rc<Shard>, owner: u16, request: Request) -> Result<(), Full> {
    shard.mesh.peers[usize::from(owner)].send(request).await.map_err(|_| gone())
}

fn gone() -> Full {
    Full::NoSpace("the shard of that IP has stopped".into())
}

/// Serves what the other shards ask of this one.
pub(crate) async fn serve(shard: Rc<Shard>, mut requests: mpsc::Receiver<Request>) {
    shard.is_loaded().await;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Chunk { content, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    let _ = answer.send(flow::with_room(&shard, |spool| spool.append_chunk(&[&content])).await);
                })
                .detach();
            }
            Request::Discard(chunks) => shard.spool.borrow_mut().discard_chunks(&chunks),
            Request::Assigned { by, counts } => {
                if let Some(other) = shard.mesh.others.borrow_mut().get_mut(usize::from(by)) {
                    *other = counts.into_iter().collect();
                }
            }
            Request::Message { letter, answer } => {
                let shard = Rc::clone(&shard);
                glommio::spawn_local(async move {
                    let parts = [letter.content.as_slice()];
                    let borrowed = Letter {
                        id: &letter.id,
                        accepted: letter.accepted,
                        meta: &letter.meta,
                        recipients: letter.recipients,
                        chunks: &letter.chunks,
                        parts: &parts,
                    };
                    let _ = answer.send(flow::append_here(&shard, &borrowed).await.map(drop));
                })
                .detach();
            }
        }
    }
}

/// Tells the other shards what this one assigned; old counts fade, so that a new IP is not flooded to catch up.
pub(crate) async fn gossip(shard: Rc<Shard>) {
    let mut quiet = true;
    while !shard.stopping.get() {
        glommio::timer::sleep(GOSSIP).await;
        let counts: Vec<_> = {
            let mut mine = shard.mesh.mine.borrow_mut();
            mine.retain(|_, count| {
                *count -= count.div_ceil(8);
                *count > 0
            });
            mine.iter().map(|(address, count)| (*address, *count)).collect()
        };
        if counts.is_empty() && quiet {
            continue;
        }
        quiet = counts.is_empty();
        for (number, peer) in shard.mesh.peers.iter().enumerate() {
            if number != usize::from(shard.number) {
                // A peer too busy to hear it now hears the next one.
                let _ = peer.try_send(Request::Assigned { by: shard.number, counts: counts.clone() });
            }
        }
    }
}
