//! Connections: they come to be ready or fail, take jobs, and tell what became of them.

use crate::world::{State, World};
use mailrail_queue::{JobId, NextTry};

impl World {
    pub(super) fn something_on_a_connection(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let n = self.draw(self.connections.len());
        let lane = self.connections[n].lane;
        let up = self.queue.lane(lane).is_some_and(|lane| {
            let site: usize = lane.site.trim_start_matches("mx").parse().unwrap();
            self.sites[site].up
        });
        if !self.connections[n].ready {
            if up {
                self.connections[n].ready = true;
                self.queue.connection_ready(lane);
            } else {
                self.queue.connect_failed(self.now(), lane);
                self.queue.connection_closed(lane, true);
                self.connections.swap_remove(n);
            }
            return;
        }
        match self.draw(10) {
            0..4 => self.take(n, 1 + n % 4),
            4..8 => self.an_outcome(n),
            8 if self.chance(30) => drop(self.queue.site_trouble(self.now(), lane)),
            8 => self.take(n, 3),
            _ => self.close(n),
        }
    }

    pub(super) fn take(&mut self, n: usize, most: usize) {
        let lane = self.connections[n].lane;
        for _ in 0..most {
            let Some(taken) = self.queue.take(lane, self.wall()) else { return };
            let info = self.queue.lane(lane).expect("a lane with a connection");
            let site: usize = info.site.trim_start_matches("mx").parse().unwrap();
            let wall = self.wall();
            for number in &taken.recipients {
                let recipient = self.recipients.get_mut(&(taken.key, *number)).expect("a recipient of this message");
                assert_eq!(recipient.state, State::Queued, "handed out twice: {}/{number}", taken.key);
                assert!(recipient.not_before.0 <= wall.0, "too early: {}/{number}", taken.key);
                assert!(recipient.expires > wall, "handed out after its expiry");
                assert_eq!(recipient.attempts, taken.attempts);
                assert!(self.domains[recipient.domain].told.contains(&site), "a site that its domain never had");
                recipient.state = State::InFlight;
            }
            let lease = self.lease_of[&taken.key].expect("a stranded message is not handed out");
            assert_eq!(self.queue.lease_address(lease), Some(info.lease));
            self.trace = (self.trace.rotate_left(7) ^ taken.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.connections[n].jobs.push((taken.job, taken.key, taken.recipients));
        }
    }

    /// The first job on a connection ends, is deferred in part, or comes back.
    pub(super) fn an_outcome(&mut self, n: usize) {
        if self.connections[n].jobs.is_empty() {
            return;
        }
        let (job, key, recipients) = self.connections[n].jobs.remove(0);
        match self.draw(10) {
            0..5 => {
                self.queue.done(job);
                self.set(key, &recipients, State::Ended);
            }
            5..7 => {
                self.comes_back(n, key);
                self.queue.give_back(job);
                self.set(key, &recipients, State::Queued);
            }
            _ => {
                self.comes_back(n, key);
                let most = 1 + self.draw(recipients.len());
                self.defer(job, key, &recipients, most);
            }
        }
    }

    pub(super) fn defer(&mut self, job: JobId, key: u64, recipients: &[u16], waiting: usize) {
        let (waiting, ended) = recipients.split_at(waiting);
        let (now, wall) = (self.now(), self.wall());
        let next = self.queue.defer(now, wall, job, waiting);
        self.set(key, ended, State::Ended);
        let first = &self.recipients[&(key, waiting[0])];
        let (attempts, expires) = (first.attempts + 1, first.expires);
        let base =
            self.retry.wait(attempts, 0).as_millis() as f64 / (1.0 - f64::from(self.retry.jitter_percent) / 100.0);
        let spread = base * f64::from(self.retry.jitter_percent) / 100.0 + 1000.0;
        match next {
            NextTry::At(at) => {
                self.note(at.0);
                let wait = (at.0 - wall.0) as f64;
                assert!((wait - base).abs() <= spread, "waits {wait} where {base} ± {spread} is right");
                assert!(at < expires);
                self.set(key, waiting, State::Queued);
                for number in waiting {
                    let recipient = self.recipients.get_mut(&(key, *number)).unwrap();
                    (recipient.attempts, recipient.not_before) = (attempts, at);
                }
            }
            NextTry::Expired => {
                assert!(wall.0 as f64 + base + spread >= expires.0 as f64, "there was time for one more try");
                self.set(key, waiting, State::Ended);
            }
        }
    }

    pub(super) fn set(&mut self, key: u64, recipients: &[u16], state: State) {
        for number in recipients {
            let recipient = self.recipients.get_mut(&(key, *number)).unwrap();
            assert_ne!(recipient.state, State::Ended);
            recipient.state = state;
            self.open -= u64::from(state == State::Ended);
        }
    }

    /// A job in flight outlives the loss of its lease, and keeps it if it is there again.
    pub(super) fn comes_back(&mut self, n: usize, key: u64) {
        let address = self.queue.lane(self.connections[n].lane).expect("a lane with a connection").lease;
        let lease = self.queue.lease_id(address);
        if self.lease_of[&key].is_none() && !self.gone.contains(&lease) {
            self.lease_of.insert(key, Some(lease));
        }
    }

    pub(super) fn close(&mut self, n: usize) {
        for (job, key, recipients) in std::mem::take(&mut self.connections[n].jobs) {
            self.comes_back(n, key);
            self.queue.give_back(job);
            self.set(key, &recipients, State::Queued);
        }
        let connection = self.connections.swap_remove(n);
        self.queue.connection_closed(connection.lane, !connection.ready);
    }
}
