//! Leased IPs of managed pools: what leaves by them is counted at each provider apart.
//!
//! To the queue, such a leased IP and a provider are a leased IP of their own, with a ledger of their own: its lanes are those
//! to the sites of the provider, and what its ladder does not let go waits in a list of its own, so that a provider that
//! wants little holds up no other. Without, all know it by its address only. Sites of no provider are one together.

use super::{Lease, Meter, Queue};
use crate::{
    job::{JobId, Place},
    lane::{LaneId, LeaseId},
    time::{Mono, Wall},
    warmup::{
        climb::Rung,
        day::Day,
        ladder::{Decision, Rules},
    },
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// Of sites that are of no provider.
pub const OTHER: &str = "other";

/// How a leased IP of a managed pool stands on its ladder at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Height {
    /// The leased IP.
    pub ip: IpAddr,
    /// The provider.
    pub provider: Arc<str>,
    /// Where it stands, what this day brought, and how the last one ended.
    pub rung: Rung,
    /// Most recipients of this day; none: it is warm.
    pub cap: Option<u32>,
    /// Recipients charged on this day.
    pub sent: u32,
    /// Recipients that wait for it.
    pub waiting: u64,
    /// When the first of them may go.
    pub opens: Option<Mono>,
}

impl<K: Copy + Ord> Queue<K> {
    /// From now on what leaves by this leased IP is counted at each provider apart, or not. Take its mail from it before with
    /// [`Self::strand`]. `overflow_after`: as in [`Self::expect_ledger`].
    pub fn manage(&mut self, lease: LeaseId, managed: bool, overflow_after: Duration) {
        for entry in &mut self.leases {
            if entry.of.as_ref().is_some_and(|(whole, _)| *whole == lease) {
                entry.overflow_after = overflow_after;
            }
        }
        if let Some(entry) = self.leases.get_mut(lease.index()) {
            (entry.managed, entry.overflow_after) = (managed, overflow_after);
        }
    }

    /// Is what leaves by this leased IP counted at each provider apart?
    #[must_use]
    pub fn is_managed(&self, lease: LeaseId) -> bool {
        self.leases.get(lease.index()).is_some_and(|lease| lease.managed)
    }

    /// The leased IP as all others know it.
    pub(super) fn whole(&self, lease: LeaseId) -> LeaseId {
        self.leases.get(lease.index()).and_then(|lease| lease.of.as_ref()).map_or(lease, |(whole, _)| *whole)
    }

    /// What the mail of a site is counted as that leaves by this leased IP.
    pub(super) fn counted_as(&mut self, lease: LeaseId, site: u32) -> LeaseId {
        let lease = self.whole(lease);
        if !self.is_managed(lease) {
            return lease;
        }
        let receiver = self.sites.get(site).and_then(|site| site.receiver);
        let provider = receiver.map_or_else(|| OTHER.into(), |receiver| self.name_of(receiver));
        self.part_of(lease, &provider)
    }

    /// A leased IP at a provider, made if need be: then nothing goes before its ledger is here.
    fn part_of(&mut self, lease: LeaseId, provider: &Arc<str>) -> LeaseId {
        if let Some(known) = self.known_part(lease, provider) {
            if let Some(entry) = self.leases.get_mut(known.index()).filter(|entry| matches!(entry.meter, Meter::None)) {
                // It was given up, and mail comes again.
                (entry.meter, entry.blocked) = (Meter::Pending, true);
                self.wanted.push(known);
            }
            return known;
        }
        let Some(whole) = self.leases.get(lease.index()) else { return lease };
        let mut part = Lease::new(whole.address);
        (part.of, part.overflow_after) = (Some((lease, Arc::clone(provider))), whole.overflow_after);
        (part.meter, part.blocked) = (Meter::Pending, true);
        let id = LeaseId::at(self.leases.len());
        self.leases.push(part);
        self.parts.entry(lease).or_default().push(id);
        self.wanted.push(id);
        id
    }

    fn known_part(&self, lease: LeaseId, provider: &str) -> Option<LeaseId> {
        let is = |part: &&LeaseId| {
            let of = self.leases.get(part.index()).and_then(|entry| entry.of.as_ref());
            of.is_some_and(|(_, of)| **of == *provider)
        };
        self.parts.get(&lease)?.iter().find(is).copied()
    }

    /// Leased IPs and providers whose ledgers are wanted since this was last asked: [`Self::set_ledger`].
    pub fn wanted_ledgers(&mut self) -> Vec<(LeaseId, IpAddr, Arc<str>)> {
        let wanted = std::mem::take(&mut self.wanted);
        let part = |id: LeaseId| {
            let entry = self.leases.get(id.index())?;
            Some((id, entry.address, Arc::clone(&entry.of.as_ref()?.1)))
        };
        wanted.into_iter().filter_map(part).collect()
    }

