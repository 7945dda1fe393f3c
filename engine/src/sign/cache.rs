//! Signatures of messages that are still queued: a message is signed once, not once a recipient or attempt. *One per
//! shard.*
//!
//! Bounded: a signature that fell out is made again, which costs time and changes nothing else. A message of one
//! recipient that goes out at the first try never comes here.

use mailrail_spool::MessageKey;
use std::{collections::BTreeMap, collections::VecDeque, rc::Rc};

/// See the module.
pub(crate) struct Signatures {
    most: usize,
    bytes: usize,
    kept: BTreeMap<MessageKey, Rc<[u8]>>,
    order: VecDeque<MessageKey>,
}

impl Signatures {
    /// Keeps at most `most` bytes of signatures.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, bytes: 0, kept: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn get(&self, key: MessageKey) -> Option<Rc<[u8]>> {
        self.kept.get(&key).cloned()
    }

    /// Keeps the header of a message that will be sent again.
    pub(crate) fn keep(&mut self, key: MessageKey, header: Rc<[u8]>) {
        self.bytes += header.len();
        if let Some(old) = self.kept.insert(key, header) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > self.most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget(oldest);
        }
    }

    /// Bytes of signatures kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys have changed.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// The message is settled.
    pub(crate) fn forget(&mut self, key: MessageKey) {
        if let Some(old) = self.kept.remove(&key) {
            self.bytes -= old.len();
        }
        // Names of forgotten ones stay in `order` until they are the most of it.
        if self.order.len() > 2 * self.kept.len() + 64 {
            self.order.retain(|name| self.kept.contains_key(name));
        }
    }
}
