//! Addresses that are not sent to: the account's list, the host's list, and which of them a message asks.
//!
//! A [`Set`] is immutable and shared by all shards (`Arc`); the control thread makes a new one now and then. What has changed
//! since lies in an [`Overlay`] of each shard. Neither knows an address: only a keyed digest of it, so that 10 million take
//! about 100 MB and a look-up is a few cache lines. The addresses themselves, with their times and attributes, are in the
//! control store.
//!
//! Of the 128 bits of a digest 84 are kept: that an address which is not listed is taken for one that is has a probability
//! of about 1 in 10^18 a look-up with 10 million listed, and without the key nobody can make it happen.

use crate::time::Wall;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{borrow::Cow, hash::Hasher, sync::Arc, time::Duration};
use thiserror::Error;

/// Buckets of a set, by the high bits of the digest; about ten entries each with 10 million.
const BUCKET_BITS: u32 = 20;

/// Why an address is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Reason {
    /// It bounced for good.
    Bounce,
    /// Its owner complained.
    Complaint,
    /// By hand; reads as `BOUNCE` on the SES wire.
    Manual,
}

/// Whose list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List<'a> {
    /// The host's own.
    Host,
    /// That of the account of this name.
    Account(&'a str),
}

/// Secret of a host's digests; random, made anew at each start.
#[derive(Clone, Copy)]
pub struct Key(pub u64, pub u64);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// An address that cannot be on a list.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadAddress {
    /// No `@`, or nothing before or after it.
    #[error("<{0}> is no address: it needs a local part, an @ and a domain")]
    NoAddress(String),
    /// Its domain is not in A-labels.
    #[error("the domain of <{0}> must be written in A-labels (xn--...)")]
    NotALabel(String),
}

/// An address on a list, as a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    bucket: u32,
    print: u64,
}

impl Digest {
    /// Of an address, on a list. Equal for addresses that compare equal: the domain (in A-labels) and the local part without
    /// regard to case, a quoted local part as what it quotes (RFC 5321 section 4.1.2). `+` and dots are left alone.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn of(key: Key, list: List<'_>, address: &str) -> Result<Self, BadAddress> {
        let parts = address.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
        let (local, domain) = parts.ok_or_else(|| BadAddress::NoAddress(address.to_owned()))?;
        if !domain.is_ascii() {
            return Err(BadAddress::NotALabel(address.to_owned()));
        }
        let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
        match list {
            List::Host => hasher.write_u8(0),
            List::Account(name) => {
                hasher.write_u8(1);
                hasher.write(name.as_bytes());
                // No UTF-8 has it: no name runs on into an address.
                hasher.write_u8(0xff);
            }
        }
        write_lower(&mut hasher, &unquoted(local));
        hasher.write_u8(b'@');
        write_lower(&mut hasher, domain);
        let hash = hasher.finish128();
        Ok(Self { bucket: (hash.h1 >> (64 - BUCKET_BITS)) as u32, print: hash.h2 })
    }
}

/// What a quoted local part quotes.
fn unquoted(local: &str) -> Cow<'_, str> {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(local);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    Cow::Owned(plain)
}

fn write_lower(hasher: &mut SipHasher13, text: &str) {
    if !text.is_ascii() {
        return hasher.write(text.to_lowercase().as_bytes());
    }
    let mut piece = [0; 64];
    for chunk in text.as_bytes().chunks(piece.len()) {
        let lower = &mut piece[..chunk.len()];
        lower.copy_from_slice(chunk);
        lower.make_ascii_lowercase();
        hasher.write(lower);
    }
}

/// An entry put (a reason) or taken away (none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub digest: Digest,
    /// Its reason from now on.
    pub reason: Option<Reason>,
}

/// All entries of all lists of a host, at one time. *One per host, shared.*
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Where each bucket begins, and the end; empty without entries.
    starts: Box<[u32]>,
    /// In order of digest.
    prints: Box<[u64]>,
    /// One for each print.
    reasons: Box<[Reason]>,
}

impl Set {
    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prints.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prints.is_empty()
    }

    /// Its size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.prints) + size_of_val(&*self.reasons)
    }

    /// Why this address is listed, if it is.
    #[must_use]
    pub fn get(&self, digest: Digest) -> Option<Reason> {
        let bucket = digest.bucket as usize;
        let (from, to) = (*self.starts.get(bucket)? as usize, *self.starts.get(bucket + 1)? as usize);
        let position = self.prints.get(from..to)?.binary_search(&digest.print).ok()?;
        self.reasons.get(from + position).copied()
    }

    /// This set with changes made, the later one of two for the same address. Needs room for both sets at once: an import
    /// of many millions is better made in pieces of a million.
    #[must_use]
    pub fn with(&self, changes: &mut Vec<Change>) -> Self {
        if self.is_empty() && changes.iter().all(|change| change.reason.is_none()) {
            // Most hosts, most of the time: without the table of buckets a look-up misses no cache.
            return Self::default();
        }
        // The last one of each goes first, and the others go.
        changes.reverse();
        changes.sort_by_key(|change| change.digest);
        changes.dedup_by_key(|change| change.digest);
        let fits = u32::try_from(self.len() + changes.len()).is_ok();
        assert!(fits, "a set of 4 billion entries is refused where it is imported");
        let room = self.len() + changes.len();
        let (mut prints, mut reasons) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut starts = Vec::with_capacity((1 << BUCKET_BITS) + 1);
        let mut changes = changes.iter().peekable();
        for bucket in 0..1 << BUCKET_BITS {
            starts.push(prints.len() as u32);
            let (from, to) = match self.starts.get(bucket as usize..bucket as usize + 2) {
                Some(&[from, to]) => (from as usize, to as usize),
                _ => (0, 0),
            };
            let mut push = |print: u64, reason: Option<Reason>| {
                if let Some(reason) = reason {
                    prints.push(print);
                    reasons.push(reason);
                }
            };
            for (print, reason) in self.prints[from..to].iter().zip(&self.reasons[from..to]) {
                let here = Digest { bucket, print: *print };
                let mut replaced = false;
                while let Some(change) = changes.next_if(|change| change.digest <= here) {
                    replaced = change.digest == here;
                    push(change.digest.print, change.reason);
                }
                if !replaced {
                    push(*print, Some(*reason));
                }
            }
            while let Some(change) = changes.next_if(|change| change.digest.bucket == bucket) {
                push(change.digest.print, change.reason);
            }
        }
        starts.push(prints.len() as u32);
        Self { starts: starts.into(), prints: prints.into(), reasons: reasons.into() }
    }
}

