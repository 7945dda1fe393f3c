//! One job: the recipients of one message at one site, sent in one transaction.

use crate::time::Wall;
use smallvec::SmallVec;

/// Names a job of one queue while it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(crate) u32);

/// A message to queue.
#[derive(Clone, Copy, Debug)]
pub struct New<'a, K> {
    /// The caller's name for it.
    pub key: K,
    /// Egress IP; none: it waits until [`crate::Queue::assign`] gives it one.
    pub lease: Option<crate::LeaseId>,
    /// When it was accepted.
    pub accepted: Wall,
    /// When it is given up.
    pub expires: Wall,
    /// Its unsettled recipients, by domain (lower-case A-labels).
    pub targets: &'a [(String, Target)],
}

/// Recipients of one domain that are equally far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Their numbers in the message.
    pub recipients: SmallVec<[u16; 2]>,
    /// Tries so far.
    pub attempts: u16,
    /// Not before this time.
    pub next_try: Option<Wall>,
}

/// Numbers of recipients: one without an allocation.
#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    One(u16),
    Many(Box<[u16]>),
}

impl Recipients {
    pub(crate) fn new(numbers: &[u16]) -> Self {
        match numbers {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its lane's list of ready jobs.
    Ready,
    /// Waiting for its time.
    Deferred,
    /// Handed out.
    InFlight,
    /// Without a leased IP.
    Stranded,
    /// Waiting to be told as undeliverable or expired.
    Ending,
}

pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Job<K> {
    pub(crate) key: K,
    pub(crate) recipients: Recipients,
    pub(crate) accepted: Wall,
    pub(crate) expires: Wall,
    /// Of the first recipient: others of the job share its site.
    pub(crate) domain: u32,
    pub(crate) site: u32,
    pub(crate) lane: u32,
    /// The next ready job of the lane.
    pub(crate) next: u32,
    /// Rises when the job is put off; an older timer means nothing.
    pub(crate) stamp: u32,
    pub(crate) attempts: u16,
    pub(crate) place: Place,
}
