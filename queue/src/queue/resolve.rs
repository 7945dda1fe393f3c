//! From domains to sites: questions, answers, and sending jobs on by them.
//!
//! Each recipient waits for its own domain only. An answer is asked for again when its time is over and mail needs it: when
//! a message comes, when a deferred one is due, and when its site is in trouble. While nobody can answer, the last known
//! site goes on serving for a day.

use super::{BATCH, Queue, Site, Work, jittered};
use crate::{
    domain::{Asking, Domain, Known, Resolution},
    job::{Job, New, Place, Recipients},
    lane::LeaseId,
    retry,
    time::{Mono, Wall},
    timer::Due,
};
use smallvec::{SmallVec, smallvec};
use std::{sync::Arc, time::Duration};

/// First and longest wait before a failed question is asked again.
const ASK_FIRST: Duration = Duration::from_secs(5);
const ASK_MAX: Duration = Duration::from_secs(10 * 60);
/// An answer that has not come after this time is taken for a failure.
const OVERDUE: Duration = Duration::from_secs(60);
/// How long a site goes on serving after its time, while nobody can answer (RFC 8767 section 5).
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Domains without mail that are kept for their answers; those without mail for longest go first.
const DOMAINS_KEPT: usize = 100_000;

impl<K: Copy + Ord> Queue<K> {
    /// Puts a message in. Its recipients of one domain become a job once the domain is resolved; jobs of one message that
    /// follow each other in a lane become one.
    pub fn add(&mut self, now: Mono, wall: Wall, new: New<'_, K>) {
        self.clocks = (now, wall);
        if let Some(lease) = new.lease {
            self.revive(lease);
        }
        for (name, target) in new.targets {
            if target.recipients.is_empty() {
                continue;
            }
            self.recipients += target.recipients.len() as u64;
            let domain = self.domain_id(name);
            if let Some(entry) = self.domains.get_mut(domain) {
                entry.users += 1;
            }
            let id = self.insert(new.key, new.expires, Recipients::new(&target.recipients), domain);
            if let Some(job) = self.jobs.get_mut(id) {
                job.attempts = target.attempts;
                job.due = target.next_try.filter(|at| *at > wall).map_or(Mono(0), |at| now.plus(at.since(wall)));
            }
            self.route(now, id, new.lease);
        }
    }

    /// Sends a job of one domain on: to where its domain is, or to wait until that is known.
    pub(super) fn route(&mut self, now: Mono, id: u32, lease: Option<LeaseId>) {
        let Some((domain, due)) = self.jobs.get(id).map(|job| (job.domain, job.due)) else { return };
        let known = self.domains.get(domain).and_then(|entry| entry.answer(now));
        match known {
            None => {
                self.put(id, Place::Unresolved { lease });
                self.question(now, domain);
            }
            Some(Known::Nothing | Known::Never) => self.end(id, |job| Work::Undeliverable { job }),
            Some(&Known::Site(site)) => match lease.filter(|lease| !self.is_gone(*lease)) {
                None => self.strand_again(id, site),
                Some(lease) => {
                    let lane = self.lane_of(lease, site);
                    if due > now {
                        self.put(id, Place::Deferred { lane });
                    } else {
                        self.make_ready(now, id, lane);
                    }
                }
            },
        }
    }

    /// Are the domains of this job known, and still of the site of this lane?
    pub(super) fn is_current(&self, now: Mono, id: u32, lane: u32) -> bool {
        let (Some(job), Some(lane)) = (self.jobs.get(id), self.lanes.get(lane)) else { return false };
        let here = |domain: u32| {
            let known = self.domains.get(domain).and_then(|entry| entry.answer(now));
            known == Some(&Known::Site(lane.site))
        };
        match &job.recipients {
            Recipients::One(_) => here(job.domain),
            many => many.domains(job.domain).into_iter().all(here),
        }
    }

    /// Takes a job out of its lane and sends it on by what is known of its domains now.
    pub(super) fn reconsider(&mut self, now: Mono, id: u32) {
        let lane = self.jobs.get(id).and_then(|job| job.place.lane());
        let lease = lane.and_then(|lane| self.lanes.get(lane)).map(|lane| lane.lease);
        self.put(id, Place::Loose);
        self.send_parts(now, id, lease);
    }

