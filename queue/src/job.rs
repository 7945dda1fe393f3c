//! One job: recipients of one message, sent in one transaction.

use crate::{
    lane::LeaseId,
    list::Link,
    time::{Mono, Wall},
    warmup::day::Day,
};
use smallvec::SmallVec;

/// Names a job of one queue, and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// A message to queue.
#[derive(Clone, Copy, Debug)]
pub struct New<'a, K> {
    /// The caller's name for it.
    pub key: K,
    /// Egress IP; none: it waits until [`crate::Queue::assign`] gives it one.
    pub lease: Option<LeaseId>,
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

/// Recipients of a job: one without an allocation.
#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    One(u16),
    Many(Box<Several>),
    /// So many of the job's domain, each with a message of its own: they have no numbers, and nobody tells them apart.
    Crowd(u32),
}

/// Recipients, and the domain of the first.
pub(crate) type Owned = (Recipients, u32);

/// See [`Recipients`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Several {
    numbers: Vec<u16>,
    /// The domain of each; empty if they are all of the job's domain.
    domains: Vec<u32>,
}

impl Recipients {
    pub(crate) fn new(numbers: &[u16]) -> Self {
        match numbers {
            [one] => Self::One(*one),
            many => Self::Many(Box::new(Several { numbers: many.to_vec(), domains: Vec::new() })),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => &many.numbers,
            Self::Crowd(_) => &[],
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Crowd(count) => u64::from(*count),
            numbered => numbered.as_slice().len() as u64,
        }
    }

    /// Transactions that they take.
    pub(crate) fn messages(&self) -> u32 {
        if let Self::Crowd(count) = self { *count } else { 1 }
    }

    /// Is this the domain of one of them?
    pub(crate) fn names(&self, own: u32, domain: u32) -> bool {
        match self {
            Self::Crowd(_) => own == domain,
            numbered => numbered.iter(own).any(|(_, of)| of == domain),
        }
    }

    /// The first `most` of them, and the others; none if one of the two would be nobody.
    pub(crate) fn divide(&self, own: u32, most: usize) -> Option<(Owned, Owned)> {
        if most == 0 || most as u64 >= self.len() {
            return None;
        }
        if let Self::Crowd(count) = self {
            let first = u32::try_from(most).unwrap_or(u32::MAX);
            return Some(((Self::Crowd(first), own), (Self::Crowd(count - first), own)));
        }
        let pairs: SmallVec<[(u16, u32); 8]> = self.iter(own).collect();
        let (first, rest) = pairs.split_at_checked(most)?;
        Some((Self::of(first)?, Self::of(rest)?))
    }

    /// Each with its domain; `own` is the job's.
    pub(crate) fn iter(&self, own: u32) -> impl Iterator<Item = (u16, u32)> {
        let domains = match self {
            Self::One(_) | Self::Crowd(_) => &[],
            Self::Many(many) => &many.domains[..],
        };
        let domain = move |index: usize| domains.get(index).copied().unwrap_or(own);
        self.as_slice().iter().enumerate().map(move |(index, number)| (*number, domain(index)))
    }

    /// Domains of the recipients, each once, in order.
    pub(crate) fn domains(&self, own: u32) -> SmallVec<[u32; 4]> {
        let mut domains = SmallVec::new();
        if let Self::Crowd(_) = self {
            domains.push(own);
        }
        for (_, domain) in self.iter(own) {
            if domains.last() != Some(&domain) && !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        domains
    }

    /// From pairs of number and domain; also says which domain is the job's. `None` if there is no pair.
    pub(crate) fn of(pairs: &[(u16, u32)]) -> Option<(Self, u32)> {
        let own = pairs.first()?.1;
        let numbers: SmallVec<[u16; 8]> = pairs.iter().map(|pair| pair.0).collect();
        let mut recipients = Self::new(&numbers);
        if let Self::Many(many) = &mut recipients
            && pairs.iter().any(|pair| pair.1 != own)
        {
            many.domains = pairs.iter().map(|pair| pair.1).collect();
        }
        Some((recipients, own))
    }
}

/// Where a job is, and what it must know there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In no list, on its way.
    Loose,
    /// Waiting for its domain to be resolved.
    Unresolved { lease: Option<LeaseId> },
    /// In its lane's list of ready jobs.
    Ready { lane: u32 },
    /// Waiting for its time.
    Deferred { lane: u32 },
    /// Waiting until the warm-up plan of its leased IP lets it go.
    Waiting { lane: u32 },
    /// Suspended by an operator, until [`crate::Queue::release_held`].
    Held { lane: u32 },
    /// Handed out; taken out without a lane, it has [`crate::list::NONE`].
    InFlight { lane: u32 },
    /// Without a leased IP.
    Stranded { site: u32 },
    /// Without a leased IP, and handed out for another shard to take it.
    Leaving { site: u32 },
    /// Waiting to be told as undeliverable or expired; the lane it was in, or [`crate::list::NONE`].
    Ending { lane: u32 },
}

