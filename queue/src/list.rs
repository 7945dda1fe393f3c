//! Lists of jobs that need no memory of their own: the links are in the jobs.
//!
//! A job has two pairs of links: `ORDER` for the one place that it is in, `EXPIRY` for the calendar of expiries. Whoever
//! puts a job into a list takes it out of the one before: there is one function for that, in `queue/place.rs`.

use crate::{job::Job, slab::Slab};
use std::collections::BTreeMap;

pub(crate) const NONE: u32 = u32::MAX;
/// The links of the place that a job is in.
pub(crate) const ORDER: usize = 0;
/// The links of the calendar of expiries.
pub(crate) const EXPIRY: usize = 1;

/// The neighbours of a job in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    pub(crate) const NONE: Self = Self { prev: NONE, next: NONE };
}

/// A list; `WHICH` of the links it goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<const WHICH: usize> {
    head: u32,
    tail: u32,
}

impl<const WHICH: usize> Default for List<WHICH> {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl<const WHICH: usize> List<WHICH> {
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(crate) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(crate) fn last(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }

    pub(crate) fn push_back<K>(&mut self, jobs: &mut Slab<Job<K>>, id: u32) {
        set(jobs, id, Link { prev: self.tail, next: NONE }, WHICH);
        match link_mut(jobs, self.tail, WHICH) {
            Some(last) => last.next = id,
            None => self.head = id,
        }
        self.tail = id;
    }

    pub(crate) fn push_front<K>(&mut self, jobs: &mut Slab<Job<K>>, id: u32) {
        set(jobs, id, Link { prev: NONE, next: self.head }, WHICH);
        match link_mut(jobs, self.head, WHICH) {
            Some(first) => first.prev = id,
            None => self.tail = id,
        }
        self.head = id;
    }

    /// The job must be in this list.
    pub(crate) fn remove<K>(&mut self, jobs: &mut Slab<Job<K>>, id: u32) {
        let Some(link) = link_mut(jobs, id, WHICH) else { return };
        let Link { prev, next } = std::mem::replace(link, Link::NONE);
        match link_mut(jobs, prev, WHICH) {
            Some(before) => before.next = next,
            None => self.head = next,
        }
        match link_mut(jobs, next, WHICH) {
            Some(after) => after.prev = prev,
            None => self.tail = prev,
        }
    }

    /// From the last to the first.
    pub(crate) fn iter_back<'a, K>(&self, jobs: &'a Slab<Job<K>>) -> impl Iterator<Item = (u32, &'a Job<K>)> {
        let mut next = self.tail;
        std::iter::from_fn(move || {
            let (id, job) = (next, jobs.get(next)?);
            next = job.links[WHICH].prev;
            Some((id, job))
        })
    }

    pub(crate) fn iter<'a, K>(&self, jobs: &'a Slab<Job<K>>) -> impl Iterator<Item = (u32, &'a Job<K>)> {
        let mut next = self.head;
        std::iter::from_fn(move || {
            let (id, job) = (next, jobs.get(next)?);
            next = job.links[WHICH].next;
            Some((id, job))
        })
    }
}

fn link_mut<K>(jobs: &mut Slab<Job<K>>, id: u32, which: usize) -> Option<&mut Link> {
    jobs.get_mut(id).map(|job| &mut job.links[which])
}

fn set<K>(jobs: &mut Slab<Job<K>>, id: u32, link: Link, which: usize) {
    if let Some(own) = link_mut(jobs, id, which) {
        *own = link;
    }
}

/// Lists by tick of a clock. Both clocks of the queue have few ticks for which anything is set, whatever the number of jobs.
#[derive(Debug)]
pub(crate) struct Calendar<const WHICH: usize>(BTreeMap<u64, List<WHICH>>);

impl<const WHICH: usize> Default for Calendar<WHICH> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<const WHICH: usize> Calendar<WHICH> {
    pub(crate) fn insert<K>(&mut self, jobs: &mut Slab<Job<K>>, tick: u64, id: u32) {
        self.0.entry(tick).or_default().push_back(jobs, id);
    }

    /// The job must be in the list of this tick.
    pub(crate) fn remove<K>(&mut self, jobs: &mut Slab<Job<K>>, tick: u64, id: u32) {
        let Some(list) = self.0.get_mut(&tick) else { return };
        list.remove(jobs, id);
        if list.is_empty() {
            self.0.remove(&tick);
        }
    }

    /// The earliest tick for which something is set.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.first_key_value().map(|(tick, _)| *tick)
    }

    /// A job that is set for `tick` or earlier; it stays where it is.
    pub(crate) fn due(&self, tick: u64) -> Option<u32> {
        let (first, list) = self.0.first_key_value()?;
        if *first <= tick { list.first() } else { None }
    }
}
