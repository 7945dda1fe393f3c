//! One connection of a sink: wire and SMTP session. Moves bytes, decides nothing.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::sink::session::{Context, End, Session};
use crate::wire::{Decrypted, Wire};

/// Longest command line taken; content is not limited by it.
const LINE_MAX: usize = 64 << 10;
/// Replies that may wait for a client that does not read them, before its input is left alone.
const UNREAD_REPLIES_MAX: usize = 64 << 10;
/// How often a slow reader looks again.
const SLOW_TICKS_PER_SECOND: u64 = 20;
/// Pause between two pieces of an endless reply.
const ENDLESS_PAUSE: Duration = Duration::from_millis(1);

/// What a connection waits for.
pub(super) enum Next {
    /// The network, or this moment.
    Wait(Option<Instant>),
    /// Nothing more.
    Close,
}

/// One per connection.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) ip: IpAddr,
    pub(super) model: usize,
    pub(super) last_active: Instant,
    /// The moment the reactor's timer is set to.
    pub(super) timer: Option<Instant>,
    pub(super) session: Session,
    /// Input that the session has not used up.
    pending: Vec<u8>,
    read_after: Option<Instant>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, ip: IpAddr, model: usize, session: Session, now: Instant) -> Self {
        Self {
            wire: Wire::new(socket),
            ip,
            model,
            last_active: now,
            timer: None,
            session,
            pending: Vec::new(),
            read_after: None,
        }
    }

    /// Does all that can be done now.
    pub(super) fn drive(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> Next {
        self.last_active = cx.now;
        loop {
            self.session.release(cx.now);
            if self.session.is_open() && !self.pending.is_empty() {
                self.use_pending(cx);
            }
            let babbles = self.session.babble();
            if self.wire.flush(&mut self.session.out).is_err() {
                return Next::Close;
            }
            let is_flushed = self.session.out.is_empty() && self.session.due().is_none();
            if is_flushed && self.session.end == End::AfterFlush {
                return Next::Close;
            }
            if is_flushed && self.session.starting_tls && !self.start_tls(cx) {
                return Next::Close;
            }
            if babbles {
                return Next::Wait(self.wire.writable.then(|| cx.now + ENDLESS_PAUSE));
            }
            if self.read_after.is_some_and(|at| at > cx.now) {
                return Next::Wait(self.read_after);
            }
            let welcome = self.session.is_open() && self.session.out.len() < UNREAD_REPLIES_MAX;
            if !self.wire.readable || !welcome {
                return Next::Wait(self.session.due());
            }
            match self.read(scratch, cx) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Next::Close,
            }
        }
    }

    /// Reads once and feeds the session; false at the end of the stream.
    fn read(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> io::Result<bool> {
        let mut room = scratch.len();
        let speed = self.session.bytes_per_second(cx.shared);
        if let Some(speed) = speed {
            room = usize::try_from((speed / SLOW_TICKS_PER_SECOND).max(1)).unwrap_or(room).min(room);
        }
        let Some(len) = self.wire.read(&mut scratch[..room])? else { return Ok(true) };
        if let Some(speed) = speed {
            self.read_after = Some(cx.now + Duration::from_secs_f64(len as f64 / speed.max(1) as f64));
        }
        if self.wire.is_tls() {
            let was_handshaking = self.wire.is_handshaking();
            match self.wire.decrypt(&scratch[..len], &mut self.pending) {
                Ok(Decrypted::Bytes) => {}
                Ok(Decrypted::Established(version)) => self.session.tls_established(version, cx.books),
                Err(why) => {
                    if was_handshaking {
                        self.session.tls_failed(cx.books);
                    }
                    return Err(why);
                }
            }
        } else if self.pending.is_empty() {
            let used = self.session.input(&scratch[..len], cx);
            self.pending.extend_from_slice(&scratch[used..len]);
        } else {
            self.pending.extend_from_slice(&scratch[..len]);
        }
        Ok(len > 0)
    }

    fn use_pending(&mut self, cx: &mut Context<'_>) {
        let used = self.session.input(&self.pending, cx);
        if used == self.pending.len() {
            self.pending.clear();
        } else {
            self.pending.drain(..used);
            if self.session.is_open() && self.pending.len() > LINE_MAX {
                self.session.line_too_long(cx);
            }
        }
    }

    /// Begins the handshake; false where TLS cannot be had.
    fn start_tls(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(config) = cx.shared.tls.clone() else { return false };
        self.session.plaintext_discarded(self.pending.len(), cx.books);
        self.pending.clear();
        let Ok(tls) = ServerConnection::new(config) else { return false };
        self.wire.start_tls(tls.into());
        self.session.tls_started();
        true
    }
}
