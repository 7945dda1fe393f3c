//! One thread of the load generator: its connections, its share of the messages, its retries.

mod settle;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::Shared;
use super::client::{Broken, Client, Context, Transaction};
use super::message::{Envelope, Stamp, rfc5322_date};
use super::tally::Tally;
use crate::cpu;
use crate::wire::{Decrypted, Wire};

/// Largest single read; replies are small.
const SCRATCH: usize = 32 << 10;
/// Pause before a connection that could not be made is tried again.
const RECONNECT: Duration = Duration::from_millis(50);
/// Longest sleep: how soon a stop or a timeout is noticed.
const TICK: Duration = Duration::from_millis(100);

/// A connection and what is read but not used.
struct Link {
    wire: Wire,
    client: Client,
    pending: Vec<u8>,
    connected: Instant,
    last_active: Instant,
    was_ready: bool,
}

enum Slot {
    /// No connection; one is made then.
    Closed(Instant),
    Open(Box<Link>),
    /// No connection, and none is made any more.
    GivenUp,
}

/// A message, or part of its recipients, that waits for another try.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Retry {
    at: Instant,
    number: u64,
    attempt: u32,
    which: Vec<u16>,
}

/// One per thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    poll: Poll,
    slots: Vec<Slot>,
    /// Slots whose connection can take a message and had none to take.
    idle: Vec<usize>,
    retries: BinaryHeap<Reverse<Retry>>,
    /// Messages begun and not ended, on any connection.
    in_flight: usize,
    /// No new message is left.
    exhausted: bool,
    last_contact: Instant,
    scratch: Vec<u8>,
    done: Vec<Transaction>,
    /// Used again, so that an envelope's strings are.
    spare: Vec<Envelope>,
    id: Vec<u8>,
    wall: (Instant, u64),
    date: (u64, String),
    tally: Tally,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, slots: Vec<usize>) -> io::Result<Self> {
        let now = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let opens = |at: &usize| Slot::Closed(shared.began + shared.schedule.opens(*at, shared.connections));
        Ok(Self {
            slots: slots.iter().map(opens).collect(),
            shared,
            poll: Poll::new()?,
            idle: Vec::new(),
            retries: BinaryHeap::new(),
            in_flight: 0,
            exhausted: false,
            last_contact: now,
            scratch: vec![0; SCRATCH],
            done: Vec::new(),
            spare: Vec::new(),
            id: Vec::new(),
            wall: (now, u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)),
            date: (u64::MAX, String::new()),
            tally: Tally::default(),
        })
    }

    pub(super) fn run(mut self) -> Tally {
        let cpu_before = cpu::this_thread();
        let mut events = Events::with_capacity(1024);
        let mut next_tick = Instant::now();
        while !self.is_finished() {
            let now = Instant::now();
            if next_tick <= now {
                next_tick = now + TICK;
                self.tick(now);
            }
            self.feed_idle(now);
            let wait = self.next_due(now).min(next_tick).saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => {
                    self.error(format!("epoll: {why}"));
                    break;
                }
            }
            for event in &events {
                let slot = event.token().0;
                if let Some(Slot::Open(link)) = self.slots.get_mut(slot) {
                    link.wire.note(event);
                    self.drive(slot, Instant::now());
                }
            }
        }
        self.abandon_rest();
        self.tally.report.cpu = cpu::this_thread().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        self.tally
    }

    fn is_finished(&self) -> bool {
        let nobody_left = self.slots.iter().all(|slot| matches!(slot, Slot::GivenUp));
        nobody_left || (self.exhausted && self.retries.is_empty() && self.in_flight == 0)
    }

    /// What is looked after now and then: the end of the run, connections to be made, replies overdue.
    fn tick(&mut self, now: Instant) {
        let next = self.shared.next.load(Ordering::Relaxed);
        if self.shared.stop.load(Ordering::Relaxed)
            || self.shared.schedule.is_over(next, now.saturating_duration_since(self.shared.began))
        {
            self.exhausted = true;
        }
        if self.shared.stop.load(Ordering::Relaxed) {
            self.abandon_rest();
        }
        for slot in 0..self.slots.len() {
            match &self.slots[slot] {
                Slot::Closed(_) if now.saturating_duration_since(self.last_contact) > self.shared.patience => {
                    self.slots[slot] = Slot::GivenUp;
                }
                Slot::Closed(at) if *at <= now => self.connect(slot, now),
                Slot::Open(link)
                    if link.client.is_waiting()
                        && now.saturating_duration_since(link.last_active) > self.shared.reply_timeout =>
                {
                    self.break_off(slot, "reply timed out".into(), now);
                }
                _ => {}
            }
        }
        // A connection that is only being made is no contact: nobody may be there to take it.
        if self.slots.iter().any(|slot| matches!(slot, Slot::Open(link) if link.was_ready)) {
            self.last_contact = now;
        }
    }

    /// When the loop must look again though no socket has anything to say.
    fn next_due(&self, now: Instant) -> Instant {
        let mut due = now + TICK;
        // Without a connection that could take it, a retry that is due would only spin the loop.
        if let Some(Reverse(retry)) = self.retries.peek()
            && !self.idle.is_empty()
        {
            due = due.min(retry.at);
        }
        if !self.exhausted && !self.idle.is_empty() {
            let next = self.shared.next.load(Ordering::Relaxed);
            due = due.min(self.shared.began + self.shared.schedule.due(next));
        }
        due
    }

    fn connect(&mut self, slot: usize, now: Instant) {
        let socket = TcpStream::connect(self.shared.target).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(slot), interest)?;
            let _ = socket.set_nodelay(true);
            Ok(socket)
        });
        match socket {
            Ok(socket) => {
                let mut wire = Wire::new(socket);
                // Writable says that the connection stands.
                wire.writable = false;
                let mut client = Client::new();
                if self.shared.implicit_tls && start_tls(&self.shared, &mut wire) {
                    client.implicit_tls();
                }
                let link =
                    Link { wire, client, pending: Vec::new(), connected: now, last_active: now, was_ready: false };
                self.slots[slot] = Slot::Open(Box::new(link));
                self.tally.report.connections += 1;
                self.shared.live.connections.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) => {
                self.error(format!("connect: {}", why.kind()));
                self.slots[slot] = Slot::Closed(now + RECONNECT);
            }
        }
    }

    /// Does all that can be done on a connection now.
    fn drive(&mut self, slot: usize, now: Instant) {
        let Some(Slot::Open(mut link)) = self.slots.get_mut(slot).map(|it| std::mem::replace(it, Slot::GivenUp)) else {
            return;
        };
        let result = self.drive_link(slot, &mut link, now);
        self.slots[slot] = Slot::Open(link);
        if let Err(why) = result {
            self.break_off(slot, why, now);
        }
        self.settle_done(now);
    }

    fn drive_link(&mut self, slot: usize, link: &mut Link, now: Instant) -> Result<(), String> {
        loop {
            self.begin_all(slot, link, now);
            link.wire.flush(&mut link.client.out).map_err(|why| format!("write: {}", why.kind()))?;
            if link.client.starting_tls {
                if !start_tls(&self.shared, &mut link.wire) {
                    return Err("TLS cannot be set up".into());
                }
                link.client.tls_started(&self.shared.habits);
                continue;
            }
            if !link.wire.readable {
                return Ok(());
            }
            let Some(len) = link.wire.read(&mut self.scratch).map_err(|why| format!("read: {}", why.kind()))? else {
                return Ok(());
            };
            if len == 0 {
                let is_good_end = link.client.is_spent(&self.shared.habits) || !link.client.is_waiting();
                return Err(if is_good_end { String::new() } else { "closed by the server".into() });
            }
            link.last_active = now;
            self.take(link, len, now)?;
            if !link.was_ready && link.client.is_ready() {
                link.was_ready = true;
                self.tally.connect.record(now.saturating_duration_since(link.connected));
            }
            // A server that turns everybody away is not there for this run.
            if link.was_ready {
                self.last_contact = now;
            }
            if link.client.is_spent(&self.shared.habits) && !link.client.can_begin(&self.shared.habits) {
                link.client.quit();
            }
            self.settle_done(now);
        }
    }

    /// Hands bytes just read to the client.
    fn take(&mut self, link: &mut Link, len: usize, now: Instant) -> Result<(), String> {
        let raw = &self.scratch[..len];
        if link.wire.is_tls() {
            match link.wire.decrypt(raw, &mut link.pending) {
                Ok(Decrypted::Bytes | Decrypted::Established(_)) => {}
                Err(why) => return Err(format!("TLS: {why}")),
            }
        } else {
            link.pending.extend_from_slice(raw);
        }
        let wall_us = self.wall_us(now);
        if self.date.0 != wall_us / 1_000_000 {
            self.date = (wall_us / 1_000_000, rfc5322_date(wall_us / 1_000_000));
        }
        let mut cx = Context {
            now,
            stamp: Stamp { wall_us, date: &self.date.1 },
            recipe: &self.shared.recipe,
            habits: &self.shared.habits,
            done: &mut self.done,
        };
        let used = link.client.input(&link.pending, &mut cx).map_err(|why| describe(&why))?;
        if used == link.pending.len() {
            link.pending.clear();
        } else {
            link.pending.drain(..used);
        }
        Ok(())
    }

    /// Gives a connection messages for as long as it takes some and there are some.
    fn begin_all(&mut self, slot: usize, link: &mut Link, now: Instant) {
        while link.client.can_begin(&self.shared.habits) {
            let Some(transaction) = self.next_transaction(now) else {
                if !self.idle.contains(&slot) {
                    self.idle.push(slot);
                }
                return;
            };
            self.in_flight += 1;
            if !link.client.is_waiting() {
                // The clock of the reply timeout starts with the first command.
                link.last_active = now;
            }
            link.client.begin(transaction, &self.shared.recipe);
        }
    }

    /// Wakes idle connections while anything is due.
    fn feed_idle(&mut self, now: Instant) {
        while !self.idle.is_empty() && self.has_work(now) {
            if let Some(slot) = self.idle.pop() {
                self.drive(slot, now);
            }
        }
    }

    fn has_work(&self, now: Instant) -> bool {
        let retry_due = self.retries.peek().is_some_and(|Reverse(retry)| retry.at <= now);
        let elapsed = now.saturating_duration_since(self.shared.began);
        let next = self.shared.next.load(Ordering::Relaxed);
        let is_new_due = !self.exhausted
            && self.shared.schedule.due(next) <= elapsed
            && !self.shared.schedule.is_over(next, elapsed);
        retry_due || is_new_due
    }

    /// The next message that is due, a retry before a new one.
    fn next_transaction(&mut self, now: Instant) -> Option<Transaction> {
        if self.retries.peek().is_some_and(|Reverse(retry)| retry.at <= now)
            && let Some(Reverse(retry)) = self.retries.pop()
        {
            let envelope = self.envelope(retry.number);
            return Some(Transaction::new(retry.number, retry.attempt, envelope, retry.which, now));
        }
        if self.exhausted {
            return None;
        }
        let elapsed = now.saturating_duration_since(self.shared.began);
        let schedule = &self.shared.schedule;
        let claim = |next| (!schedule.is_over(next, elapsed) && schedule.due(next) <= elapsed).then_some(next + 1);
        let Ok(number) = self.shared.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) else {
            self.exhausted = schedule.is_over(self.shared.next.load(Ordering::Relaxed), elapsed);
            return None;
        };
        let due = match schedule.pace {
            super::Pace::Closed => now,
            super::Pace::Open(_) => self.shared.began + schedule.due(number),
        };
        self.tally.lateness.record(now.saturating_duration_since(due));
        let envelope = self.envelope(number);
        let which: Vec<u16> = (0..=u16::MAX).take(envelope.recipients.len()).collect();
        self.tally.report.messages += 1;
        self.tally.report.recipients.offered += which.len() as u64;
        self.shared.live.begun.fetch_add(1, Ordering::Relaxed);
        Some(Transaction::new(number, 1, envelope, which, due))
    }

    fn envelope(&mut self, number: u64) -> Envelope {
        let mut envelope = self.spare.pop().unwrap_or_default();
        self.shared.recipe.envelope(number, &mut envelope);
        envelope
    }

    /// Ends a connection; an empty reason is no error.
    fn break_off(&mut self, slot: usize, why: String, now: Instant) {
        if !why.is_empty() {
            self.error(why);
        }
        self.idle.retain(|idle| *idle != slot);
        if let Slot::Open(mut link) = std::mem::replace(&mut self.slots[slot], Slot::Closed(now)) {
            let _ = self.poll.registry().deregister(&mut link.wire.socket);
            link.client.lost(&mut self.done);
            self.shared.live.connections.fetch_sub(1, Ordering::Relaxed);
            if !link.was_ready {
                self.slots[slot] = Slot::Closed(now + RECONNECT);
            }
        }
        self.settle_done(now);
    }

    fn error(&mut self, why: String) {
        self.shared.live.errors.fetch_add(1, Ordering::Relaxed);
        *self.tally.report.errors.entry(why).or_default() += 1;
    }
}

fn start_tls(shared: &Shared, wire: &mut Wire) -> bool {
    let Some(config) = &shared.tls else { return false };
    let name = ServerName::IpAddress(shared.target.ip().into());
    match ClientConnection::new(Arc::clone(config), name) {
        Ok(tls) => {
            wire.start_tls(tls.into());
            true
        }
        Err(_) => false,
    }
}

fn describe(why: &Broken) -> String {
    match why {
        Broken::Refused(what, code) => format!("{what} refused with {code}"),
        Broken::Malformed => "malformed reply".into(),
        Broken::InjectedPlaintext => "plaintext behind the reply to STARTTLS".into(),
        Broken::NotOffered(what) => format!("{what} not offered"),
    }
}
