//! Whose a recipient is that two spools hold, or one spool twice: a crash can come between the append at the new owner and
//! the settling at the old one, who may be the same. *One per shard, at its start.*
//!
//! A shard sends nothing of what was moved to it before the old owner says that its settling is durable
//! ([`Request::Moved`]). So where two shards hold a recipient at a start, neither has sent it since the move began, and
//! either may keep it: the one with the lower number does. Nothing is queued anywhere before all have agreed, and before what
//! was given up is durable; else the next crash would bring it back after it was sent.

use crate::{
    commit,
    mesh::{self, Request},
    message::meta::Meta,
    shard::Shard,
};
use futures_lite::FutureExt;
use mailrail_spool::{MessageKey, SettleKind};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// How often the others are looked for.
const POLL: Duration = Duration::from_millis(2);

/// Unsettled recipients of a message that was moved to who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    id: Box<[u8]>,
    recipients: Vec<Box<str>>,
}

/// How many of the other shards have got so far.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Have said what was moved to them.
    heard: Cell<usize>,
    /// Have made durable what they gave up.
    cleared: Cell<usize>,
}

impl Claims {
    pub(crate) fn clear(&self) {
        self.cleared.set(self.cleared.get() + 1);
    }
}

/// Comes to terms with the other shards. False: one of them has ended, so this one is about to.
pub(crate) async fn settle(shard: &Rc<Shard>) -> bool {
    let mut mine = moved(shard);
    if !mine.is_empty() {
        give_up_doubles(shard, mine).await;
        mine = moved(shard);
    }
    let others: Vec<u16> = (0..shard.mesh.peers.len() as u16).filter(|other| *other != shard.number).collect();
    let mine: Arc<[Claim]> = mine.into();
    for other in &others {
        let (answer, answered) = oneshot::channel();
        let request = Request::Claims { by: shard.number, claims: Arc::clone(&mine), answer };
        if mesh::ask(shard, *other, request).await.is_err() {
            return false;
        }
        let Ok(theirs) = answered.await else { return false };
        give_up(shard, &theirs).await;
    }
    until(shard, &shard.claims.heard, others.len()).await;
    let position = shard.spool.borrow().position();
    if commit::durable(shard, position).await.is_err() {
        return false;
    }
    for other in &others {
        if mesh::ask(shard, *other, Request::Cleared).await.is_err() {
            return false;
        }
    }
    until(shard, &shard.claims.cleared, others.len()).await;
    !shard.stopping.get()
}

async fn until(shard: &Shard, count: &Cell<usize>, all: usize) {
    while count.get() < all && !shard.stopping.get() {
        glommio::timer::sleep(POLL).await;
    }
}

/// All that was moved to this shard.
fn moved(shard: &Shard) -> Vec<Claim> {
    let mut claims = Vec::new();
    shard.spool.borrow().for_each_message(|_, view| {
        let Some(meta) = Meta::is_moved(view.meta).then(|| Meta::decode(view.meta)).flatten() else { return };
        let open = meta.recipients.iter().zip(view.recipients).filter(|(_, state)| !state.settled);
        let recipients = open.map(|(recipient, _)| recipient.address.into()).collect();
        claims.push(Claim { id: view.id.into(), recipients });
    });
    claims
}

/// Compares another shard's claims with what is here: gives up what it may keep, returns what it is to give up.
pub(crate) async fn compare(shard: &Shard, by: u16, claims: &[Claim]) -> Vec<Claim> {
    let mut here = Vec::new();
    if shard.number > by {
        give_up(shard, claims).await;
    } else {
        let claim = |(claim, found): (&Claim, Vec<Found>)| {
            let recipients = found.into_iter().map(|found| found.address).collect();
            Claim { id: claim.id.clone(), recipients }
        };
        here.extend(matches(shard, claims).into_iter().map(claim));
    }
    shard.claims.heard.set(shard.claims.heard.get() + 1);
    if !here.is_empty() {
        tracing::info!(
            shard = shard.number,
            messages = here.len(),
            other = by,
            "moves that a crash cut short: kept here"
        );
    }
    here
}

/// Settles what of these claims is here.
async fn give_up(shard: &Shard, claims: &[Claim]) {
    let found = matches(shard, claims);
    settle_moved(shard, found.into_iter().flat_map(|(_, found)| found).collect()).await;
}

/// What this shard has moved to itself, to another leased IP of its own, is here twice: it keeps the copy that it finds first.
async fn give_up_doubles(shard: &Shard, moved: Vec<Claim>) {
    let moved: FxHashSet<Box<[u8]>> = moved.into_iter().map(|claim| claim.id).collect();
    let mut kept: FxHashMap<(Box<[u8]>, Box<str>), MessageKey> = FxHashMap::default();
    let mut doubles = Vec::new();
    shard.spool.borrow().for_each_message(|key, view| {
        let Some(meta) = moved.contains(view.id).then(|| Meta::decode(view.meta)).flatten() else { return };
        let open = (0..).zip(meta.recipients.iter().zip(view.recipients)).filter(|(_, (_, state))| !state.settled);
        for (number, (recipient, _)) in open {
            let first = *kept.entry((view.id.into(), recipient.address.into())).or_insert(key);
            // A client may name a recipient twice in a message.
            if first != key {
                doubles.push(Found { key, number, address: recipient.address.into() });
            }
        }
    });
    settle_moved(shard, doubles).await;
}

/// That has to be recorded, or the next crash undoes it. A spool that was just opened makes room first; without room nothing
/// could be delivered either, so this waits as long as it takes.
async fn settle_moved(shard: &Shard, found: Vec<Found>) {
    while !found.is_empty() && !shard.may_deliver() {
        if shard.stopping.get() || shard.spool.borrow().failure().is_some() {
            return;
        }
        shard.chores.raise();
        shard.room.wait().or(async { glommio::timer::sleep(POLL).await }).await;
    }
    for Found { key, number, .. } in &found {
        let _ = shard.spool.borrow_mut().settle(*key, &[*number], SettleKind::Moved, &[]);
        shard.dirty.raise();
    }
}

/// A recipient of this shard's spool, not settled yet.
struct Found {
    key: MessageKey,
    number: u16,
    address: Box<str>,
}

/// What of these claims is in this shard's spool, too.
fn matches<'a>(shard: &Shard, claims: &'a [Claim]) -> Vec<(&'a Claim, Vec<Found>)> {
    if claims.is_empty() {
        return Vec::new();
    }
    // A message may have been moved in parts.
    let mut by_id: FxHashMap<&[u8], Vec<&Claim>> = FxHashMap::default();
    claims.iter().for_each(|claim| by_id.entry(&claim.id).or_default().push(claim));
    let mut all = Vec::new();
    shard.spool.borrow().for_each_message(|key, view| {
        let Some(claims) = by_id.get(view.id) else { return };
        let Some(meta) = Meta::decode(view.meta) else { return };
        for claim in claims {
            let wanted: FxHashSet<&str> = claim.recipients.iter().map(|address| &**address).collect();
            let open = (0..).zip(meta.recipients.iter().zip(view.recipients)).filter(|(_, (_, state))| !state.settled);
            let found = open.filter(|(_, (recipient, _))| wanted.contains(recipient.address));
            let found: Vec<_> =
                found.map(|(number, (r, _))| Found { key, number, address: r.address.into() }).collect();
            if !found.is_empty() {
                all.push((*claim, found));
            }
        }
    });
    all
}

#[cfg(test)]
mod tests;
