//! What operators ordered of queued mail: durable before a shard hears of it, and told again after a restart until it is
//! carried out. *One per host, control thread.*

use super::{
    post::Post,
    store::{Store, StoreError},
};
use crate::{
    clock,
    control::api::types::orders::OrderReport,
    link::orders::{Action, Ask, Errand, Filter, Order, Progress, Suspension},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::oneshot;

/// Kinds in the store and in the audit.
const SUSPENSION: &str = "suspension";
const ORDER: &str = "order";
/// Orders that are remembered after they were carried out.
const REMEMBERED: usize = 100;

/// See the module.
pub(crate) struct Orders {
    store: Arc<Mutex<Store>>,
    post: Arc<Post>,
    suspensions: Mutex<Vec<Suspension>>,
    orders: Arc<Mutex<BTreeMap<u64, Arc<Given>>>>,
}

/// An order, under way or carried out.
pub(crate) struct Given {
    order: Arc<Order>,
    progress: Arc<Progress>,
    finished: AtomicBool,
    end: tokio::sync::Notify,
}

impl Given {
    pub(crate) fn report(&self) -> OrderReport {
        let Order { id, action, filter, pool, reason, who, given } = Order::clone(&self.order);
        let finished = self.finished.load(Ordering::Acquire);
        let (done, kept) = (self.progress.done(), self.progress.kept());
        OrderReport { id, action, filter, pool, reason, who, given, finished, done, kept }
    }

    /// Returns once it is carried out.
    pub(crate) async fn end(&self) {
        let end = self.end.notified();
        tokio::pin!(end);
        end.as_mut().enable();
        if !self.finished.load(Ordering::Acquire) {
            end.await;
        }
    }
}

impl Orders {
    /// With what the store has; the shards are told the suspensions.
    pub(crate) fn open(store: &Arc<Mutex<Store>>, post: &Arc<Post>) -> Result<Self, StoreError> {
        let (suspensions, given) = {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            (store.mail::<Suspension>(SUSPENSION)?, store.mail::<Order>(ORDER)?)
        };
        let given = given.into_iter().map(|order| (order.id, Arc::new(Given::new(order))));
        let orders = Self {
            store: Arc::clone(store),
            post: Arc::clone(post),
            suspensions: Mutex::new(suspensions),
            orders: Arc::new(Mutex::new(given.collect())),
        };
        if !orders.suspensions().is_empty() {
            orders.tell_suspensions();
        }
        Ok(orders)
    }

    /// Has the shards carry out what was not carried out before the last stop.
    pub(crate) fn begin_again(&self) {
        self.all().into_iter().for_each(|given| self.send(given));
    }

    /// Those in force.
    pub(crate) fn suspensions(&self) -> Vec<Suspension> {
        self.suspensions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell_suspensions(&self) {
        let rules: Arc<[Suspension]> = self.suspensions().into();
        self.post.tell_all(|| Ask::Suspensions(Arc::clone(&rules)).into());
    }

    /// Holds mail from now on. One with the same filter is there already: that one is returned. Blocks.
    pub(crate) fn suspend(&self, filter: Filter, reason: String, who: String) -> Result<Suspension, StoreError> {
        let made = clock::wall().0;
        // Held to the end, so that two that are the same are one.
        let mut suspensions = self.suspensions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = suspensions.iter().find(|known| known.filter == filter) {
            return Ok(known.clone());
        }
        let rule = self.store().add_mail(SUSPENSION, &who, made, |id| {
            let words = words(&filter, &reason);
            (Suspension { id, filter, reason, who: who.clone(), made }, words)
        })?;
        tracing::info!(who, id = rule.id, filter = %rule.filter, reason = rule.reason, "mail suspended");
        suspensions.push(rule.clone());
        drop(suspensions);
        self.tell_suspensions();
        Ok(rule)
    }

    /// Lets go what a suspension held; none: there is no such. Blocks.
    pub(crate) fn resume(&self, id: u64, who: &str) -> Result<Option<Suspension>, StoreError> {
        let mut suspensions = self.suspensions.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = suspensions.iter().position(|known| known.id == id) else { return Ok(None) };
        let text = words(&suspensions[at].filter, &suspensions[at].reason);
        self.store().end_mail((SUSPENSION, id), who, clock::wall().0, (&text, None))?;
        let rule = suspensions.remove(at);
        drop(suspensions);
        tracing::info!(who, id, filter = %rule.filter, "mail resumed");
        self.tell_suspensions();
        Ok(Some(rule))
    }

    /// Gives an order; `order.id` is made here. Blocks until it is durable, not until it is carried out. Called in the runtime.
    pub(crate) fn give(&self, order: Order) -> Result<Arc<Given>, StoreError> {
        let (who, given) = (order.who.clone(), order.given);
        let order = self.store().add_mail(ORDER, &who, given, |id| {
            let to = order.pool.as_ref().map_or_else(String::new, |pool| format!(" to pool {pool}"));
            let text = format!("{}{to}, {}", order.action.as_str(), words(&order.filter, &order.reason));
            (Order { id, ..order }, text)
        })?;
        tracing::info!(who, id = order.id, action = order.action.as_str(), filter = %order.filter, "order given");
        let given = Arc::new(Given::new(order));
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.insert(given.order.id, Arc::clone(&given));
        while orders.len() > REMEMBERED
            && let Some(old) = orders.values().find(|old| old.finished.load(Ordering::Acquire)).map(|old| old.order.id)
        {
            orders.remove(&old);
        }
        drop(orders);
        self.send(Arc::clone(&given));
        Ok(given)
    }

    /// All that are remembered, in the order in which they were given.
    pub(crate) fn all(&self) -> Vec<Arc<Given>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    pub(crate) fn one(&self, id: u64) -> Option<Arc<Given>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    fn send(&self, given: Arc<Given>) {
        let (store, post) = (Arc::clone(&self.store), Arc::clone(&self.post));
        tokio::spawn(async move {
            if !carry_out(&post, &given).await {
                // A shard has stopped: the order stays in the store, for the next start.
                return;
            }
            let forget = tokio::task::spawn_blocking(move || {
                forget(&store, &given);
                given
            });
            if let Ok(given) = forget.await {
                given.finished.store(true, Ordering::Release);
                given.end.notify_waiters();
            }
        });
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    fn new(order: Order) -> Self {
        let (order, progress) = (Arc::new(order), Arc::default());
        Self { order, progress, finished: AtomicBool::new(false), end: tokio::sync::Notify::new() }
    }
}

/// Has the shards carry an order out; false: one of them has stopped.
///
/// Mail on its way from one shard to another may come there after that one has looked. So they look again, until none says
/// that mail of the order has set off since; the first time it may have done so before all shards had heard of the order. A try
/// that comes a little later is no harm: that is asked for once.
async fn carry_out(post: &Post, given: &Given) -> bool {
    let is_retry = given.order.action == Action::Retry;
    let mut all_had_heard = false;
    loop {
        let Some(all_stayed) = look(post, given).await else { return false };
        if is_retry || all_had_heard && all_stayed {
            break;
        }
        all_had_heard = true;
    }
    post.tell_all(|| Ask::Done(given.order.id).into());
    true
}

/// Has each shard look through its queue; true if no mail of the order set off for another shard, none: one has stopped.
async fn look(post: &Post, given: &Given) -> Option<bool> {
    let tell = |shard| {
        let (finished, end) = oneshot::channel();
        let (order, progress) = (Arc::clone(&given.order), Arc::clone(&given.progress));
        post.tell(shard, Ask::Order(Errand { order, progress, finished }).into());
        end
    };
    let ends: Vec<_> = post.shards().map(tell).collect();
    let mut all_stayed = true;
    for end in ends {
        all_stayed &= end.await.ok()?;
    }
    Some(all_stayed)
}

/// An order is carried out.
fn forget(store: &Mutex<Store>, given: &Given) {
    let Order { id, action, filter, reason, who, .. } = &*given.order;
    let before = format!("{}, {}", action.as_str(), words(filter, reason));
    let after = format!("{} recipients done, {} kept", given.progress.done(), given.progress.kept());
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match store.end_mail((ORDER, *id), who, clock::wall().0, (&before, Some(&after))) {
        Ok(()) => tracing::info!(who, id, action = action.as_str(), after, "order carried out"),
        // It is done again at the next start, and finds nothing to do.
        Err(error) => tracing::error!("order {id} is carried out, and still in the store: {error}"),
    }
}

fn words(filter: &Filter, reason: &str) -> String {
    if reason.is_empty() { filter.to_string() } else { format!("{filter}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Command;
    use tokio::sync::mpsc;

    fn given(action: Action) -> Given {
        let (pool, reason, who) = (None, String::new(), String::new());
        Given::new(Order { id: 7, action, filter: Filter::default(), pool, reason, who, given: 1 })
    }

    /// How often each of two shards looks that say so of their mail, time after time: did all of it stay?
    async fn looks(action: Action, says: [Vec<bool>; 2]) -> [usize; 2] {
        let (ends, shards): (Vec<_>, Vec<_>) = says
            .into_iter()
            .map(|says| {
                let (commands, mut to_shard) = mpsc::channel(4);
                let shard = tokio::spawn(async move {
                    let (mut looks, mut says) = (0, says.into_iter());
                    loop {
                        match to_shard.recv().await {
                            Some(Command::Mail(Ask::Order(errand))) => {
                                looks += 1;
                                errand.finished.send(says.next().unwrap()).unwrap();
                            }
                            Some(Command::Mail(Ask::Done(7))) => return looks,
                            other => panic!("{other:?}"),
                        }
                    }
                });
                (commands, shard)
            })
            .unzip();
        assert!(carry_out(&Post::new(ends), &given(action)).await);
        let mut counts = [0; 2];
        for (count, shard) in counts.iter_mut().zip(shards) {
            *count = shard.await.unwrap();
        }
        counts
    }

    #[tokio::test]
    async fn shards_look_until_no_mail_has_set_off_since_all_had_heard_of_the_order() {
        assert_eq!(looks(Action::Cancel, [vec![true; 2], vec![true; 2]]).await, [2, 2]);
        assert_eq!(looks(Action::Cancel, [vec![false, true], vec![true; 2]]).await, [2, 2]);
        assert_eq!(looks(Action::Bounce, [vec![true, false, true], vec![true; 3]]).await, [3, 3]);
        assert_eq!(looks(Action::Reroute, [vec![true; 4], vec![true, false, false, true]]).await, [4, 4]);
        assert_eq!(looks(Action::Retry, [vec![false], vec![true]]).await, [1, 1], "a try twice is no order twice");
    }

    #[tokio::test]
    async fn an_order_is_not_carried_out_while_a_shard_has_stopped() {
        let (commands, to_shard) = mpsc::channel(4);
        drop(to_shard);
        assert!(!carry_out(&Post::new(vec![commands]), &given(Action::Cancel)).await);
    }
}
