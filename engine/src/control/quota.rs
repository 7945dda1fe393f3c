//! The sending limits of all accounts: lends to the shards, and keeps durable what may have been sent. *One per host,
//! control thread.*
//!
//! Nothing is lent that a restart would forget: an account whose note must be written first has its questions wait for it,
//! and no other account's.

use super::{api::state::State, events::Batch};
use crate::{clock, event::encode::of_account};
use mailrail_queue::{
    admit::quota::{Ask, Grant, Limits, Note, Quota, Refusal, Used},
    policy::Policy,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot};

type Answer = oneshot::Sender<Result<Grant, Refusal>>;

/// See the module.
pub(crate) struct Quotas {
    shards: u32,
    all: Mutex<HashMap<Arc<str>, Account>>,
    events: mpsc::UnboundedSender<Batch>,
}

struct Account {
    quota: Quota,
    /// A note is being written; these ask again after it.
    writing: bool,
    waiting: VecDeque<(Ask, Answer)>,
}

impl Quotas {
    /// As the notes have it, with the limits of this policy. Warnings go to `events`.
    pub(crate) fn new(
        shards: u16,
        policy: &Policy,
        notes: impl IntoIterator<Item = (String, Note)>,
        events: mpsc::UnboundedSender<Batch>,
    ) -> Self {
        let (now, wall) = (clock::mono(), clock::wall());
        let shards = u32::from(shards);
        let restore = |(name, note): (String, Note)| {
            let limits = policy.account(&name).map_or(Limits::default(), |account| account.limits);
            let quota = Quota::restore(limits, shards, &note, now, wall);
            (Arc::from(name), Account { quota, writing: false, waiting: VecDeque::new() })
        };
        Self { shards, all: Mutex::new(notes.into_iter().map(restore).collect()), events }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the limits of a new policy. What was sent stays, also of an account that is gone: it may come back.
    pub(crate) fn set_limits(&self, policy: &Policy) {
        for (name, account) in self.all().iter_mut() {
            let limits = policy.account(name).map_or(Limits::default(), |account| account.limits);
            account.quota.set_limits(clock::mono(), limits);
        }
    }

    /// `SentLast24Hours` of an account.
    pub(crate) fn sent(&self, name: &str) -> u64 {
        self.all().get_mut(name).map_or(0, |account| account.quota.sent(clock::wall()))
    }

    /// A shard asks for a loan.
    pub(crate) fn ask(&self, state: &Arc<State>, name: Arc<str>, ask: Ask, answer: Answer) {
        let mut all = self.all();
        if !all.contains_key(&name) {
            let Some(limits) = state.limits(&name) else { return };
            let quota = Quota::new(limits, self.shards, clock::mono(), clock::wall());
            all.insert(Arc::clone(&name), Account { quota, writing: false, waiting: VecDeque::new() });
        }
        let Some(account) = all.get_mut(&name) else { return };
        if let Some(used) = ask.before {
            account.quota.used(clock::mono(), clock::wall(), used);
        }
        account.waiting.push_back((Ask { before: None, ..ask }, answer));
        if let Some(note) = account.serve() {
            keep(Arc::clone(state), Arc::clone(&name), note);
        }
        self.warn(&name, account);
    }

    /// A shard tells what it used.
    pub(crate) fn used(&self, name: &Arc<str>, used: Used) {
        let mut all = self.all();
        if let Some(account) = all.get_mut(name) {
            account.quota.used(clock::mono(), clock::wall(), used);
            self.warn(name, account);
        }
    }

    /// Tells once that a part of the daily quota is used up.
    fn warn(&self, name: &str, account: &mut Account) {
        let Some(percent) = account.quota.warning(clock::wall()) else { return };
        let sent = account.quota.sent(clock::wall());
        tracing::warn!(account = name, percent, sent, "daily sending quota");
        let lines = of_account(&format!("quota.{percent}"), clock::wall(), name, &[("sentLast24Hours", sent)]);
        // Of no shard: nobody waits for its acknowledgement.
        let _ = self.events.send(Batch { shard: u16::MAX, cursor: 0, lines });
    }

    fn written(&self, state: &Arc<State>, name: &Arc<str>, note: &Note, durable: bool) {
        let mut all = self.all();
        let Some(account) = all.get_mut(name) else { return };
        account.writing = false;
        if !durable {
            // Those who ask hear nothing but that it cannot be said now.
            account.waiting.clear();
            return;
        }
        account.quota.confirm(note);
        if let Some(note) = account.serve() {
            keep(Arc::clone(state), Arc::clone(name), note);
        }
    }
}

impl Account {
    /// Answers in order, as far as it can; a note that must be written before more can be lent.
    fn serve(&mut self) -> Option<Note> {
        while !self.writing
            && let Some((ask, answer)) = self.waiting.pop_front()
        {
            match self.quota.grant(clock::mono(), clock::wall(), ask.recipients, ask.wish) {
                Err(Refusal::Note) => {
                    self.waiting.push_front((ask, answer));
                    self.writing = true;
                    return self.quota.note();
                }
                // Who asked and is gone counts as having used it: its client is gone too, and that is rare.
                granted => drop(answer.send(granted)),
            }
        }
        None
    }
}

/// Makes a note durable where blocking is allowed, then serves who waits for it.
fn keep(state: Arc<State>, name: Arc<str>, note: Note) {
    tokio::spawn(async move {
        let (store, of, written) = (Arc::clone(&state.store), Arc::clone(&name), note.clone());
        let kept = tokio::task::spawn_blocking(move || {
            store.lock().unwrap_or_else(PoisonError::into_inner).keep_note(&of, &written)
        });
        let durable = match kept.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(account = &*name, "nothing is lent of the daily quota: {error}");
                false
            }
            Err(_) => false,
        };
        state.quotas.written(&state, &name, &note, durable);
    });
}
