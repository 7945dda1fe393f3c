//! Providers in the queue: which site is of which, and what a leased IP may send to one now.
//!
//! Lanes of one leased IP to sites of one provider share a shape: its connections, its rate and its suspensions. A lane that
//! the shape has no connection for stands in line for one; one that it has no message for stands in line for the next. Both
//! lines are served in order, so no site of a provider starves another.

use super::Queue;
use crate::{
    job::{PUT_OFF, Place},
    lane::{LaneId, LeaseId},
    shape::{
        reply::Then,
        standing::{Shape, Standing},
        table::{Provider, Table},
    },
    time::{Mono, Wall},
    timer::Due,
};
use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

/// After the rate was the limit, a lane keeps to the connection that it has for so long: more would not bring more.
const PACED: Duration = Duration::from_secs(10);
/// Lanes that were let at the rate's tokens have so long to take them, before the next ones are let at what is left.
const TURN: Duration = Duration::from_millis(50);

/// A provider that sites were said to be of.
#[derive(Debug)]
pub(super) struct Receiver {
    name: Arc<str>,
    settings: Arc<Provider>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shaped {
    shape: Shape,
    lease: LeaseId,
    receiver: u32,
    connections: u32,
    /// Lanes that want a connection and may have none now.
    crowd: VecDeque<u32>,
    /// Lanes that have a connection and mail, and may send none now.
    stalled: VecDeque<u32>,
    /// Nothing may be taken until its timer says so.
    closed: bool,
    /// When it last had no message to give.
    paced: Option<Mono>,
    /// When its timer is due, and the stamp of the one that counts.
    armed: Option<Mono>,
    stamp: u32,
    /// Recipients delivered, deferred and bounced.
    outcomes: [u64; 3],
}

/// How a leased IP stands with a provider, for listings.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeInfo {
    /// The provider.
    pub provider: Arc<str>,
    /// The leased IP.
    pub lease: IpAddr,
    /// What holds now.
    pub standing: Standing,
    /// Recipients ready, deferred, in flight.
    pub queued: [u64; 3],
    /// Connections open or being opened.
    pub connections: u32,
    /// Recipients delivered, deferred and bounced since start.
    pub outcomes: [u64; 3],
}

impl<K: Copy + Ord> Queue<K> {
    /// Other settings of providers, from now on.
    pub fn set_providers(&mut self, now: Mono, table: &Table) {
        for provider in table.iter() {
            let id = self.receiver_id(&provider.name);
            if let Some(receiver) = self.receivers.get_mut(id as usize) {
                receiver.settings = Arc::clone(provider);
            }
        }
        for receiver in &mut self.receivers {
            if table.get(&receiver.name).is_none() {
                receiver.settings = Arc::new(Provider::named(&receiver.name));
            }
        }
        for number in 0..self.shapes.len() as u32 {
            let Some(shaped) = self.shapes.get_mut(number as usize) else { continue };
            let Some(receiver) = self.receivers.get(shaped.receiver as usize) else { continue };
            if !Arc::ptr_eq(shaped.shape.provider(), &receiver.settings) {
                shaped.shape.change(now, Arc::clone(&receiver.settings));
                shaped.paced = None;
                self.reopen(now, number);
            }
        }
    }

    pub(super) fn name_of(&self, receiver: u32) -> Arc<str> {
        self.receivers.get(receiver as usize).map_or_else(|| "".into(), |receiver| Arc::clone(&receiver.name))
    }

    pub(super) fn receiver_id(&mut self, name: &Arc<str>) -> u32 {
        let next = self.receivers.len() as u32;
        let id = *self.receiver_ids.entry(Arc::clone(name)).or_insert(next);
        if id == next {
            self.receivers.push(Receiver { name: Arc::clone(name), settings: Arc::new(Provider::named(name)) });
        }
        id
    }

    /// The shape of a leased IP and the provider of a site, made if need be.
    pub(super) fn shape_of(&mut self, lease: LeaseId, site: u32) -> Option<u32> {
        let receiver = self.sites.get(site)?.receiver?;
        self.shape_with(self.whole(lease), receiver)
    }

