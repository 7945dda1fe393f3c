//! Recipient domains: which site they belong to, and the jobs that wait to know it.

use crate::{
    list::{List, ORDER},
    time::Mono,
};
use std::{sync::Arc, time::Duration};

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// To this site: equal keys are the same site.
    Site {
        /// Identity of the site.
        key: Arc<str>,
        /// Believe it for so long.
        ttl: Duration,
    },
    /// Nowhere.
    Never {
        /// Believe it for so long.
        ttl: Duration,
    },
    /// Not known now; it is asked again later.
    Later,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    Site(u32),
    Never,
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    No,
    /// To be handed out.
    Queued,
    /// Handed out; the answer is awaited.
    Out,
    /// Nobody knew; asked again after a while.
    Resting,
}

/// A domain that queued mail is for.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) name: Arc<str>,
    pub(crate) known: Known,
    /// `known` is believed until then.
    pub(crate) until: Mono,
    /// And until then because nobody can say better.
    pub(crate) stretched: Mono,
    pub(crate) asking: Asking,
    /// Failed questions in a row.
    pub(crate) failures: u32,
    pub(crate) stamp: u32,
    /// Jobs that name it.
    pub(crate) users: u32,
    /// It is in the list of domains without mail.
    pub(crate) idle: bool,
    /// Jobs to send on when it is known.
    pub(crate) waiting: List<ORDER>,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            known: Known::Nothing,
            until: Mono(0),
            stretched: Mono(0),
            asking: Asking::No,
            failures: 0,
            stamp: 0,
            users: 0,
            idle: false,
            waiting: List::default(),
        }
    }

    /// What is known and still believed.
    pub(crate) fn answer(&self, now: Mono) -> Option<&Known> {
        (self.known != Known::Nothing && now < self.until.max(self.stretched)).then_some(&self.known)
    }
}
