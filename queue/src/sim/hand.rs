//! The hands of a rehearsal: what the tasks of a shard do when the queue says that there is work.

use super::{
    receiver::{Answer, Reply},
    report::Trouble,
    world::{Line, World},
};
use crate::{
    JobId, LaneId, Left, NextTry, Taken, Work,
    classify::Verdict,
    egress::{self, Ask, Beside, Choice, News},
    policy::{LeaseIndex, Overflow, PoolKind},
    warmup::ledger::NeverSeen,
};
use std::cmp::Reverse;

/// What is known of the leased IPs.
struct Known<'a> {
    left: &'a [Left],
    load: &'a [u64],
}

impl News for Known<'_> {
    fn load(&self, lease: LeaseIndex) -> u64 {
        self.load.get(lease.0 as usize).copied().unwrap_or(0)
    }

    fn left(&self, lease: LeaseIndex) -> Left {
        self.left.get(lease.0 as usize).copied().unwrap_or(Left::Unknown)
    }
}

impl World {
    /// The leased IP for recipients of a batch, in its own pool or where that says.
    pub(super) fn choose(&mut self, key: u64, count: u64) -> Choice {
        let Some(pool) = self.batches.get(key as usize).map(|batch| batch.pool) else { return Choice::Wait(None) };
        let choice = self.choose_in(pool, key, count);
        self.check_choice(pool, choice);
        if let Choice::Over(_) = choice {
            self.count_overflow(key, count);
        }
        choice
    }

    fn ask(&self, pool: u32, key: u64) -> Ask {
        let hash = self.batches.get(key as usize).map_or(0, |batch| batch.hash);
        Ask { pool, of_host: false, local_shard: 0, slack: 0, hash }
    }

