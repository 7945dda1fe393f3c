//! Lanes: how many connections each may have, and when it is left alone.

use super::Queue;
use crate::{
    lane::{Lane, LaneId, LeaseId},
    retry::{self, RetrySchedule},
    time::Mono,
    timer::Due,
};
use std::{sync::Arc, time::Duration};

/// How long a lane keeps to a number of connections that a receiver taught it, before it tries one more.
const LEARNED: Duration = Duration::from_secs(60);

impl<K: Copy + Ord> Queue<K> {
    /// The lane of a lease and a site, made if need be.
    pub(super) fn lane_of(&mut self, lease: LeaseId, site: u32) -> u32 {
        let lease = self.counted_as(lease, site);
        if let Some(lane) = self.lane_ids.get(&(lease, site)) {
            return *lane;
        }
        let limit = self.sites.get(site).and_then(|site| site.connections).unwrap_or(self.default_connections);
        let serial = self.next_serial();
        let slot = self.lanes.insert(Lane::new(lease, site, limit));
        let shape = self.shape_of(lease, site);
        if let Some(lane) = self.lanes.get_mut(slot) {
            (lane.id, lane.shape) = (LaneId { slot, serial }, shape);
        }
        self.lane_ids.insert((lease, site), slot);
        if let Some(site) = self.sites.get_mut(site) {
            site.lanes += 1;
        }
        slot
    }

    /// Has the lane looked at by the next [`Self::poll`].
    pub(super) fn list(&mut self, number: u32) {
        if let Some(lane) = self.lanes.get_mut(number).filter(|lane| !lane.listed) {
            lane.listed = true;
            self.look.push_back(number);
        }
    }

