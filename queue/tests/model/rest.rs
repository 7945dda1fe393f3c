//! The end of a run: all is well, and everything must come to its end.

use crate::world::{DAY, MINUTE, State, World};

impl World {
    /// All is well from now on, and time goes by only as the queue itself asks for: everything must come to an end before
    /// it expires, but for what is so near its expiry that no try is left.
    pub(crate) fn come_to_rest(&mut self) {
        for domain in &mut self.domains {
            (domain.answers, domain.ttl) = (true, 86_400);
            domain.site.get_or_insert(0);
        }
        for site in &mut self.sites {
            site.up = true;
        }
        for n in (0..self.connections.len()).rev() {
            self.close(n);
        }
        let begun = self.clock;
        let mut rounds = 0;
        while self.open > 0 {
            rounds += 1;
            assert!(rounds < 100_000, "{} recipients come to no end", self.open);
            while let Some(name) = self.queue.ask() {
                self.answer(&name);
            }
            self.assign_all();
            self.work();
            let idle = self.connections.is_empty();
            while !self.connections.is_empty() {
                self.serve_last();
            }
            if idle && self.open > 0 {
                let wake = self.queue.next_wake().expect("mail is waiting for nothing");
                self.clock = self.clock.max(wake.0.div_ceil(1_000_000));
            }
        }
        // No back-off of the DNS or of a lane, and no retry, takes longer than this.
        let longest = 30 * MINUTE * 11 / 10 + self.retry.max.as_millis() as u64 * 13 / 10 + 1_000_000 + 15 * MINUTE;
        assert!(self.clock - begun <= longest, "mail waited {} s", (self.clock - begun) / 1000);
        self.nothing_is_left();
    }

    pub(super) fn assign_all(&mut self) {
        let first = self.leases[0];
        for key in self.queue.stranded_keys() {
            let lease = *self.lease_of.get_mut(&key).expect("a message").get_or_insert(first);
            self.gone.remove(&lease);
        }
        self.queue.assign(self.now(), self.wall(), |key| self.lease_of[&key]);
    }

    pub(super) fn serve_last(&mut self) {
        let n = self.connections.len() - 1;
        if !self.connections[n].ready {
            self.connections[n].ready = true;
            self.queue.connection_ready(self.connections[n].lane);
        }
        self.take(n, usize::MAX);
        for (job, key, recipients) in std::mem::take(&mut self.connections[n].jobs) {
            self.queue.done(job);
            self.set(key, &recipients, State::Ended);
        }
        self.close(n);
    }

    pub(super) fn nothing_is_left(&mut self) {
        self.clock += DAY;
        self.work();
        self.clock += DAY;
        self.work();
        assert_eq!(self.queue.lanes().count(), 0, "lanes without mail are forgotten");
        assert_eq!((self.queue.stranded(), self.queue.jobs().count(), self.queue.unresolved().count()), (0, 0, 0));
    }
}
