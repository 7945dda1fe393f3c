//! A wake-up for tasks of the same shard. *One per thing waited for; never shared between threads.*
//!
//! No message travels: who is woken looks again at the state it waits for. That keeps waiting free of lost wake-ups
//! (the state is checked before each wait on the same thread) and of allocation in steady state. Who gives up waiting
//! leaves nothing behind: a signal that is raised once in a server's life has a waiter for each client there ever was.

use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Wakes all tasks that wait, or the next one to wait if none does.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    epoch: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

impl Signal {
    /// Wakes every waiter; the next wait returns at once if there was none.
    pub(crate) fn raise(&self) {
        self.epoch.set(self.epoch.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.raised.set(true);
        }
        for waker in waiting.drain() {
            waker.wake();
        }
    }

    /// Waits for the next `raise`.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { signal: self, epoch: self.epoch.get(), place: None }
    }
}

/// See [`Signal::wait`].
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    signal: &'a Signal,
    /// Of the signal, when the waiting began.
    epoch: u64,
    /// In the signal's list, as long as its epoch is the same.
    place: Option<usize>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let signal = self.signal;
        if signal.epoch.get() != self.epoch || signal.raised.get() {
            signal.raised.set(false);
            return Poll::Ready(());
        }
        let mut waiting = signal.waiting.borrow_mut();
        match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(known) => known.clone_from(context.waker()),
            None => self.place = Some(waiting.insert(context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // Once it was raised the list began anew: the place is another's.
        if let Some(place) = self.place
            && self.signal.epoch.get() == self.epoch
        {
            let _ = self.signal.waiting.borrow_mut().try_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn everyone_who_waits_is_woken_and_a_raise_before_counts_once() {
        let signal = Signal::default();
        signal.raise();
        assert!(block_on(poll_once(signal.wait())).is_some());
        let (mut one, mut other) = (signal.wait(), signal.wait());
        assert!(block_on(poll_once(&mut one)).is_none());
        assert!(block_on(poll_once(&mut other)).is_none());
        signal.raise();
        assert!(block_on(poll_once(one)).is_some());
        assert!(block_on(poll_once(other)).is_some());
        assert!(block_on(poll_once(signal.wait())).is_none());
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..100 {
            let mut wait = signal.wait();
            assert!(block_on(poll_once(&mut wait)).is_none());
            assert!(block_on(poll_once(&mut wait)).is_none());
        }
        assert!(signal.waiting.borrow().is_empty());
        let mut stays = signal.wait();
        assert!(block_on(poll_once(&mut stays)).is_none());
        signal.raise();
        let mut next = signal.wait();
        assert!(block_on(poll_once(&mut next)).is_none());
        drop(stays);
        assert_eq!(signal.waiting.borrow().len(), 1);
    }
}