impl Place {
    pub(crate) fn lane(self) -> Option<u32> {
        match self {
            Self::Ready { lane }
            | Self::Deferred { lane }
            | Self::Waiting { lane }
            | Self::Held { lane }
            | Self::InFlight { lane }
            | Self::Ending { lane } => Some(lane),
            Self::Loose | Self::Unresolved { .. } | Self::Stranded { .. } | Self::Leaving { .. } => None,
        }
    }

    /// The site that it keeps without a lane.
    pub(crate) fn site(self) -> Option<u32> {
        if let Self::Stranded { site } | Self::Leaving { site } = self { Some(site) } else { None }
    }

    /// Column of the lane's counts.
    pub(crate) fn column(self) -> Option<usize> {
        match self {
            Self::Ready { .. } => Some(0),
            Self::Deferred { .. } | Self::Waiting { .. } | Self::Held { .. } => Some(1),
            Self::InFlight { .. } => Some(2),
            _ => None,
        }
    }

    /// Is it in the calendar of expiries?
    pub(crate) fn may_expire(self) -> bool {
        !matches!(self, Self::Loose | Self::InFlight { .. } | Self::Leaving { .. } | Self::Ending { .. })
    }
}

#[derive(Debug)]
pub(crate) struct Job<K> {
    pub(crate) key: K,
    pub(crate) recipients: Recipients,
    pub(crate) expires: Wall,
    /// No try before; of one that waits for a plan: since when.
    pub(crate) due: Mono,
    /// By [`crate::list::ORDER`] and [`crate::list::EXPIRY`].
    pub(crate) links: [Link; 2],
    pub(crate) place: Place,
    /// Of the first recipient.
    pub(crate) domain: u32,
    /// Tells it from others that had its number.
    pub(crate) serial: u32,
    pub(crate) attempts: u16,
    /// Its recipients are charged to its leased IP for this day; the first of all days: they are not.
    pub(crate) paid: Day,
    /// [`SEEN`], [`ASKED`], [`TOLD`], [`PUT_OFF`], [`AGAIN`].
    pub(crate) flags: u8,
}

/// A receiver may have seen what was paid for.
pub(crate) const SEEN: u8 = 1;
/// Whether another leased IP may take it has been asked since it waits.
pub(crate) const ASKED: u8 = 2;
/// Its sender has been told that it waits.
pub(crate) const TOLD: u8 = 4;
/// It waits because its site or provider is left alone, and not because it was tried.
pub(crate) const PUT_OFF: u8 = 8;
/// What was paid for was seen at a try before the one for which it is handed out.
pub(crate) const AGAIN: u8 = 16;

impl<K> Job<K> {
    /// The tick of the calendar of expiries by which it has surely expired.
    pub(crate) fn expiry_tick(&self) -> u64 {
        self.expires.0.div_ceil(EXPIRY_TICK_MS)
    }

    /// The tick of the calendar of tries at which it is due.
    pub(crate) fn due_tick(&self) -> u64 {
        self.due.0.div_ceil(DUE_TICK_NS)
    }
}

/// Expiries are told at most so late.
pub(crate) const EXPIRY_TICK_MS: u64 = 8_000;
/// Tries are at most so late: far below the jitter of the shortest useful wait.
pub(crate) const DUE_TICK_NS: u64 = 50_000_000;

const _: () = assert!(size_of::<Job<u64>>() <= 80, "each queued recipient costs one");
