//! The providers there are: those of `packaging/providers.toml`, and what a host's own `[[provider]]` say on top of it.
//! Immutable; part of the policy snapshot.

use super::{
    entry::{Entry, Reply},
    reply::Answer,
};
use crate::{bucket::Rate, policy::TlsMode, retry::RetrySchedule, warmup::ladder::Rules};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use thiserror::Error;

/// The table that ships.
pub const SHIPPED: &str = include_str!("../../../packaging/providers.toml");

/// One large receiver; limits are those of one leased IP, and none where there is no number.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Unique.
    pub name: Arc<str>,
    /// Suffixes of its mail hosts, lower case.
    pub mx: Vec<Arc<str>>,
    /// Connections to all of its sites.
    pub connections: Option<u32>,
    /// Messages a connection.
    pub messages: Option<u32>,
    /// Recipients a message.
    pub recipients: Option<u32>,
    /// Messages in a time.
    pub rate: Option<Rate>,
    /// Messages at once after a pause.
    pub burst: Option<u32>,
    /// TLS.
    pub tls: Option<TlsMode>,
    /// Waits between tries.
    pub retry: Option<RetrySchedule>,
    /// Time without a complaint for each step of recovery.
    pub recover: Duration,
    /// What its replies are answered with, the first that fits.
    pub answers: Arc<[Answer]>,
    /// How leased IPs of managed pools climb at it.
    pub ladder: Rules,
}

impl Provider {
    /// Without limits or hosts.
    #[must_use]
    pub fn named(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            mx: Vec::new(),
            connections: None,
            messages: None,
            recipients: None,
            rate: None,
            burst: None,
            tls: None,
            retry: None,
            recover: Duration::from_secs(10 * 60),
            answers: Arc::new([]),
            ladder: Rules::default(),
        }
    }

    /// Messages at once at this rate: five seconds' worth unless the burst is set, and one at least.
    #[must_use]
    pub fn burst_of(&self, rate: Rate) -> u32 {
        let five = u128::from(rate.tokens) * 5_000_000_000 / rate.per.as_nanos().max(1);
        self.burst.unwrap_or(u32::try_from(five).unwrap_or(u32::MAX)).max(1)
    }

    /// What a reply asks for; the text in whatever case.
    #[must_use]
    pub fn answer(&self, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Option<&Answer> {
        let text = text.to_lowercase();
        self.answers.iter().find(|answer| answer.pattern.fits(code, enhanced, &text))
    }
}

/// A table that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("[[provider]] \"{name}\": {why}")]
pub struct TableError {
    /// Which entry of those given.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    provider: Vec<Entry>,
    /// Asked last, for every provider.
    #[serde(default)]
    reply: Vec<Reply>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In order of name.
    providers: Vec<Arc<Provider>>,
}

impl Table {
    /// The table that ships, with a host's own entries on top of it.
    ///
    /// # Errors
    /// [`TableError`] of an own entry. (A test keeps the shipped ones right.)
    pub fn with(own: &[Entry]) -> Result<Self, TableError> {
        let mut table = Self::default();
        let file: File = toml::from_str(SHIPPED).map_err(|error| TableError {
            index: 0,
            name: "packaging/providers.toml".into(),
            why: error.to_string(),
        })?;
        let mut common = Vec::new();
        for reply in &file.reply {
            let why = |why| TableError { index: 0, name: "packaging/providers.toml".into(), why };
            common.push(reply.answer().map_err(why)?);
        }
        let shipped = file.provider.len();
        for (index, entry) in file.provider.iter().chain(own).enumerate() {
            let why = |why| TableError { index: index.saturating_sub(shipped), name: entry.name.clone(), why };
            table.take(entry, &common).map_err(why)?;
        }
        table.providers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(table)
    }

    fn take(&mut self, entry: &Entry, common: &[Answer]) -> Result<(), String> {
        let known = self.providers.iter().position(|known| *known.name == *entry.name);
        let mut provider = entry.apply(known.map(|known| &*self.providers[known]))?;
        if known.is_none() {
            provider.answers = provider.answers.iter().chain(common).cloned().collect();
        }
        let others = self.providers.iter().filter(|other| other.name != provider.name);
        for other in others {
            if let Some(mx) = provider.mx.iter().find(|mx| other.mx.contains(mx)) {
                return Err(format!("mx \"{mx}\" is one of \"{}\" already: a host has one provider", other.name));
            }
        }
        match known {
            Some(known) => self.providers[known] = Arc::new(provider),
            None => self.providers.push(Arc::new(provider)),
        }
        Ok(())
    }

    /// All, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.iter()
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        let at = self.providers.binary_search_by(|provider| (*provider.name).cmp(name)).ok()?;
        self.providers.get(at)
    }

    /// The one that a mail host (lower case) is of: that with the longest suffix.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Arc<Provider>> {
        let fits = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let longest = |provider: &&Arc<Provider>| {
            provider.mx.iter().filter(|suffix| fits(suffix)).map(|suffix| suffix.len()).max()
        };
        let best = self.providers.iter().filter_map(|provider| Some((longest(&provider)?, provider)));
        best.max_by_key(|(length, _)| *length).map(|(_, provider)| provider)
    }
}
