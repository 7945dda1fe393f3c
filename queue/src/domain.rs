//! Recipient domains: which site they belong to, and the messages that wait to know it.

use crate::{
    job::Target,
    lane::LeaseId,
    time::{Mono, Wall},
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

/// A domain that queued mail is for.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) name: Arc<str>,
    pub(crate) known: Known,
    /// `known` is believed until then.
    pub(crate) until: Mono,
    /// A question is out, or about to be.
    pub(crate) asked: bool,
    /// Failed questions in a row.
    pub(crate) failures: u32,
    pub(crate) stamp: u32,
    /// Jobs and waiting messages that name it.
    pub(crate) users: u32,
    /// Waiting messages to look at when it is known.
    pub(crate) waiting: Vec<u32>,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            known: Known::Nothing,
            until: Mono(0),
            asked: false,
            failures: 0,
            stamp: 0,
            users: 0,
            waiting: Vec::new(),
        }
    }

    /// What is known and still believed.
    pub(crate) fn answer(&self, now: Mono) -> Option<&Known> {
        (self.known != Known::Nothing && now < self.until).then_some(&self.known)
    }
}

/// A message some of whose domains are not resolved yet.
#[derive(Debug)]
pub(crate) struct Pending<K> {
    pub(crate) key: K,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) accepted: Wall,
    pub(crate) expires: Wall,
    pub(crate) targets: Vec<(u32, Target)>,
    /// Domains still unknown.
    pub(crate) open: u32,
}
