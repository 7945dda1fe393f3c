//! A wake-up for tasks of the same shard. *One per thing waited for; never shared between threads.*
//!
//! No message travels: who is woken looks again at the state it waits for. That keeps waiting free of lost wake-ups
//! (the state is checked before each wait on the same thread) and of allocation in steady state.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Wakes all tasks that wait, or the next one to wait if none does.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    epoch: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Wakes every waiter; the next wait returns at once if there was none.
    pub(crate) fn raise(&self) {
        self.epoch.set(self.epoch.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.raised.set(true);
        }
        for waker in waiting.drain(..) {
            waker.wake();
        }
    }

    /// Waits for the next `raise`.
    pub(crate) async fn wait(&self) {
        if self.raised.take() {
            return;
        }
        let seen = self.epoch.get();
        poll_fn(|context| {
            if self.epoch.get() != seen {
                self.raised.set(false);
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|known| known.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