    /// A site is of another provider than before.
    pub(super) fn reshape(&mut self, now: Mono, site: u32, receiver: Option<u32>) {
        let Some(entry) = self.sites.get_mut(site).filter(|entry| entry.receiver != receiver) else { return };
        entry.receiver = receiver;
        let lanes: Vec<(u32, LeaseId)> =
            self.lanes.iter().filter(|(_, lane)| lane.site == site).map(|(n, lane)| (n, lane.lease)).collect();
        for (number, lease) in lanes {
            let shape = self.shape_of(lease, site);
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            let (before, connections) = (std::mem::replace(&mut lane.shape, shape), lane.connections);
            (lane.in_crowd, lane.is_stalled) = (false, false);
            if let Some(shaped) = before.and_then(|before| self.shapes.get_mut(before as usize)) {
                shaped.connections = shaped.connections.saturating_sub(connections);
                shaped.crowd.retain(|lane| *lane != number);
                shaped.stalled.retain(|lane| *lane != number);
            }
            if let Some(shaped) = shape.and_then(|shape| self.shapes.get_mut(shape as usize)) {
                shaped.connections += connections;
            }
            if let Some(before) = before {
                self.serve_crowd(now, before);
            }
            self.list(number);
        }
    }

    pub(super) fn shaped(&self, lane: u32) -> Option<&Shaped> {
        self.shapes.get(self.lanes.get(lane)?.shape? as usize)
    }

    fn shaped_mut(&mut self, lane: u32) -> Option<&mut Shaped> {
        let shape = self.lanes.get(lane)?.shape?;
        self.shapes.get_mut(shape as usize)
    }

    /// Has the shape of this lane nothing to give now?
    pub(super) fn is_closed(&self, lane: u32) -> bool {
        self.shaped(lane).is_some_and(|shaped| shaped.closed)
    }

