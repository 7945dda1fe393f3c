//! The suppression lists: the host's and one of each account. What is listed is durable in a database of its own, and live
//! in all shards as digests. *One per host, control thread; used in blocking tasks.*
//!
//! A change is durable before the shards hear of it, and they hear of it before it is answered. The shards share one set of
//! digests; what changed since goes to each of them, until it is so much that a new set is made.

mod bounces;
pub(crate) mod csv;
pub(crate) mod db;

pub(crate) use bounces::{HardBounce, find};

use super::{post::Post, store::StoreError};
use crate::link::Command;
use db::{Db, Entry, Norm};
use mailrail_queue::{
    admit::suppress::{Change, Digest, HostEntry, Key, List, Reason, Set},
    time::Wall,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Changes that shards keep beside the set before a new one is made: some hundred kilobytes a shard.
const CHANGES_MAX: usize = 16_384;
/// Entries put into a new set at once, while it is read from the database.
const PIECE: usize = 1 << 20;

/// Name of the host's own list in the database; no account is called so.
pub(crate) const HOST: &str = "";

/// See the module.
pub(crate) struct Lists {
    key: Key,
    writer: Mutex<Writer>,
    reader: Mutex<Db>,
    post: Arc<Post>,
}

struct Writer {
    db: Db,
    set: Arc<Set>,
    /// Made since the set.
    changes: Vec<Change>,
    /// What ended until then is off the shards' lists.
    expired: Wall,
}

/// What an entry is put with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) address: Norm,
    pub(crate) reason: Reason,
    pub(crate) at: Wall,
    pub(crate) message_id: Option<String>,
}

impl Lists {
    /// Opens the database and reads all of it into a set, which every shard is told. Blocks: a few seconds for ten million.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn open(path: &Path, key: Key, post: Arc<Post>, now: Wall) -> Result<Self, StoreError> {
        let db = Db::open(path)?;
        db.forget_quiet(now)?;
        let mut set = Set::default();
        let mut piece = Vec::new();
        db.each(now, |list, norm, reason| {
            piece.extend(change(key, list, norm, Some(reason)));
            if piece.len() == PIECE {
                set = set.with(&mut piece);
                piece.clear();
            }
        })?;
        set = set.with(&mut piece);
        drop(piece);
        let set = Arc::new(set);
        post.tell_all(|| Command::Lists { key, set: Arc::clone(&set) });
        let reader = Mutex::new(Db::open(path)?);
        Ok(Self { key, writer: Mutex::new(Writer { db, set, changes: Vec::new(), expired: now }), reader, post })
    }

    /// Entries in all, and bytes of the set.
    pub(crate) fn size(&self) -> (usize, usize) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        (writer.set.len(), writer.set.bytes())
    }

    /// Puts entries on a list; of one that is there, reason and time are replaced.
    ///
    /// # Errors
    /// None of them was put.
    pub(crate) fn put(&self, list: &str, entries: &[Put]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.db.put(list, entries)?;
        let changes = entries.iter().filter_map(|put| change(self.key, list, put.address.as_str(), Some(put.reason)));
        self.tell(&mut writer, changes.collect());
        Ok(())
    }

    /// Takes entries off a list; how many were there.
    ///
    /// # Errors
    /// None of them was taken off.
    pub(crate) fn remove(&self, list: &str, addresses: &[Norm]) -> Result<usize, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let found = writer.db.remove(list, addresses)?;
        let changes = addresses.iter().filter_map(|address| change(self.key, list, address.as_str(), None));
        self.tell(&mut writer, changes.collect());
        Ok(found)
    }

    /// Puts hard bounces on the lists where they belong.
    ///
    /// # Errors
    /// None of them was put.
    pub(crate) fn bounced(&self, bounces: &[HardBounce]) -> Result<(), StoreError> {
        let mut of_accounts: BTreeMap<&str, Vec<Put>> = BTreeMap::new();
        for bounce in bounces {
            let Ok(address) = Norm::of(&bounce.recipient) else { continue };
            let (reason, at) = (Reason::Bounce, bounce.at);
            let put = Put { address, reason, at, message_id: Some(bounce.message_id.clone()) };
            match &bounce.account {
                Some(account) => of_accounts.entry(account).or_default().push(put),
                None => self.bounced_at_host(put)?,
            }
        }
        of_accounts.into_iter().try_for_each(|(account, puts)| self.put(account, &puts))
    }

    /// The host's list: for some days, more with each bounce.
    fn bounced_at_host(&self, put: Put) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = writer.db.host_entry(&put.address)?;
        // Told again after a crash it is the same bounce.
        if before.as_ref().is_some_and(|(_, id)| *id == put.message_id) {
            return Ok(());
        }
        let entry = HostEntry::bounced(before.map(|(entry, _)| entry), put.at);
        writer.db.put_host(&put, entry)?;
        let listed = change(self.key, HOST, put.address.as_str(), Some(put.reason));
        self.tell(&mut writer, listed.into_iter().collect());
        Ok(())
    }

    /// Takes off the host's list what has been there for its time.
    ///
    /// # Errors
    /// The database cannot be used.
    pub(crate) fn expire(&self, now: Wall) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let over = writer.db.over(writer.expired, now)?;
        writer.expired = writer.expired.max(now);
        writer.db.forget_quiet(now)?;
        let changes = over.iter().filter_map(|norm| change(self.key, HOST, norm, None)).collect();
        self.tell(&mut writer, changes);
        Ok(())
    }

    /// An entry, if it is listed.
    ///
    /// # Errors
    /// The database cannot be used.
    pub(crate) fn get(&self, list: &str, address: &Norm) -> Result<Option<Entry>, StoreError> {
        self.reader().get(list, address)
    }

    /// Reads with the connection that no change holds up.
    pub(crate) fn reader(&self) -> std::sync::MutexGuard<'_, Db> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes live in all shards. Under the writer's lock, so that all of them hear the same order.
    fn tell(&self, writer: &mut Writer, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if writer.changes.len() + changes.len() <= CHANGES_MAX {
            writer.changes.extend_from_slice(&changes);
            let changes: Arc<[Change]> = changes.into();
            self.post.tell_all(|| Command::ListsChanged(Arc::clone(&changes)));
            return;
        }
        writer.changes.extend(changes);
        let mut all = std::mem::take(&mut writer.changes);
        writer.set = Arc::new(writer.set.with(&mut all));
        self.post.tell_all(|| Command::Lists { key: self.key, set: Arc::clone(&writer.set) });
    }
}

/// In the digests of the shards; `norm` compares equal to every way of writing the address.
fn change(key: Key, list: &str, norm: &str, reason: Option<Reason>) -> Option<Change> {
    let list = if list == HOST { List::Host } else { List::Account(list) };
    let (local, domain) = norm.rsplit_once('@')?;
    // A local part that is itself in quotes would be taken for one that quotes.
    let quoted =
        local.starts_with('"').then(|| format!("\"{}\"@{domain}", local.replace('\\', "\\\\").replace('"', "\\\"")));
    let digest = Digest::of(key, list, quoted.as_deref().unwrap_or(norm)).ok()?;
    Some(Change { digest, reason })
}

#[cfg(test)]
mod tests;