    /// One job less is of this lane.
    pub(super) fn leave(&mut self, number: u32) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        lane.jobs -= 1;
        self.after_leaving(number);
    }

    fn after_leaving(&mut self, number: u32) {
        let Some(lane) = self.lanes.get(number).filter(|lane| lane.is_idle()) else { return };
        if lane.failures == 0 && lane.learned.is_none() {
            self.drop_lane(number);
        } else {
            // Whether it can be forgotten is a question of time: the next poll knows.
            self.list(number);
        }
    }

    /// A lane that is backed off is remembered without mail, or its next message would not know. Its timer looks again.
    pub(super) fn forget_if_idle(&mut self, now: Mono, number: u32) {
        if self.lanes.get(number).is_some_and(|lane| lane.is_forgettable(now)) {
            self.drop_lane(number);
        }
    }

    fn drop_lane(&mut self, number: u32) {
        self.leave_lines(number);
        let Some(lane) = self.lanes.remove(number) else { return };
        self.lane_ids.remove(&(lane.lease, lane.site));
        if let Some(site) = self.sites.get_mut(lane.site) {
            site.lanes -= 1;
        }
        self.drop_site_if_unused(lane.site);
    }

    /// Sets the waits of a lane that could not be connected or was turned away; [`RetrySchedule::of_sites`] at first.
    pub fn back_off_sites(&mut self, schedule: RetrySchedule) {
        self.site_backoff = schedule;
    }

    /// A connection for this lane is being opened.
    pub fn connection_opened(&mut self, lane: LaneId) {
        if let Some(entry) = self.lane_named(lane) {
            entry.connections += 1;
            entry.opening += 1;
            self.connected(lane.slot);
        }
    }

    /// It can take jobs now. That the host is well, only a job that is done proves: it may greet us and take nothing.
    pub fn connection_ready(&mut self, lane: LaneId) {
        let Some(entry) = self.lane_named(lane) else { return };
        entry.opening = entry.opening.saturating_sub(1);
        if entry.ready > 0 {
            self.list(lane.slot);
        }
    }

    /// A connection of this lane is gone, `opening` if it never became ready.
    pub fn connection_closed(&mut self, lane: LaneId, opening: bool) {
        let Some(entry) = self.lane_named(lane) else { return };
        entry.connections = entry.connections.saturating_sub(1);
        entry.opening = entry.opening.saturating_sub(u32::from(opening));
        if entry.ready > 0 {
            self.list(lane.slot);
        }
        self.disconnected(lane.slot);
        self.after_leaving(lane.slot);
    }

    /// The site could not be reached, or turned a new connection away. With other connections open, it is asked for no
    /// more than these for a while; with none, the lane waits. Returns until when.
    pub fn connect_failed(&mut self, now: Mono, lane: LaneId) -> Mono {
        let Some(entry) = self.lane_named(lane) else { return now };
        let others = entry.connections.saturating_sub(entry.opening);
        if others == 0 {
            return self.site_trouble(now, lane);
        }
        let until = now.plus(LEARNED);
        entry.learned = Some((others, until));
        self.arm(now, lane.slot);
        until
    }

    /// The site wants to be left alone: no new connection of this lane before the time returned. Its jobs keep their tries.
    pub fn site_trouble(&mut self, now: Mono, lane: LaneId) -> Mono {
        let chance = retry::chance(&mut self.chance);
        let Some(entry) = self.lane_named(lane) else { return now };
        if entry.backed_off_until > now {
            return entry.backed_off_until;
        }
        entry.failures = (entry.failures + 1).min(16);
        let failures = entry.failures as u16;
        let until = now.plus(self.site_backoff.wait(failures, chance));
        if let Some(entry) = self.lane_named(lane) {
            entry.backed_off_until = until;
        }
        self.put_off(now, lane.slot, until);
        self.arm(now, lane.slot);
        until
    }

    /// Sets the timer of a lane for the next time at which something changes for it.
    fn arm(&mut self, now: Mono, number: u32) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        let times = [Some(lane.backed_off_until), lane.learned.map(|(_, until)| until)];
        if let Some(next) = times.into_iter().flatten().filter(|at| *at > now).min() {
            lane.stamp = lane.stamp.wrapping_add(1);
            self.timers.set(next, Due::Lane(number), lane.stamp);
        }
    }

    /// The timer of a lane: its back-off is over, or it may try one connection more.
    pub(super) fn lane_due(&mut self, now: Mono, number: u32, stamp: u32) {
        let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.stamp == stamp) else { return };
        if let Some((most, until)) = lane.learned.filter(|(_, until)| *until <= now) {
            let still = !lane.is_idle() && most + 1 < lane.limit;
            lane.learned = still.then_some((most + 1, until.max(now).plus(LEARNED)));
        }
        let (site, doubtful) = (lane.site, lane.failures > 0 && lane.jobs > 0);
        if doubtful {
            self.doubt_site(now, site);
        }
        self.list(number);
        self.arm(now, number);
    }

    /// The provider that a site is of, if it is of one.
    pub fn provider_of_site(&mut self, now: Mono, key: &Arc<str>, provider: Option<&Arc<str>>) {
        let is_new = !self.site_ids.contains_key(key);
        if is_new && provider.is_none() {
            return;
        }
        let number = self.site_id(Arc::clone(key));
        if is_new {
            self.new_sites.push(number);
        }
        let receiver = provider.map(|name| self.receiver_id(name));
        self.reshape(now, number, receiver);
    }

    /// Connections a lane of this site may have; none: the default.
    pub fn limit_site(&mut self, key: &Arc<str>, connections: Option<u32>) {
        let is_new = !self.site_ids.contains_key(key);
        if is_new && connections.is_none() {
            return;
        }
        let number = self.site_id(Arc::clone(key));
        if is_new {
            self.new_sites.push(number);
        }
        let limit = connections.unwrap_or(self.default_connections).max(1);
        let Some(site) = self.sites.get_mut(number).filter(|site| site.connections != connections) else { return };
        site.connections = connections;
        let lanes: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.site == number).map(|(n, _)| n).collect();
        for lane in lanes {
            if let Some(entry) = self.lanes.get_mut(lane) {
                entry.limit = limit;
            }
            self.list(lane);
        }
    }
}
