//! Mail whose leased IP is not this shard's any more: another lease of its pool, here or on another shard.
//!
//! A message changes owner only by an append in the new owner's spool that is durable before it is settled here.

use crate::{
    clock,
    link::Snapshot,
    mesh::{self, Letter},
    message::{id::MessageId, meta::Meta},
    shard::Shard,
};
use mailrail_queue::{LeaseId, egress};
use mailrail_spool::{MessageKey, SettleKind};
use std::{net::IpAddr, rc::Rc};

/// After a new snapshot, and after start: jobs of leases that are gone are given another one.
pub(crate) fn after_change(shard: &Rc<Shard>) {
    let lost: Vec<LeaseId> = {
        let mut queue = shard.queue.borrow_mut();
        let used: std::collections::BTreeSet<_> = queue.lanes().map(|lane| lane.lease).collect();
        used.into_iter().filter(|address| !shard.owns(*address)).map(|address| queue.lease_id(address)).collect()
    };
    for lease in lost {
        shard.queue.borrow_mut().strand(lease);
    }
    place_stranded(shard);
}

/// Gives jobs without a leased IP one; those that belong elsewhere are handed over.
pub(crate) fn place_stranded(shard: &Rc<Shard>) {
    if shard.queue.borrow().stranded() == 0 {
        return;
    }
    let snapshot = shard.policy();
    let mut away = Vec::new();
    let mut placed = Vec::new();
    // The choice needs the spool and the mesh, not the queue: decide first, then tell the queue.
    let keys = shard.queue.borrow().stranded_keys();
    for key in keys {
        if shard.moving.borrow().contains(&key) {
            continue;
        }
        match destination(shard, &snapshot, key) {
            Some((address, owner)) if owner == shard.number => placed.push((key, address)),
            Some((address, owner)) => away.push((key, address, owner)),
            None => {}
        }
    }
    let mut queue = shard.queue.borrow_mut();
    let placed: Vec<_> = placed.into_iter().map(|(key, address)| (key, queue.lease_id(address))).collect();
    let choice: std::collections::BTreeMap<_, _> = placed.into_iter().collect();
    queue.assign(clock::mono(), clock::wall(), |key| choice.get(&key).copied());
    drop(queue);
    if !away.is_empty() {
        let shard = Rc::clone(shard);
        shard.moving.borrow_mut().extend(away.iter().map(|(key, _, _)| *key));
        glommio::spawn_local(async move {
            for (key, address, owner) in away {
                hand_over(&shard, key, address, owner).await;
                shard.moving.borrow_mut().remove(&key);
            }
        })
        .detach();
    }
    shard.work.raise();
}

/// The leased IP and shard that a message should have now.
fn destination(shard: &Shard, snapshot: &Snapshot, key: MessageKey) -> Option<(IpAddr, u16)> {
    let spool = shard.spool.borrow();
    let view = spool.message(key)?;
    let meta = Meta::decode(view.meta)?;
    let policy = &snapshot.policy;
    // Sticky: a message keeps its leased IP as long as there is one, wherever that is now.
    let kept = meta.lease.and_then(|address| policy.leases.iter().find(|lease| lease.address == address));
    if let Some(lease) = kept {
        return Some((lease.address, lease.shard));
    }
    let named = (!meta.pool.is_empty()).then_some(meta.pool);
    // A pool that is gone leaves its mail to the default one.
    let pool = egress::pool_of(policy, named).unwrap_or(policy.default_pool)?;
    let hash = MessageId::from_bytes(view.id).map_or(0, |id| id.hash());
    let (address, owner, _) = mesh::choose(shard, policy, Some(pool), hash);
    Some((address?, owner))
}

async fn hand_over(shard: &Rc<Shard>, key: MessageKey, address: IpAddr, owner: u16) {
    let copied = {
        let spool = shard.spool.borrow();
        let Some(view) = spool.message(key) else { return };
        let Some(meta) = Meta::decode(view.meta) else { return };
        let open: Vec<u16> =
            (0..view.recipients.len() as u16).filter(|n| !view.recipients[usize::from(*n)].settled).collect();
        let mut encoded = Vec::new();
        // The new owner must find its own leased IP in it, or would look for another owner.
        Meta { lease: Some(address), ..meta.moved(&open) }.encode(&mut encoded);
        (view.id.to_vec(), view.accepted_ms, encoded, view.pieces().map(<[u8]>::to_vec).collect::<Vec<_>>(), open)
    };
    let (id, accepted_ms, meta, pieces, open) = copied;
    let mut chunks = Vec::new();
    let (last, before) = pieces.split_last().map_or((&[][..], &[][..]), |(last, before)| (last.as_slice(), before));
    for piece in before {
        match mesh::append_chunk(shard, owner, &[piece]).await {
            Ok(chunk) => chunks.push(chunk),
            Err(full) => return give_up(shard, owner, &chunks, &full).await,
        }
    }
    let letter = Letter {
        id: &id,
        accepted: mailrail_queue::time::Wall(accepted_ms),
        meta: &meta,
        recipients: open.len() as u16,
        chunks: &chunks,
        parts: &[last],
    };
    match mesh::append(shard, owner, letter).await {
        Ok(_durable) => {
            shard.queue.borrow_mut().drop_stranded(key);
            let _ = shard.spool.borrow_mut().settle(key, &open, SettleKind::Moved, &[]);
            shard.dirty.raise();
        }
        Err(full) => give_up(shard, owner, &chunks, &full).await,
    }
}

/// The message stays here, stranded; it is looked at again with the next change or start.
async fn give_up(shard: &Rc<Shard>, owner: u16, chunks: &[mailrail_spool::ChunkRef], full: &mailrail_spool::Full) {
    shard.note_error(&format!("a message could not be moved to shard {owner}: {full}"));
    mesh::discard(shard, owner, chunks).await;
}