    /// A lane wants one more connection: may it? If not, it stands in line.
    pub(super) fn may_connect(&mut self, now: Mono, number: u32) -> bool {
        let Some(lane) = self.lanes.get(number) else { return false };
        let (Some(shape), connections) = (lane.shape, lane.connections) else { return true };
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return true };
        if shaped.closed {
            self.stall(number);
            return false;
        }
        let paced = shaped.paced.map(|at| at.plus(PACED)).filter(|until| *until > now && connections > 0);
        if let Some(until) = paced {
            self.stall(number);
            self.arm_shape(now, shape, until);
            return false;
        }
        shaped.shape.advance(now);
        if shaped.shape.connections().is_none_or(|most| shaped.connections < most) {
            return true;
        }
        let Some(lane) = self.lanes.get_mut(number) else { return false };
        if !std::mem::replace(&mut lane.in_crowd, true) {
            shaped.crowd.push_back(number);
        }
        false
    }

    pub(super) fn connected(&mut self, lane: u32) {
        if let Some(shaped) = self.shaped_mut(lane) {
            shaped.connections += 1;
        }
    }

    pub(super) fn disconnected(&mut self, lane: u32) {
        let Some(shape) = self.lanes.get(lane).and_then(|lane| lane.shape) else { return };
        if let Some(shaped) = self.shapes.get_mut(shape as usize) {
            shaped.connections = shaped.connections.saturating_sub(1);
        }
        self.serve_crowd(self.clocks.0, shape);
    }

    /// Has the first lane in line that still wants a connection looked at.
    fn serve_crowd(&mut self, now: Mono, shape: u32) {
        while let Some(number) = self.shapes.get_mut(shape as usize).and_then(|shaped| shaped.crowd.pop_front()) {
            let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.shape == Some(shape)) else { continue };
            lane.in_crowd = false;
            if lane.wants_connection(now) {
                self.list(number);
                return;
            }
        }
    }

    /// Do others wait for the connections of this lane's provider? Then one that has nothing to do makes room.
    #[must_use]
    pub fn is_crowded(&self, lane: LaneId) -> bool {
        let own = self.lanes.get(lane.slot).filter(|entry| entry.id == lane);
        own.is_some() && self.shaped(lane.slot).is_some_and(|shaped| !shaped.crowd.is_empty())
    }

    /// Does this lane wait for a connection that another one of its provider has?
    #[must_use]
    pub fn waits_for_connection(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.slot).is_some_and(|entry| entry.id == lane && entry.in_crowd)
    }

    /// When the rate of its provider is looked at again, if that is what this lane waits for.
    #[must_use]
    pub fn rate_opens(&self, lane: LaneId) -> Option<Mono> {
        self.lanes.get(lane.slot).filter(|entry| entry.id == lane)?;
        let shaped = self.shaped(lane.slot)?;
        let by_rate = shaped.closed && shaped.shape.suspended().is_none();
        shaped.armed.filter(|_| by_rate)
    }

    /// Are there lanes that wait for a connection of another one?
    #[must_use]
    pub fn has_crowds(&self) -> bool {
        self.shapes.iter().any(|shaped| !shaped.crowd.is_empty())
    }

    /// A lane has mail that its shape has nothing at present.
    pub(super) fn stall(&mut self, number: u32) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        let Some(shaped) = lane.shape.and_then(|shape| self.shapes.get_mut(shape as usize)) else { return };
        if !std::mem::replace(&mut lane.is_stalled, true) {
            shaped.stalled.push_back(number);
        }
    }

    /// Takes so many messages out of the shape of a lane, if it has any to give.
    pub(super) fn may_take(&mut self, number: u32, messages: u32) -> bool {
        let now = self.clocks.0;
        let Some(shape) = self.lanes.get(number).and_then(|lane| lane.shape) else { return true };
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return true };
        if !shaped.closed {
            let Err(opens) = shaped.shape.take(now, messages) else { return true };
            shaped.closed = true;
            if shaped.shape.suspended().is_none() {
                shaped.paced = Some(now);
            }
            self.arm_shape(now, shape, opens);
        }
        self.stall(number);
        false
    }

    /// Messages that were taken have not gone.
    pub(super) fn take_back(&mut self, lane: u32, messages: u32) {
        if let Some(shaped) = self.shaped_mut(lane) {
            shaped.shape.give_back(messages);
        }
    }

    /// Most recipients of one message to the provider of this lane.
    pub(super) fn most_recipients(&self, lane: u32) -> Option<usize> {
        let most = self.shaped(lane)?.shape.provider().recipients?;
        Some(most as usize)
    }

    /// Leaves so many recipients in the first ready job of a lane; the others are the next one.
    pub(super) fn trim(&mut self, id: u32, lane: u32, most: usize) {
        let Some(job) = self.jobs.get(id).filter(|job| job.recipients.as_slice().len() > most) else { return };
        let Some(((first, own), (second, other))) = job.recipients.divide(job.domain, most.max(1)) else { return };
        let (key, expires, attempts, due) = (job.key, job.expires, job.attempts, job.due);
        let (paid, flags) = (job.paid, job.flags);
        self.share_domains((&first, own), (&second, other));
        self.keep_lane(lane);
        self.put(id, Place::Loose);
        if let Some(job) = self.jobs.get_mut(id) {
            (job.recipients, job.domain) = (first, own);
        }
        let new = self.insert(key, expires, second, other);
        if let Some(job) = self.jobs.get_mut(new) {
            (job.attempts, job.due, job.paid, job.flags) = (attempts, due, paid, flags);
        }
        for next in [new, id] {
            self.put(next, Place::Ready { lane });
            if let Some(entry) = self.lanes.get_mut(lane) {
                entry.list.remove(&mut self.jobs, next);
                entry.list.push_front(&mut self.jobs, next);
            }
        }
        self.leave(lane);
    }

    /// What a provider replied over this lane. Says what came of it, and until when nothing goes if so.
    pub fn complain(
        &mut self,
        now: Mono,
        wall: Wall,
        lane: LaneId,
        reply: (u16, Option<(u8, u16, u16)>, &str),
    ) -> Then {
        let (code, enhanced, text) = reply;
        if self.lane_named(lane).is_none() {
            return Then::Nothing;
        }
        let Some(shape) = self.lanes.get(lane.slot).and_then(|lane| lane.shape) else { return Then::Nothing };
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return Then::Nothing };
        let provider = Arc::clone(shaped.shape.provider());
        let Some(answer) = provider.answer(code, enhanced, text) else { return Then::Nothing };
        let then = shaped.shape.complain(now, wall, answer, &format!("{code} {text}"));
        self.after_step(now, shape);
        if then == Then::Suspend {
            self.blocked(lane);
        }
        then
    }

    /// Nothing of a leased IP goes to a provider before this time. False if there is no such provider.
    pub fn suspend(&mut self, now: Mono, wall: Wall, provider: &str, lease: LeaseId, until: Mono, why: &str) -> bool {
        self.clocks = (now, wall);
        let Some(receiver) = self.receiver_ids.get(provider).copied() else { return false };
        // They need not have met before.
        let Some(shape) = self.shape_with(lease, receiver) else { return false };
        if let Some(shaped) = self.shapes.get_mut(shape as usize) {
            shaped.shape.suspend(now, wall, until, why);
        }
        self.after_step(now, shape);
        true
    }

    /// Forgets what a provider complained of, its suspension, and that hosts of it were in trouble. False if a leased IP and
    /// a provider have not met.
    pub fn lift(&mut self, now: Mono, wall: Wall, provider: &str, lease: LeaseId) -> bool {
        self.clocks = (now, wall);
        let Some(receiver) = self.receiver_ids.get(provider).copied() else { return false };
        let Some(shape) = self.shape_ids.get(&(lease, receiver)).copied() else { return false };
        if let Some(shaped) = self.shapes.get_mut(shape as usize) {
            shaped.shape.lift(now);
            shaped.paced = None;
        }
        for number in self.lanes_of(shape) {
            if let Some(lane) = self.lanes.get_mut(number) {
                (lane.failures, lane.backed_off_until, lane.learned) = (0, now, None);
            }
            self.list(number);
        }
        self.reopen(now, shape);
        self.recall_put_off(now, shape);
        true
    }

    fn shape_with(&mut self, lease: LeaseId, receiver: u32) -> Option<u32> {
        if let Some(number) = self.shape_ids.get(&(lease, receiver)) {
            return Some(*number);
        }
        let settings = Arc::clone(&self.receivers.get(receiver as usize)?.settings);
        let number = self.shapes.len() as u32;
        self.shapes.push(Shaped::new(Shape::new(settings, self.clocks.0), lease, receiver));
        self.shape_ids.insert((lease, receiver), number);
        Some(number)
    }

    fn lanes_of(&self, shape: u32) -> Vec<u32> {
        self.lanes.iter().filter(|(_, lane)| lane.shape == Some(shape)).map(|(number, _)| number).collect()
    }

    /// What waits only because of a suspension need not any more.
    fn recall_put_off(&mut self, now: Mono, shape: u32) {
        let of_shape = |place: Place| match place {
            Place::Deferred { lane } => self.lanes.get(lane).is_some_and(|lane| lane.shape == Some(shape)),
            _ => false,
        };
        let put_off = self.jobs.iter().filter(|(_, job)| job.flags & PUT_OFF != 0 && of_shape(job.place));
        let ids: Vec<u32> = put_off.map(|(id, _)| id).collect();
        for id in ids {
            self.due(now, id);
        }
    }

    /// A shape may have less to give, or nothing: what was let go for it and has not been sent is worth more elsewhere.
    fn after_step(&mut self, now: Mono, shape: u32) {
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return };
        let suspended = shaped.shape.suspended();
        if let Some(until) = suspended {
            shaped.closed = true;
            for lane in self.lanes_of(shape) {
                self.put_off(now, lane, until);
            }
        }
        self.arm_next(now, shape);
    }

    /// Sets the timer of a shape for the next time at which something changes for it by time alone.
    fn arm_next(&mut self, now: Mono, shape: u32) {
        let next = self.shapes.get(shape as usize).and_then(|shaped| shaped.shape.next());
        if let Some(at) = next {
            self.arm_shape(now, shape, at);
        }
    }

    fn arm_shape(&mut self, now: Mono, shape: u32, at: Mono) {
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return };
        let at = at.max(now);
        if shaped.armed.is_none_or(|armed| armed > at) {
            (shaped.armed, shaped.stamp) = (Some(at), shaped.stamp.wrapping_add(1));
            self.timers.set(at, Due::Shape(shape), shaped.stamp);
        }
    }

    /// The timer of a shape: it has something to give again, or a step back up is due.
    pub(super) fn shape_due(&mut self, now: Mono, shape: u32, stamp: u32) {
        let Some(shaped) = self.shapes.get_mut(shape as usize).filter(|shaped| shaped.stamp == stamp) else { return };
        shaped.armed = None;
        self.reopen(now, shape);
    }

    /// Has as many lanes looked at as the shape has messages and connections for; the others keep their places in line.
    fn reopen(&mut self, now: Mono, shape: u32) {
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return };
        let opens = shaped.shape.opens(now);
        shaped.closed = opens > now;
        if opens > now {
            self.arm_shape(now, shape, opens);
            return self.arm_next(now, shape);
        }
        let mut let_on = shaped.shape.tokens(now);
        while let_on > 0 {
            let Some(number) = self.shapes.get_mut(shape as usize).and_then(|shaped| shaped.stalled.pop_front()) else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.shape == Some(shape)) else { continue };
            lane.is_stalled = false;
            let_on -= 1;
            self.list(number);
        }
        let Some(shaped) = self.shapes.get_mut(shape as usize) else { return };
        let free =
            shaped.shape.connections().map_or(usize::MAX, |most| most.saturating_sub(shaped.connections) as usize);
        let (stalled, crowd) = (shaped.stalled.len(), shaped.crowd.len());
        for _ in 0..free.min(crowd) {
            self.serve_crowd(now, shape);
        }
        if stalled > 0 {
            self.arm_shape(now, shape, now.plus(TURN));
        }
        self.arm_next(now, shape);
    }

    /// A lane goes: it stands in no line any more.
    pub(super) fn leave_lines(&mut self, number: u32) {
        let Some(lane) = self.lanes.get(number) else { return };
        let (in_crowd, is_stalled) = (lane.in_crowd, lane.is_stalled);
        let Some(shaped) = self.shaped_mut(number) else { return };
        if in_crowd {
            shaped.crowd.retain(|lane| *lane != number);
        }
        if is_stalled {
            shaped.stalled.retain(|lane| *lane != number);
        }
    }

    /// What came of recipients that were tried over this lane: delivered, deferred, bounced.
    pub fn told(&mut self, lane: LaneId, outcomes: [u64; 3]) {
        if self.lane_named(lane).is_none() {
            return;
        }
        self.told_ladder(lane, outcomes);
        if let Some(shaped) = self.shaped_mut(lane.slot) {
            for (sum, count) in shaped.outcomes.iter_mut().zip(outcomes) {
                *sum += count;
            }
        }
    }

    /// How all leased IPs stand with the providers that they have met.
    pub fn shapes(&mut self, now: Mono) -> Vec<ShapeInfo> {
        let mut queued = vec![[0_u64; 3]; self.shapes.len()];
        for (_, lane) in self.lanes.iter() {
            let Some(sums) = lane.shape.and_then(|shape| queued.get_mut(shape as usize)) else { continue };
            for (sum, count) in sums.iter_mut().zip(lane.counts) {
                *sum += count;
            }
        }
        let leases = &self.leases;
        let all = self.shapes.iter_mut().zip(queued).filter_map(|(shaped, queued)| {
            Some(ShapeInfo {
                provider: Arc::clone(&shaped.shape.provider().name),
                lease: leases.get(shaped.lease.index())?.address,
                standing: shaped.shape.standing(now),
                queued,
                connections: shaped.connections,
                outcomes: shaped.outcomes,
            })
        });
        all.collect()
    }
}

impl Shaped {
    fn new(shape: Shape, lease: LeaseId, receiver: u32) -> Self {
        Self {
            shape,
            lease,
            receiver,
            connections: 0,
            crowd: VecDeque::new(),
            stalled: VecDeque::new(),
            closed: false,
            paced: None,
            armed: None,
            stamp: 0,
            outcomes: [0; 3],
        }
    }

    /// What holds of its provider.
    pub(super) fn provider(&self) -> &Arc<Provider> {
        self.shape.provider()
    }

    /// Until when nothing goes.
    pub(super) fn suspended(&self) -> Option<Mono> {
        self.shape.suspended()
    }
}
