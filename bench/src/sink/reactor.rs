//! The event loop of a sink: one epoll, all connections of one thread. Edge-triggered, one read and one write a turn
//! where the client pipelines; nothing is allocated for a message.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::sink::books::Books;
use crate::sink::connection::{Connection, Next};
use crate::sink::session::{Context, Session};
use crate::sink::shared::{Shared, lock};

/// Largest single read.
const SCRATCH: usize = 256 << 10;
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(5);

const WAKE: Token = Token(0);

/// One per thread of a sink.
pub(super) struct Reactor {
    number: usize,
    poll: Poll,
    waker: Arc<Waker>,
    /// Listeners with their models; their tokens follow `WAKE`.
    listeners: Vec<(TcpListener, usize)>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    shared: Arc<Shared>,
    scratch: Vec<u8>,
    rng: SmallRng,
    accept_again: Option<Instant>,
    began: (Instant, u64),
}

impl Reactor {
    pub(super) fn new(
        number: usize,
        listeners: Vec<(std::net::TcpListener, usize)>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let mut registered = Vec::with_capacity(listeners.len());
        for (at, (listener, model)) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(at + 1), Interest::READABLE)?;
            registered.push((listener, model));
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            number,
            poll,
            waker,
            listeners: registered,
            connections: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            shared,
            scratch: vec![0; SCRATCH],
            rng: SmallRng::seed_from_u64(seed),
            accept_again: None,
            began: (Instant::now(), u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)),
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut events = Events::with_capacity(1024);
        let mut next_sweep = Instant::now() + SWEEP;
        while !shared.stop.load(Ordering::Acquire) {
            let now = Instant::now();
            let due = self.timers.peek().map(|Reverse((at, _))| *at);
            let due = [due, self.accept_again, Some(next_sweep)].into_iter().flatten().min().unwrap_or(next_sweep);
            match self.poll.poll(&mut events, Some(due.saturating_duration_since(now))) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            let mut books = lock(&shared.books[self.number]);
            for event in &events {
                match event.token() {
                    WAKE => {}
                    Token(at) if at <= self.listeners.len() => self.accept(at - 1, &mut books),
                    Token(at) => self.ready(at - self.listeners.len() - 1, event, &mut books),
                }
            }
            let now = Instant::now();
            self.fire_timers(now, &mut books);
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                (0..self.listeners.len()).for_each(|at| self.accept(at, &mut books));
            }
            if next_sweep <= now {
                next_sweep = now + SWEEP;
                self.sweep(now);
            }
            drop(books);
            drop(lock(&shared.progress_lock));
            shared.progress.notify_all();
        }
    }

    fn accept(&mut self, listener: usize, books: &mut Books) {
        loop {
            match self.listeners[listener].0.accept() {
                Ok((socket, peer)) => self.admit(socket, peer, self.listeners[listener].1, books),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    // Out of descriptors, most likely: edge-triggered readiness is not repeated, so ask again later.
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut socket: TcpStream, peer: SocketAddr, model: usize, books: &mut Books) {
        let ip = peer.ip().to_canonical();
        let cell = books.cells.place(model, ip);
        if self.connections.len() - self.free.len() >= self.shared.connections_max {
            books.cells.at(cell).connections_refused += 1;
            let _ = io::Write::write(&mut socket, b"421 4.3.2 Too many connections\r\n");
            return;
        }
        let _ = socket.set_nodelay(true);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let token = Token(slot + self.listeners.len() + 1);
        if self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE).is_err() {
            self.free.push(slot);
            return;
        }
        let open = self.shared.policy().connect(model, ip);
        let now = Instant::now();
        let mut connection = Connection::new(socket, ip, model, Session::new(ip, model, cell), now);
        connection.session.greet(open, &mut self.context(now, books).0);
        self.connections[slot] = Some(connection);
        self.drive(slot, now, books);
    }

    fn context<'a>(&'a mut self, now: Instant, books: &'a mut Books) -> (Context<'a>, &'a mut [u8]) {
        let wall = self.began.1 + u64::try_from(now.duration_since(self.began.0).as_micros()).unwrap_or(u64::MAX);
        let cx = Context { now, wall_us: wall, shared: &self.shared, books, rng: &mut self.rng };
        (cx, &mut self.scratch)
    }

    fn ready(&mut self, slot: usize, event: &Event, books: &mut Books) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        connection.wire.note(event);
        self.drive(slot, Instant::now(), books);
    }

    fn drive(&mut self, slot: usize, now: Instant, books: &mut Books) {
        let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) else { return };
        let (mut cx, scratch) = self.context(now, books);
        match connection.drive(scratch, &mut cx) {
            Next::Close => self.close(slot, connection),
            Next::Wait(due) => {
                if let Some(at) = due
                    && connection.timer != Some(at)
                {
                    connection.timer = Some(at);
                    self.timers.push(Reverse((at, slot)));
                }
                self.connections[slot] = Some(connection);
            }
        }
    }

    fn close(&mut self, slot: usize, mut connection: Connection) {
        let _ = self.poll.registry().deregister(&mut connection.wire.socket);
        self.shared.policy().disconnect(connection.model, connection.ip);
        self.free.push(slot);
        if self.accept_again.is_some() {
            self.accept_again = Some(Instant::now());
        }
    }

    fn fire_timers(&mut self, now: Instant, books: &mut Books) {
        while let Some(Reverse((at, slot))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            self.drive(slot, now, books);
        }
    }

    fn sweep(&mut self, now: Instant) {
        for slot in 0..self.connections.len() {
            let is_idle = self.connections[slot]
                .as_ref()
                .is_some_and(|connection| now.duration_since(connection.last_active) > self.shared.idle_timeout);
            if is_idle && let Some(connection) = self.connections[slot].take() {
                self.close(slot, connection);
            }
        }
    }
}