    /// What the mail of a lane is counted as: its leased IP, or of a managed one that and the provider. For [`Self::ledger`].
    #[must_use]
    pub fn counted(&self, lane: LaneId) -> Option<LeaseId> {
        self.lanes.get(lane.slot).filter(|entry| entry.id == lane).map(|entry| entry.lease)
    }

    /// Recipients that wait for the ladders of managed leased IPs.
    #[must_use]
    pub fn held_by_ladders(&self) -> u64 {
        self.leases.iter().filter(|lease| lease.of.is_some()).map(|lease| lease.held).sum()
    }

    /// The provider that a part of a leased IP is of.
    #[must_use]
    pub fn provider_of_lease(&self, lease: LeaseId) -> Option<&Arc<str>> {
        self.leases.get(lease.index())?.of.as_ref().map(|(_, provider)| provider)
    }

    /// Other thresholds of all ladders at the provider of this name.
    pub fn set_rules(&mut self, rules: impl Fn(&str) -> Rules) {
        for entry in &mut self.leases {
            let Some(provider) = entry.of.as_ref().map(|(_, provider)| Arc::clone(provider)) else { continue };
            if let Some(climb) = entry.ledger().and_then(|ledger| ledger.ladder()) {
                climb.set_rules(rules(&provider));
            }
        }
    }

    /// What days led to since this was last asked.
    pub fn decisions(&mut self, now: Mono, wall: Wall) -> Vec<(IpAddr, Arc<str>, Day, Decision)> {
        let mut all = Vec::new();
        for entry in &mut self.leases {
            let Some((_, provider)) = entry.of.clone() else { continue };
            let address = entry.address;
            let Some(ledger) = entry.ledger() else { continue };
            ledger.advance(now, wall);
            let made = ledger.ladder().map(|climb| climb.decisions()).unwrap_or_default();
            all.extend(made.into_iter().map(|(day, decision)| (address, Arc::clone(&provider), day, decision)));
        }
        all
    }

    /// How all leased IPs of managed pools stand.
    pub fn heights(&mut self, now: Mono, wall: Wall) -> Vec<Height> {
        let mut all = Vec::new();
        for entry in &mut self.leases {
            let Some((_, provider)) = entry.of.clone() else { continue };
            let (ip, waiting, opens) = (entry.address, entry.held, entry.opens);
            let Some(ledger) = entry.ledger() else { continue };
            let standing = ledger.standing(now, wall);
            let Some(rung) = ledger.ladder().map(|climb| climb.rung()) else { continue };
            all.push(Height { ip, provider, rung, cap: standing.cap, sent: standing.sent, waiting, opens });
        }
        all
    }

    /// A job that waits for a ladder: on which step that is, and its provider.
    #[must_use]
    pub fn ladder_of(&mut self, job: JobId) -> Option<(u32, Arc<str>)> {
        let &Place::Waiting { lane } = self.named(job).map(|job| &job.place)? else { return None };
        let lease = self.lanes.get(lane)?.lease;
        let entry = self.leases.get_mut(lease.index())?;
        let provider = Arc::clone(&entry.of.as_ref()?.1);
        let step = entry.ledger()?.ladder()?.rung().ladder.step;
        Some((step, provider))
    }

    /// Recipients that a leased IP may take to a provider now, less what waits for it already.
    pub fn room(&mut self, now: Mono, wall: Wall, lease: LeaseId, provider: &str) -> u64 {
        let part = self.known_part(lease, provider).and_then(|part| self.leases.get_mut(part.index()));
        let Some(part) = part else { return 0 };
        let held = part.held;
        part.ledger().map_or(0, |ledger| u64::from(ledger.allowance(now, wall)).saturating_sub(held))
    }

    pub(super) fn told_ladder(&mut self, lane: LaneId, outcomes: [u64; 3]) {
        let Some(lease) = self.lanes.get(lane.slot).map(|lane| lane.lease) else { return };
        let ledger = self.leases.get_mut(lease.index()).and_then(Lease::ledger);
        if let Some(climb) = ledger.and_then(|ledger| ledger.ladder()) {
            climb.told(outcomes[1], outcomes[2]);
        }
    }

    pub(super) fn blocked(&mut self, lane: LaneId) {
        let Some(lease) = self.lanes.get(lane.slot).map(|lane| lane.lease) else { return };
        let ledger = self.leases.get_mut(lease.index()).and_then(Lease::ledger);
        if let Some(climb) = ledger.and_then(|ledger| ledger.ladder()) {
            climb.blocked();
        }
    }
}