    /// Sends a job in no list on, domain by domain.
    pub(super) fn send_parts(&mut self, now: Mono, id: u32, lease: Option<LeaseId>) {
        for part in self.split(id) {
            self.route(now, part, lease);
        }
    }

    /// One job a domain, from a job in no list.
    fn split(&mut self, id: u32) -> SmallVec<[u32; 4]> {
        let Some(job) = self.jobs.get(id) else { return SmallVec::new() };
        let domains = job.recipients.domains(job.domain);
        if domains.len() <= 1 {
            return smallvec![id];
        }
        let (key, expires, attempts, due, own) = (job.key, job.expires, job.attempts, job.due, job.domain);
        let pairs: Vec<(u16, u32)> = job.recipients.iter(own).collect();
        let mut parts = SmallVec::new();
        for domain in domains {
            let numbers: SmallVec<[u16; 8]> = pairs.iter().filter(|pair| pair.1 == domain).map(|pair| pair.0).collect();
            let recipients = Recipients::new(&numbers);
            let part = if parts.is_empty() { id } else { self.insert(key, expires, recipients.clone(), domain) };
            if let Some(job) = self.jobs.get_mut(part) {
                *job = Job { recipients, domain, attempts, due, links: job.links, ..*job };
            }
            parts.push(part);
        }
        parts
    }

    /// Asks about a domain, unless that is under way.
    pub(super) fn question(&mut self, now: Mono, domain: u32) {
        let Some(entry) = self.domains.get_mut(domain).filter(|entry| entry.asking == Asking::No) else { return };
        entry.asking = Asking::Queued;
        entry.stamp = entry.stamp.wrapping_add(1);
        self.timers.set(now.plus(OVERDUE), Due::Domain(domain), entry.stamp);
        self.questions.push_back(domain);
    }

    /// The next domain to resolve; each answer is to be told to [`Self::resolved`].
    pub fn ask(&mut self) -> Option<Box<str>> {
        loop {
            let domain = self.questions.pop_front()?;
            if let Some(entry) = self.domains.get_mut(domain).filter(|entry| entry.asking == Asking::Queued) {
                entry.asking = Asking::Out;
                return Some(Box::from(&*entry.name));
            }
        }
    }

    /// Takes the answer to a question.
    pub fn resolved(&mut self, now: Mono, wall: Wall, name: &str, resolution: Resolution) {
        self.clocks = (now, wall);
        let Some(&domain) = self.domain_ids.get(name) else { return };
        let (known, ttl) = match resolution {
            Resolution::Site { key, ttl } => (Known::Site(self.site_id(key)), ttl),
            Resolution::Never { ttl } => (Known::Never, ttl),
            Resolution::Later => return self.ask_later(now, domain),
        };
        if let Known::Site(site) = known
            && let Some(site) = self.sites.get_mut(site)
        {
            site.domains.insert(domain);
        }
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.until = now.plus(ttl.max(Duration::from_secs(1)));
        (entry.asking, entry.failures, entry.stamp) = (Asking::No, 0, entry.stamp.wrapping_add(1));
        let before = std::mem::replace(&mut entry.known, known.clone());
        if before != known {
            self.follow(now, domain, &before);
            self.unlearn(domain, &before);
        }
        self.send_on_or_later(now, domain);
    }

    /// Nobody knows now. Where it was until now goes on serving; without that, what waits goes on waiting.
    fn ask_later(&mut self, now: Mono, domain: u32) {
        let chance = retry::chance(&mut self.chance);
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.failures = (entry.failures + 1).min(16);
        (entry.asking, entry.stamp) = (Asking::Resting, entry.stamp.wrapping_add(1));
        let wait = jittered(ASK_FIRST.saturating_mul(1 << (entry.failures - 1)).min(ASK_MAX), chance);
        let again = now.plus(wait);
        if matches!(entry.known, Known::Site(_)) && now < entry.until.plus(STALE) {
            entry.stretched = again;
        }
        self.timers.set(again, Due::Domain(domain), entry.stamp);
        self.send_on_or_later(now, domain);
    }

    /// The timer of a domain: an answer is overdue, or it is time to ask again.
    pub(super) fn domain_due(&mut self, now: Mono, domain: u32, stamp: u32) {
        let Some(entry) = self.domains.get_mut(domain).filter(|entry| entry.stamp == stamp) else { return };
        match entry.asking {
            Asking::No => {}
            Asking::Queued | Asking::Out => self.ask_later(now, domain),
            Asking::Resting => {
                entry.asking = Asking::No;
                if entry.users > 0 && entry.answer(now).is_none() {
                    self.question(now, domain);
                }
            }
        }
    }

