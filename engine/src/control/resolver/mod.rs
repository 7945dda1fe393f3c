//! The answer to "where does mail for this domain go?", for all shards. *One per host, control thread.*
//!
//! Questions of all shards for one domain are one question; what runs and what waits is bounded, and a question too many is
//! answered "later" at once. [`site`] knows the rules, [`dns`] asks, [`address`] says where mail must not go.

mod address;
mod dns;
mod reverse;
mod site;
#[cfg(test)]
mod tests;

use super::{api::types::ResolverStatus, post::Post};
use crate::{
    config::Config,
    link::{Command, SiteAnswer},
};
use site::Sites;
use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};

/// Domains being looked up at a time, of which nothing is known yet.
const RUNNING: usize = 256;
/// A look-up that takes longer makes room for others: a list full of domains with dead name servers must not hold up those
/// whose servers answer.
const PROMPT: Duration = Duration::from_millis(500);
/// Look-ups that take longer than [`PROMPT`]; those beyond are answered "later".
const SLOW: usize = 768;
/// Domains that may be open, running or waiting for their turn; about 10 MiB.
const OPEN: usize = 65_536;

/// See the module.
pub(super) struct Resolver {
    sites: Sites,
    post: Arc<Post>,
    /// Domains being asked for, and the shards that wait.
    open: Mutex<HashMap<Box<str>, Vec<u16>>>,
    /// How many may be in `open`.
    room: usize,
    permits: Semaphore,
    slow: Semaphore,
    questions: AtomicU64,
    coalesced: AtomicU64,
    never: AtomicU64,
    later: AtomicU64,
}

impl Resolver {
    /// # Errors
    /// The system's resolver configuration cannot be read.
    pub(super) fn new(config: Arc<Config>, post: Arc<Post>) -> Result<Self, String> {
        Ok(Self {
            sites: Sites::new(config)?,
            post,
            open: Mutex::default(),
            room: OPEN,
            permits: Semaphore::new(RUNNING),
            slow: Semaphore::new(SLOW),
            questions: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            never: AtomicU64::new(0),
            later: AtomicU64::new(0),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<u16>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the answer to a shard's question, and sends it.
    pub(super) fn ask(self: &Arc<Self>, shard: u16, domain: Box<str>) {
        self.questions.fetch_add(1, Relaxed);
        let mut open = self.open();
        if let Some(waiting) = open.get_mut(&domain) {
            self.coalesced.fetch_add(1, Relaxed);
            if !waiting.contains(&shard) {
                waiting.push(shard);
            }
            return;
        }
        if open.len() >= self.room {
            drop(open);
            let text = "too many domains wait to be looked up: the name servers are slow, or do not answer".into();
            return self.answer(&domain, &[shard], &SiteAnswer::Later { text });
        }
        open.insert(domain.clone(), vec![shard]);
        drop(open);
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            let answer = resolver.find(&domain).await;
            let waiting = resolver.open().remove(&domain).unwrap_or_default();
            resolver.answer(&domain, &waiting, &answer);
        });
    }

    /// Waits for its turn, and gives it up when the name servers take their time.
    async fn find(&self, domain: &str) -> SiteAnswer {
        let permit = self.permits.acquire().await;
        let mut finding = pin!(self.sites.resolve(domain));
        if let Ok(answer) = timeout(PROMPT, &mut finding).await {
            return answer;
        }
        let Ok(_slow) = self.slow.try_acquire() else {
            return SiteAnswer::Later {
                text: format!("{domain}: its name servers are slow, and those of many others"),
            };
        };
        drop(permit);
        finding.await
    }

    fn answer(&self, domain: &str, shards: &[u16], answer: &SiteAnswer) {
        match answer {
            SiteAnswer::Never { .. } => self.never.fetch_add(1, Relaxed),
            SiteAnswer::Later { .. } => self.later.fetch_add(1, Relaxed),
            SiteAnswer::Hosts { .. } => 0,
        };
        for shard in shards {
            self.post.tell(*shard, Command::Resolved { domain: domain.into(), answer: answer.clone() });
        }
    }

    /// What is wrong with the reverse DNS of a leased IP, in words.
    pub(super) async fn reverse(&self, address: IpAddr, helo: &str) -> Option<String> {
        self.sites.reverse(address, helo).await
    }

    /// What was asked and answered since start.
    pub(super) fn status(&self) -> ResolverStatus {
        let open = self.open().len() as u64;
        let running = (RUNNING - self.permits.available_permits() + SLOW - self.slow.available_permits()) as u64;
        ResolverStatus {
            questions: self.questions.load(Relaxed),
            coalesced: self.coalesced.load(Relaxed),
            never: self.never.load(Relaxed),
            later: self.later.load(Relaxed),
            running,
            waiting: open.saturating_sub(running),
        }
    }
}
