//! Clients that were answered just now and will be back with their next message. *One per shard.*
//!
//! A sync that waits for them serves all of them at once; one that waits for nobody in particular only costs time. Counts,
//! and decides nothing.

use std::cell::Cell;

/// So many groups back a client is looked for: one that stays away longer is not coming now.
const GROUPS: u64 = 3;
/// Places for these, and the one that is cleared next.
const RING: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Returning {
    /// Groups made durable so far.
    group: Cell<u64>,
    /// Clients away, by the group in which they were answered.
    away: [Cell<u32>; RING as usize],
}

/// Of a client: the group in which it was answered, while it is away. *One per client connection.*
#[derive(Debug, Default)]
pub(crate) struct Away(Option<u64>);

impl Returning {
    /// The client is back with a message, or gone for good.
    pub(crate) fn back(&self, client: &mut Away) {
        if let Some(group) = client.0.take().filter(|group| self.group.get() - group < GROUPS) {
            let away = self.at(group);
            away.set(away.get().saturating_sub(1));
        }
    }

    /// The client is answered.
    pub(crate) fn answered(&self, client: &mut Away) {
        self.back(client);
        client.0 = Some(self.group.get());
        let away = self.at(self.group.get());
        away.set(away.get() + 1);
    }

    /// A group is durable.
    pub(crate) fn next_group(&self) {
        let group = self.group.get() + 1;
        self.group.set(group);
        self.at(group).set(0);
    }

    /// Is anybody away who may be back soon?
    pub(crate) fn any(&self) -> bool {
        let group = self.group.get();
        (group.saturating_sub(GROUPS - 1)..=group).any(|group| self.at(group).get() > 0)
    }

    fn at(&self, group: u64) -> &Cell<u32> {
        &self.away[(group % RING) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_awaited_for_a_few_groups_after_their_answer() {
        let returning = Returning::default();
        let (mut one, mut other) = (Away::default(), Away::default());
        assert!(!returning.any());
        returning.back(&mut one);
        returning.next_group();
        returning.answered(&mut one);
        returning.answered(&mut other);
        returning.back(&mut one);
        assert!(returning.any());
        returning.next_group();
        returning.back(&mut other);
        assert!(!returning.any());
        returning.answered(&mut other);
        for _ in 1..GROUPS {
            returning.next_group();
            assert!(returning.any());
        }
        returning.next_group();
        assert!(!returning.any());
        // It comes after all: nothing is counted twice.
        returning.answered(&mut one);
        returning.back(&mut other);
        assert!(returning.any());
        returning.back(&mut one);
        assert!(!returning.any());
    }
}