    fn send_on_or_later(&mut self, now: Mono, domain: u32) {
        let mut budget = BATCH;
        if !self.send_on(now, domain, &mut budget) {
            self.answered.push_back(domain);
        }
    }

    /// Sends on the jobs that waited for this domain, at most `budget`. False if some are left that could go.
    pub(super) fn send_on(&mut self, now: Mono, domain: u32, budget: &mut usize) -> bool {
        while let Some(entry) = self.domains.get(domain)
            && let Some(id) = entry.waiting.first()
        {
            if entry.answer(now).is_none() {
                self.question(now, domain);
                return true;
            }
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let lease = match self.jobs.get(id).map(|job| job.place) {
                Some(Place::Unresolved { lease }) => lease,
                _ => None,
            };
            self.route(now, id, lease);
        }
        true
    }

    /// A domain has left a site. Mail that waits there for a connection that cannot be had goes after it; a site that is
    /// well is left to deliver what it was meant to get.
    fn follow(&mut self, now: Mono, domain: u32, before: &Known) {
        let Known::Site(site) = *before else { return };
        let in_trouble = self.lanes.iter().filter(|(_, lane)| lane.site == site && lane.failures > 0);
        let names_it = |job: &Job<K>| job.recipients.names(job.domain, domain);
        let ready = in_trouble.flat_map(|(_, lane)| lane.list.iter(&self.jobs));
        let ids: Vec<u32> = ready.filter(|(_, job)| names_it(job)).map(|(id, _)| id).collect();
        for id in ids {
            self.reconsider(now, id);
        }
    }

    /// Asks about the domains of a site whose answers are out of date: are they still of this site?
    pub(super) fn doubt_site(&mut self, now: Mono, site: u32) {
        let Some(entry) = self.sites.get(site) else { return };
        let doubtful = |domain: &u32| self.domains.get(*domain).is_some_and(|d| d.users > 0 && d.answer(now).is_none());
        let domains: Vec<u32> = entry.domains.iter().copied().filter(doubtful).collect();
        for domain in domains {
            self.question(now, domain);
        }
    }

    pub(super) fn domain_id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.domain_ids.get(name) {
            return *id;
        }
        let domain = Domain::new(name);
        let name = Arc::clone(&domain.name);
        let id = self.domains.insert(domain);
        self.domain_ids.insert(name, id);
        id
    }

    /// One job less names this domain.
    pub(super) fn release_domain(&mut self, domain: u32) {
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        if !std::mem::replace(&mut entry.idle, true) {
            self.idle_domains.push_back(domain);
        }
        while self.idle_domains.len() > DOMAINS_KEPT {
            let Some(oldest) = self.idle_domains.pop_front() else { return };
            let Some(entry) = self.domains.get_mut(oldest) else { continue };
            entry.idle = false;
            if entry.users == 0
                && let Some(entry) = self.domains.remove(oldest)
            {
                self.domain_ids.remove(&entry.name);
                self.unlearn(oldest, &entry.known);
            }
        }
    }

    /// A domain is not known to be of this site any more.
    fn unlearn(&mut self, domain: u32, known: &Known) {
        if let Known::Site(number) = *known {
            if let Some(site) = self.sites.get_mut(number) {
                site.domains.remove(&domain);
            }
            self.drop_site_if_unused(number);
        }
    }

    pub(super) fn site_id(&mut self, key: Arc<str>) -> u32 {
        if let Some(id) = self.site_ids.get(&key) {
            return *id;
        }
        let domains = std::collections::BTreeSet::new();
        let site = Site { key: Arc::clone(&key), lanes: 0, stranded: 0, domains, connections: None, receiver: None };
        let id = self.sites.insert(site);
        self.site_ids.insert(key, id);
        id
    }

    pub(super) fn drop_site_if_unused(&mut self, number: u32) {
        let unused = |site: &Site| site.lanes == 0 && site.stranded == 0 && site.domains.is_empty();
        if self.sites.get(number).is_some_and(unused)
            && let Some(site) = self.sites.remove(number)
        {
            self.site_ids.remove(&site.key);
        }
    }
}