    fn choose_in(&mut self, pool: u32, key: u64, count: u64) -> Choice {
        self.refresh();
        let known = Known { left: &self.left, load: &self.load };
        let choice = egress::choose(&self.campaign.policy, self.ask(pool, key), &known);
        if let Choice::Go(LeaseIndex(index)) | Choice::Over(LeaseIndex(index)) = choice {
            let index = index as usize;
            self.load[index] += count;
            if let Left::Warming(left) = &mut self.left[index] {
                *left = left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        choice
    }

    fn count_overflow(&mut self, key: u64, count: u64) {
        let Some(batch) = self.batches.get(key as usize) else { return };
        self.today.overflowed += count;
        self.of_pools[batch.pool as usize].overflowed += count;
        self.of_receivers[batch.receiver].0.overflowed += count;
    }

    /// Does a choice follow from what the pool says of its overflow?
    fn check_choice(&mut self, pool: u32, choice: Choice) {
        let policy = &self.campaign.policy;
        let Some(own) = policy.pools.get(pool as usize) else { return };
        let kind = |index: LeaseIndex| {
            let pool = policy.leases.get(index.0 as usize).map_or(0, |lease| lease.pool);
            (pool, policy.pools.get(pool as usize).map(|pool| pool.kind))
        };
        let account = egress::account_of(own);
        let mine = policy.pools.iter().filter(|of| of.kind == PoolKind::Dedicated && egress::account_of(of) == account);
        let has_done = mine.flat_map(|of| &of.leases).any(|lease| self.left[lease.0 as usize] == Left::Done);
        let wrong = match choice {
            Choice::Go(lease) => kind(lease).0 != pool,
            Choice::Over(lease) => match own.overflow {
                Overflow::Pool | Overflow::Defer | Overflow::Reject => true,
                Overflow::Dedicated => kind(lease).1 != Some(PoolKind::Dedicated),
                Overflow::Shared => kind(lease).1 != Some(PoolKind::Shared),
                Overflow::Auto => (kind(lease).1 == Some(PoolKind::Shared)) == has_done,
            },
            Choice::Wait(_) | Choice::Reject(_) => false,
        };
        if wrong {
            self.broken =
                Some(format!("mail of pool {} went to {choice:?}, which its overflow does not allow", own.name));
        }
    }

    pub(super) fn work(&mut self, work: Work) {
        match work {
            Work::Connect { lane } => {
                self.queue.connection_opened(lane);
                self.queue.connection_ready(lane);
                let Some(info) = self.queue.lane(lane) else { return };
                let own = self.by_ip.get(&info.lease).copied().unwrap_or(0);
                let line = self.lines.entry(lane).or_insert(Line { open: 0, busy: 0, own, woken: false });
                line.open += 1;
                self.serve(lane);
            }
            Work::Overflow { job } => self.overflow(job),
            Work::Expired { job } | Work::Undeliverable { job } => {
                let (count, key) = (self.queue.recipients_of(job), self.queue.job(job).map(|job| job.0));
                self.queue.done(job);
                if let Some(key) = key {
                    self.expire(key, count);
                }
            }
        }
    }

    fn expire(&mut self, key: u64, count: u64) {
        let Some(batch) = self.batches.get(key as usize) else { return };
        self.today.expired += count;
        self.of_pools[batch.pool as usize].expired += count;
        self.of_receivers[batch.receiver].0.expired += count;
        self.settle(key, count);
    }

    /// A plan or a ladder does not let a job go in time.
    fn overflow(&mut self, job: JobId) {
        let (now, wall) = (self.now(), self.wall());
        let Some(key) = self.queue.job(job).map(|job| job.0) else { return };
        let lane = self.queue.jobs_lane(job).and_then(|lane| self.queue.lane(lane));
        let Some(own) = lane.and_then(|lane| self.by_ip.get(&lane.lease).copied()) else { return };
        let count = self.queue.recipients_of(job);
        let to = match self.queue.ladder_of(job) {
            Some((step, provider)) => self.beside(key, own, step, &provider, count),
            None => match self.choose(key, count) {
                Choice::Go(lease) | Choice::Over(lease) => Some(lease),
                Choice::Wait(_) | Choice::Reject(_) => None,
            },
        };
        let Some(to) = to.map(|index| index.0 as usize).filter(|to| *to != own) else { return };
        let lease = self.owns[to].lease;
        self.queue.reroute(now, wall, job, lease);
    }

    fn beside(&mut self, key: u64, own: usize, step: u32, provider: &str, count: u64) -> Option<LeaseIndex> {
        let (now, wall) = (self.now(), self.wall());
        let (owns, queue) = (&self.owns, &mut self.queue);
        let room = |index: LeaseIndex| Some(queue.room(now, wall, owns.get(index.0 as usize)?.lease, provider));
        match egress::beside(&self.campaign.policy, LeaseIndex(own as u32), step, count, room) {
            Beside::Lease(other) => Some(other),
            Beside::Nowhere => None,
            Beside::Shared => {
                self.refresh();
                let of = self.campaign.policy.leases.get(own)?.pool;
                let known = Known { left: &self.left, load: &self.load };
                let lease = egress::choose_shared(&self.campaign.policy, self.ask(of, key), &known)?;
                self.load[lease.0 as usize] += count;
                self.count_overflow(key, count);
                Some(lease)
            }
        }
    }

    /// Hands mail to the open connections of a lane, for as much as they get done before the next look.
    pub(super) fn serve(&mut self, lane: LaneId) {
        let (now, wall) = (self.now(), self.wall());
        let horizon = now.0 + self.grain.tick_ms * 1_000_000;
        while let Some(line) = self.lines.get_mut(&lane) {
            line.busy = line.busy.max(now.0);
            if line.busy >= horizon {
                if !line.woken {
                    line.woken = true;
                    self.wakes.push(Reverse((line.busy, lane)));
                }
                return;
            }
            let Some(taken) = self.queue.take(lane, wall) else { break };
            if !self.try_it(lane, &taken) || self.broken.is_some() {
                return self.hang_up(lane);
            }
        }
        if self.queue.lane(lane).is_none_or(|info| info.ready == 0) {
            self.hang_up(lane);
        }
    }

    fn hang_up(&mut self, lane: LaneId) {
        if let Some(line) = self.lines.remove(&lane) {
            (0..line.open).for_each(|_| self.queue.connection_closed(lane, false));
        }
    }

    /// One transaction, or those of a crowd, one after the other. False: the receiver wants to be left alone.
    fn try_it(&mut self, lane: LaneId, taken: &Taken<u64>) -> bool {
        let (wall, key) = (self.wall(), taken.key);
        let count = self.queue.recipients_of(taken.job) as u32;
        let (Some(line), Some(batch)) = (self.lines.get(&lane), self.batches.get(key as usize)) else { return false };
        let (own, probe, receiver) = (line.own, line.open, batch.receiver);
        let unknown = self.unknown(key);
        let at = self.standing(own, receiver);
        let mut chance = self.draw();
        let model = &self.campaign.receivers[receiver];
        let mut more = || crate::retry::chance(&mut chance);
        let answer = self.standings[at].answer(model, wall, (count, probe), unknown, &mut more);
        self.count_seen(lane, own, taken, u64::from(count - answer.untried));
        let tried = count - answer.untried;
        if let Some(line) = self.lines.get_mut(&lane) {
            let each = u64::try_from(self.campaign.message.as_nanos()).unwrap_or(u64::MAX);
            line.busy = line.busy.saturating_add(each.saturating_mul(u64::from(tried)) / u64::from(line.open.max(1)));
        }
        self.land(lane, taken.job, key, own, &answer)
    }

    fn unknown(&self, key: u64) -> f64 {
        self.batches.get(key as usize).map_or(0.0, |batch| batch.unknown)
    }

    /// No leased IP is seen with more recipients on a day than its cap. One that was seen before on that day counts once.
    fn count_seen(&mut self, lane: LaneId, own: usize, taken: &Taken<u64>, tried: u64) {
        let (now, wall) = (self.now(), self.wall());
        if !self.owns[own].counted {
            return;
        }
        let Some(counted) = self.queue.counted(lane) else { return };
        let Some(ledger) = self.queue.ledger(counted) else {
            self.broken = Some(format!("{} sent without its ledger", self.owns[own].ip));
            return;
        };
        let (standing, day) = (ledger.standing(now, wall), ledger.day());
        let Some(batch) = self.batches.get_mut(taken.key as usize) else { return };
        let before = batch.seen.contains(&(own as u32, day));
        if !before {
            batch.seen.push((own as u32, day));
        }
        if before && taken.attempts > 0 {
            return;
        }
        let receiver = if self.owns[own].managed { batch.receiver } else { usize::MAX };
        let seen = self.seen.entry((own, receiver)).or_insert((day, 0));
        if seen.0 != day {
            *seen = (day, 0);
        }
        seen.1 += tried;
        if let Some(cap) = standing.cap.filter(|cap| seen.1 > u64::from(*cap)) {
            let ip = self.owns[own].ip;
            self.broken = Some(format!("{ip} was seen with {} recipients, and its cap is {cap}", seen.1));
        }
    }

    /// What a try came to, in the order in which a shard tells it to the queue.
    fn land(&mut self, lane: LaneId, job: JobId, key: u64, own: usize, answer: &Answer) -> bool {
        let ended = answer.taken + answer.bounced;
        let untried = self.part(job, answer.untried, answer.refused + answer.busy + ended);
        let refused = self.part(job, answer.refused, answer.busy + ended);
        let busy = self.part(job, answer.busy, ended);
        if let Some(part) = untried {
            self.queue.give_back_unseen(part, NeverSeen::nothing_written());
        }
        if ended > 0 {
            self.tell(lane, key, own, [answer.taken, 0, answer.bounced]);
            self.queue.done(job);
            self.settle(key, u64::from(ended));
        }
        if let Some(part) = busy {
            self.tell(lane, key, own, [0, answer.busy, 0]);
            self.defer(key, part, answer.busy);
        }
        refused.is_none_or(|part| self.refused(lane, part, key, own, answer))
    }

    /// `count` of a job; the job itself if there are no `others`.
    fn part(&mut self, job: JobId, count: u32, others: u32) -> Option<JobId> {
        match (count, others) {
            (0, _) => None,
            (_, 0) => Some(job),
            _ => {
                let part = self.queue.split_off(job, count);
                if part.is_none() {
                    self.broken = Some("a job could not be divided".into());
                }
                part
            }
        }
    }

    fn defer(&mut self, key: u64, job: JobId, count: u32) {
        let (now, wall) = (self.now(), self.wall());
        let next = if self.grain.crowd == 1 {
            self.queue.defer(now, wall, job, &[0])
        } else {
            self.queue.defer_crowd(now, wall, job, count)
        };
        if next == NextTry::Expired {
            self.expire(key, u64::from(count));
        }
    }

    /// The receiver refuses a leased IP.
    fn refused(&mut self, lane: LaneId, job: JobId, key: u64, own: usize, answer: &Answer) -> bool {
        let (now, wall) = (self.now(), self.wall());
        let receiver = self.batches.get(key as usize).map_or(0, |batch| batch.receiver);
        let model = &self.campaign.receivers[receiver];
        let replies = if answer.reply.1 { &model.blocked } else { &model.slow };
        let Some(reply) = replies.get(answer.reply.0).cloned() else { return true };
        let class = self.classifier.classify(reply.code, reply.enhanced, &reply.text);
        self.queue.complain(now, wall, lane, (reply.code, reply.enhanced, &reply.text));
        if class.site_wide {
            self.queue.site_trouble(now, lane);
        }
        self.remember(own, receiver, answer.reply.1, &reply);
        if let Verdict::Bounced(..) = class.verdict {
            self.tell(lane, key, own, [0, 0, answer.refused]);
            self.queue.done(job);
            self.settle(key, u64::from(answer.refused));
        } else {
            self.tell(lane, key, own, [0, answer.refused, 0]);
            self.defer(key, job, answer.refused);
        }
        !class.site_wide
    }

    fn tell(&mut self, lane: LaneId, key: u64, own: usize, outcomes: [u32; 3]) {
        let [sent, deferred, bounced] = outcomes.map(u64::from);
        self.queue.told(lane, [sent, deferred, bounced]);
        let Some(batch) = self.batches.get(key as usize) else { return };
        for sums in [&mut self.today, &mut self.of_receivers[batch.receiver].0, &mut self.owns[own].sums] {
            sums.sent += sent;
            sums.deferred += deferred;
            sums.bounced += bounced;
        }
    }

    fn remember(&mut self, own: usize, receiver: usize, blocked: bool, reply: &Reply) {
        let (now, wall) = (self.now(), self.wall());
        let day = (self.ms / super::flow::DAY) as u32 + 1;
        let (ip, pool, lease) = (self.owns[own].ip, self.owns[own].pool, self.owns[own].lease);
        let takes = self.standings[self.standing(own, receiver)].limit() as u64;
        let cap = self.queue.ledger(lease).and_then(|ledger| ledger.standing(now, wall).cap);
        let names = || {
            let pool = self.campaign.policy.pools.get(pool).map_or_else(String::new, |pool| pool.name.to_string());
            (self.campaign.receivers[receiver].name.to_string(), pool)
        };
        let first = || {
            let (receiver, pool) = names();
            let reply = reply.to_string().replace("{ip}", &ip.to_string());
            (Trouble { receiver, pool, blocked, day, ip, takes, cap, reply, days: 0 }, 0)
        };
        let entry = self.troubles.entry((pool, receiver, blocked)).or_insert_with(first);
        if entry.1 != day {
            entry.1 = day;
            entry.0.days += 1;
        }
        let blocks = self.standings[own * self.campaign.receivers.len() + receiver].newly_blocked();
        if blocks {
            self.blocks += 1;
            self.owns[own].blocks += 1;
            self.of_receivers[receiver].1 += 1;
        }
    }
}