/// The set as a shard sees it: the shared one, and what has changed since. *One per shard.*
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    set: Arc<Set>,
    changes: FxHashMap<Digest, Option<Reason>>,
}

impl Overlay {
    /// A new shared set, which has all changes made so far in it.
    pub fn swap(&mut self, set: Arc<Set>) {
        self.set = set;
        self.changes = FxHashMap::default();
    }

    /// One more change.
    pub fn change(&mut self, change: Change) {
        self.changes.insert(change.digest, change.reason);
    }

    /// Changes since the set: with too many of them a new one is worth making.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Why this address is listed, if it is.
    #[must_use]
    pub fn get(&self, digest: Digest) -> Option<Reason> {
        if self.changes.is_empty() {
            return self.set.get(digest);
        }
        self.changes.get(&digest).copied().unwrap_or_else(|| self.set.get(digest))
    }
}

/// `SuppressedReasons`: for which reasons an account, or a configuration set, keeps and asks its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// `BOUNCE`.
    pub bounce: bool,
    /// `COMPLAINT`.
    pub complaint: bool,
}

impl Default for Reasons {
    /// Those of a new account.
    fn default() -> Self {
        Self { bounce: true, complaint: true }
    }
}

impl Reasons {
    /// `[]`.
    pub const NONE: Self = Self { bounce: false, complaint: false };

    /// Is an entry of this reason kept, and does it suppress?
    #[must_use]
    pub fn has(self, reason: Reason) -> bool {
        match reason {
            Reason::Bounce | Reason::Manual => self.bounce,
            Reason::Complaint => self.complaint,
        }
    }
}

/// What becomes of a suppressed recipient: accepted, counted against the quota, not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suppressed {
    /// `Bounce`, `Permanent`/`OnAccountSuppressionList`; no part in the rates.
    OnAccountList,
    /// `Complaint` with `OnAccountSuppressionList`; no part in the rates.
    OnAccountListForComplaint,
    /// `Bounce`, `Permanent`/`Suppressed`; counts in the bounce rate.
    OnHostList,
}

/// Is this recipient of an account's message suppressed? `of_set`: the configuration set's reasons, if it has any of its own.
///
/// # Errors
/// [`BadAddress`].
pub fn suppressed(
    lists: &Overlay,
    key: Key,
    account: &str,
    of_account: Reasons,
    of_set: Option<Reasons>,
    address: &str,
) -> Result<Option<Suppressed>, BadAddress> {
    if of_set == Some(Reasons::NONE) {
        return Ok(None);
    }
    let reasons = of_set.unwrap_or(of_account);
    if reasons != Reasons::NONE {
        let entry = lists.get(Digest::of(key, List::Account(account), address)?);
        if let Some(reason) = entry.filter(|reason| reasons.has(*reason)) {
            return Ok(Some(match reason {
                Reason::Complaint => Suppressed::OnAccountListForComplaint,
                Reason::Bounce | Reason::Manual => Suppressed::OnAccountList,
            }));
        }
    }
    // Who uses a list of his own for bounces does not get the host's.
    if reasons.bounce {
        return Ok(None);
    }
    let entry = lists.get(Digest::of(key, List::Host, address)?);
    Ok(entry.map(|_| Suppressed::OnHostList))
}

/// Days on the host's list after the first, second, third and any later hard bounce.
const HOST_DAYS: [u64; 4] = [1, 3, 7, 14];
/// After so many days without a bounce the growth begins anew.
const QUIET: Duration = Duration::from_secs(90 * 86_400);

/// An address on the host's list: for how long, growing with each hard bounce. A success takes it off: drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    bounces: u8,
    last: Wall,
}

impl HostEntry {
    /// After a hard bounce at this time; `before`: the entry until now.
    #[must_use]
    pub fn bounced(before: Option<Self>, wall: Wall) -> Self {
        let recent = before.filter(|entry| wall.since(entry.last) < QUIET);
        let bounces = recent.map_or(1, |entry| entry.bounces.saturating_add(1));
        Self { bounces, last: recent.map_or(wall, |entry| entry.last.max(wall)) }
    }

    /// Listed until then. The entry itself is kept for 90 days, or the growth would be forgotten.
    #[must_use]
    pub fn until(self) -> Wall {
        let step = usize::from(self.bounces.max(1) - 1).min(HOST_DAYS.len() - 1);
        self.last.plus(Duration::from_secs(HOST_DAYS[step] * 86_400))
    }

    /// May the entry be forgotten?
    #[must_use]
    pub fn is_over(self, wall: Wall) -> bool {
        wall.since(self.last) >= QUIET
    }
}

#[cfg(test)]
#[path = "suppress_tests.rs"]
mod tests;
