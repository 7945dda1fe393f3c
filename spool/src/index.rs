//! Where each unsettled message lies: at most 72 bytes of heap a message of one recipient.

use crate::record::{self, Place};

/// Names one unsettled message. Never means another one, even when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    slot: u32,
    check: u32,
}

/// How far one recipient is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecipientState {
    /// Its end is recorded.
    pub settled: bool,
    /// Tries so far, as the last defer record said.
    pub attempts: u16,
    /// When the last defer record wanted the next one, milliseconds since the epoch; 0: at once.
    pub next_try_ms: u64,
}

impl RecipientState {
    /// From the [`STATE`](crate::append::STATE) bytes that [`write_states`](crate::append::write_states) made of it.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self { settled: bytes[0] != 0, attempts: record::u16_at(bytes, 1), next_try_ms: record::u64_at(bytes, 3) }
    }
}

/// States of the recipients of one message.
#[derive(Clone, Debug)]
pub(crate) enum States {
    One(RecipientState),
    Many(Box<[RecipientState]>),
}

impl States {
    pub(crate) fn new(recipients: u16) -> Self {
        match recipients {
            1 => Self::One(RecipientState::default()),
            n => Self::Many(vec![RecipientState::default(); usize::from(n)].into_boxed_slice()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[RecipientState] {
        match self {
            Self::One(state) => std::slice::from_ref(state),
            Self::Many(states) => states,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [RecipientState] {
        match self {
            Self::One(state) => std::slice::from_mut(state),
            Self::Many(states) => states,
        }
    }
}

/// One unsettled message.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Sequence of its first record: its identity on disk, kept when it is moved.
    pub(crate) identity: u64,
    pub(crate) place: Place,
    /// Recipients not settled.
    pub(crate) open: u16,
    pub(crate) states: States,
}

enum Slot {
    Used(Entry),
    Free { next: u32 },
}

const END: u32 = u32::MAX;

/// All unsettled messages.
pub(crate) struct Index {
    slots: Vec<(u32, Slot)>,
    free: u32,
    messages: usize,
    recipients: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { slots: Vec::new(), free: END, messages: 0, recipients: 0 }
    }
}

impl Index {
    pub(crate) fn insert(&mut self, entry: Entry) -> MessageKey {
        self.messages += 1;
        self.recipients += u64::from(entry.open);
        if self.free == END {
            let slot = self.slots.len() as u32;
            self.slots.push((0, Slot::Used(entry)));
            return MessageKey { slot, check: 0 };
        }
        let slot = self.free;
        let (check, content) = &mut self.slots[slot as usize];
        if let Slot::Free { next } = content {
            self.free = *next;
        }
        *content = Slot::Used(entry);
        MessageKey { slot, check: *check }
    }

    pub(crate) fn get(&self, key: MessageKey) -> Option<&Entry> {
        match self.slots.get(key.slot as usize) {
            Some((check, Slot::Used(entry))) if *check == key.check => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: MessageKey) -> Option<&mut Entry> {
        match self.slots.get_mut(key.slot as usize) {
            Some((check, Slot::Used(entry))) if *check == key.check => Some(entry),
            _ => None,
        }
    }

    /// `n` of its recipients have come to their end.
    pub(crate) fn close(&mut self, key: MessageKey, n: u16) {
        if let Some(entry) = self.get_mut(key) {
            entry.open -= n;
            self.recipients -= u64::from(n);
        }
    }

    pub(crate) fn remove(&mut self, key: MessageKey) -> Option<Entry> {
        self.get(key)?;
        let (check, content) = self.slots.get_mut(key.slot as usize)?;
        // A stale key never finds the next user of the slot.
        *check = check.wrapping_add(1);
        let Slot::Used(entry) = std::mem::replace(content, Slot::Free { next: self.free }) else { return None };
        self.free = key.slot;
        self.messages -= 1;
        self.recipients -= u64::from(entry.open);
        Some(entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    pub(crate) fn recipients(&self) -> u64 {
        self.recipients
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageKey, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(slot, (check, content))| match content {
            Slot::Used(entry) => Some((MessageKey { slot: slot as u32, check: *check }, entry)),
            Slot::Free { .. } => None,
        })
    }
}
