//! Suspended mail: rules that are looked at when a connection would take a job, or would be opened for it.
//!
//! A rule holds what is queued and what comes later, and costs nothing while nothing is to be sent. Accounts that are
//! paused are rules too.

use super::select::{Numbers, Selector};
use crate::{
    clock,
    link::orders::{Filter, Suspension},
    shard::Shard,
};
use mailrail_queue::{LaneId, Seen, Taken};
use mailrail_spool::{MessageKey, Spool};
use std::{cell::RefCell, rc::Rc};

/// Jobs of a lane that are looked at at once.
const SIFTED: usize = 32;

/// The rules in force. *One per shard.*
#[derive(Debug, Default)]
pub(crate) struct Rules {
    told: RefCell<Vec<Suspension>>,
    active: RefCell<Rc<[Rule]>>,
}

#[derive(Debug)]
struct Rule {
    /// Names it while it lasts.
    name: String,
    selector: Selector,
    text: String,
}

impl Rules {
    pub(crate) fn any(&self) -> bool {
        !self.active.borrow().is_empty()
    }

    /// The recipients of a job that are suspended, and why, by the first rule that says so.
    pub(crate) fn suspended(
        &self,
        shard: &Shard,
        spool: &Spool,
        seen: &Seen<'_, MessageKey>,
    ) -> Option<(Numbers, String)> {
        let active = Rc::clone(&self.active.borrow());
        active.iter().find_map(|rule| {
            let picked = rule.selector.pick(shard, spool, seen);
            (!picked.is_empty()).then(|| (picked, rule.text.clone()))
        })
    }
}

/// These rules hold from now on.
pub(crate) fn replace(shard: &Rc<Shard>, rules: &[Suspension]) {
    *shard.rules.told.borrow_mut() = rules.to_vec();
    follow(shard);
}

/// Makes the rules again from what was told and from the accounts that are paused; what no rule holds any more goes on.
pub(crate) fn follow(shard: &Rc<Shard>) {
    let snapshot = shard.policy();
    let told = shard.rules.told.borrow();
    let mut rules: Vec<Rule> = told.iter().map(of_operator).collect();
    drop(told);
    let paused =
        snapshot.policy.accounts.iter().filter(|account| !account.sending_enabled && account.pause_holds_queue);
    rules.extend(paused.map(|account| of_account(&account.name)));
    let before = shard.rules.active.replace(rules.into());
    let now = Rc::clone(&shard.rules.active.borrow());
    if before.iter().any(|old| now.iter().all(|new| new.name != old.name)) {
        shard.queue.borrow_mut().release_held();
    }
    shard.work.raise();
}

fn of_operator(rule: &Suspension) -> Rule {
    let Suspension { id, filter, reason, who, .. } = rule;
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let text = format!("suspended by {who}, rule {id} ({filter}){why}");
    Rule { name: format!("rule {id}"), selector: Selector::new(filter), text }
}

fn of_account(name: &str) -> Rule {
    let filter = Filter { account: Some(name.to_owned()), ..Filter::default() };
    // What this host tells senders goes out.
    let selector = Selector::new(&filter).without_dsns();
    Rule { name: format!("account {name}"), selector, text: format!("sending of account {name} is paused") }
}

/// Puts aside what is suspended at the head of a lane. True if what is there then may go.
pub(crate) fn sift(shard: &Shard, lane: LaneId) -> bool {
    if !shard.rules.any() {
        return true;
    }
    for _ in 0..SIFTED {
        let held = {
            let (queue, spool) = (shard.queue.borrow(), shard.spool.borrow());
            let Some(seen) = queue.next_of(lane).and_then(|job| queue.look_at(job)) else { return false };
            let Some((picked, _)) = shard.rules.suspended(shard, &spool, &seen) else { return true };
            (seen.id(), picked)
        };
        if !shard.queue.borrow_mut().hold(clock::mono(), held.0, &held.1) {
            return true;
        }
    }
    // There may be many more: the others first.
    shard.work.raise();
    false
}

/// Puts aside what is suspended of a job that was handed out. False if it may go, and nothing was done.
pub(crate) fn catch(shard: &Shard, taken: &Taken<MessageKey>) -> bool {
    if !shard.rules.any() {
        return false;
    }
    let held = {
        let (queue, spool) = (shard.queue.borrow(), shard.spool.borrow());
        queue.look_at(taken.job).and_then(|seen| shard.rules.suspended(shard, &spool, &seen))
    };
    let Some((picked, _)) = held else { return false };
    let mut queue = shard.queue.borrow_mut();
    queue.give_back_unseen(taken.job, mailrail_queue::warmup::ledger::NeverSeen::nothing_written());
    queue.hold(clock::mono(), taken.job, &picked);
    true
}
