//! A shard's part of the sending limits: each account's purse, and the question to the control thread when it is empty.
//! *One per shard.*
//!
//! Counts, and decides nothing: `mailrail_queue::admit::quota` does. An account without limits is never asked about, and at
//! any time one question an account is under way: who comes meanwhile waits for its answer, and may be served by it.

use crate::{
    clock,
    link::Report,
    shard::Shard,
    smtp::reply::{Enhanced, Reply},
};
use futures_lite::FutureExt;
use mailrail_queue::admit::quota::{Ask, Purse, Refusal};
use rustc_hash::FxHashMap;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::{Mutex, oneshot};

/// How often loans whose time is over are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// A control thread that answers later than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(crate) struct Purses(RefCell<FxHashMap<Arc<str>, Rc<Account>>>);

#[derive(Default)]
struct Account {
    purse: RefCell<Purse>,
    /// Held by who asks.
    asking: Mutex<()>,
    /// Recipients of the messages that wait.
    waiting: std::cell::Cell<u32>,
}

/// What was counted for a message, and where.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    grant: Option<u64>,
    recipients: u32,
}

impl Purses {
    fn of(&self, account: &Arc<str>) -> Rc<Account> {
        Rc::clone(self.0.borrow_mut().entry(Arc::clone(account)).or_default())
    }
}

/// Admits a message with so many recipients, whole.
///
/// # Errors
/// The reply that refuses it; nothing was counted.
pub(crate) async fn admit(shard: &Rc<Shard>, name: &Arc<str>, recipients: u32) -> Result<Counted, Reply> {
    let limited = shard.policy().policy.account(name).is_some_and(|account| !account.limits.is_unlimited());
    if !limited {
        return Ok(Counted::default());
    }
    let account = shard.purses.of(name);
    account.waiting.set(account.waiting.get() + recipients);
    let turn = account.asking.lock().await;
    let admitted = match account.take(recipients) {
        Ok(counted) => Ok(counted),
        Err(ask) => ask_for(shard, name, &account, ask).await,
    };
    drop(turn);
    account.waiting.set(account.waiting.get() - recipients);
    admitted
}

impl Account {
    fn take(&self, recipients: u32) -> Result<Counted, Ask> {
        let mut purse = self.purse.borrow_mut();
        purse.take(clock::mono(), recipients)?;
        Ok(Counted { grant: purse.grant(), recipients })
    }
}

async fn ask_for(shard: &Rc<Shard>, name: &Arc<str>, account: &Account, ask: Ask) -> Result<Counted, Reply> {
    let (answer, answered) = oneshot::channel();
    let ask = Ask { wish: ask.wish.max(account.waiting.get()), ..ask };
    let question = Report::Quota { account: Arc::clone(name), ask, answer };
    if shard.reports.send(question).await.is_err() {
        return Err(trouble());
    }
    let patience = async {
        glommio::timer::sleep(PATIENCE).await;
        Ok(Err(Refusal::Note))
    };
    // A loan that comes too late is told of by nobody, and counts as used.
    let grant = match answered.or(patience).await {
        Ok(Ok(grant)) => grant,
        Ok(Err(refusal)) => return Err(refused(refusal)),
        Err(_) => return Err(trouble()),
    };
    let left = account.purse.borrow_mut().fill(grant);
    // Taken before anybody else runs: what was lent for this message is used for it.
    let counted = account.take(ask.recipients);
    if let Some(used) = left {
        let _ = shard.reports.send(Report::QuotaUsed { account: Arc::clone(name), used }).await;
    }
    counted.map_err(|_| trouble())
}

/// The message was not kept: it does not count.
pub(crate) fn give_back(shard: &Shard, name: &Arc<str>, counted: Counted) {
    if let Some(grant) = counted.grant {
        shard.purses.of(name).purse.borrow_mut().give_back(grant, counted.recipients);
    }
}

/// Tells the control thread of loans whose time is over, until the shard has stopped.
pub(crate) async fn tell_used(shard: Rc<Shard>) {
    while !shard.stopped.get() {
        glommio::timer::sleep(LOOK).await;
        let now = clock::mono();
        let over: Vec<_> = {
            let mut purses = shard.purses.0.borrow_mut();
            let over = purses
                .iter()
                .filter_map(|(name, account)| Some((Arc::clone(name), account.purse.borrow_mut().expire(now)?)));
            let over = over.collect();
            let policy = shard.policy();
            purses.retain(|name, account| Rc::strong_count(account) > 1 || policy.policy.account(name).is_some());
            over
        };
        for (account, used) in over {
            if shard.reports.send(Report::QuotaUsed { account, used }).await.is_err() {
                return;
            }
        }
    }
}

fn refused(why: Refusal) -> Reply {
    let text = match why {
        Refusal::Rate(_) => "Throttling failure: Maximum sending rate exceeded.",
        Refusal::Quota(_) => "Throttling failure: Daily message quota exceeded.",
        Refusal::Note => return trouble(),
    };
    Reply::new(454, Enhanced(4, 7, 0), text)
}

fn trouble() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "Temporary service failure")
}
