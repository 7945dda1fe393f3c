//! One connection of a sink: socket, TLS where started, and the SMTP session. Moves bytes, decides nothing.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::sink::session::{Context, End, Session};

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

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) ip: IpAddr,
    pub(super) model: usize,
    pub(super) last_active: Instant,
    /// The moment the reactor's timer is set to.
    pub(super) timer: Option<Instant>,
    pub(super) session: Session,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has closed its side: reads go on until they return 0.
    pub(super) peer_closed: bool,
    tls: Option<Box<ServerConnection>>,
    /// Input that the session has not used up.
    pending: Vec<u8>,
    read_after: Option<Instant>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, ip: IpAddr, model: usize, session: Session, now: Instant) -> Self {
        Self {
            socket,
            ip,
            model,
            last_active: now,
            timer: None,
            session,
            readable: true,
            writable: true,
            peer_closed: false,
            tls: None,
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
            if self.flush().is_err() {
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
                return Next::Wait(self.writable.then(|| cx.now + ENDLESS_PAUSE));
            }
            if self.read_after.is_some_and(|at| at > cx.now) {
                return Next::Wait(self.read_after);
            }
            let welcome = self.session.is_open() && self.session.out.len() < UNREAD_REPLIES_MAX;
            if !self.readable || !welcome {
                return Next::Wait(self.session.due());
            }
            match self.read(scratch, cx) {
                Ok(0) => return Next::Close,
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
    }

    /// Reads once and feeds the session.
    fn read(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> io::Result<usize> {
        let mut room = scratch.len();
        let speed = self.session.bytes_per_second(cx.shared);
        if let Some(speed) = speed {
            room = usize::try_from((speed / SLOW_TICKS_PER_SECOND).max(1)).unwrap_or(room).min(room);
        }
        let len = self.socket.read(&mut scratch[..room])?;
        if len < room && !self.peer_closed {
            // A short read has emptied the socket; the next edge says when there is more.
            self.readable = false;
        }
        if let Some(speed) = speed {
            self.read_after = Some(cx.now + Duration::from_secs_f64(len as f64 / speed.max(1) as f64));
        }
        if self.tls.is_some() {
            self.decrypt(&scratch[..len], cx)?;
        } else if self.pending.is_empty() {
            let used = self.session.input(&scratch[..len], cx);
            self.pending.extend_from_slice(&scratch[used..len]);
        } else {
            self.pending.extend_from_slice(&scratch[..len]);
        }
        Ok(len)
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

    /// Writes what the session has said. An error means that the connection is gone.
    fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            while self.writable && !self.session.out.is_empty() {
                let written = self.socket.write(&self.session.out);
                match settle(written, &mut self.writable)? {
                    len if len == self.session.out.len() => self.session.out.clear(),
                    len => drop(self.session.out.drain(..len)),
                }
            }
            return Ok(());
        };
        if !self.session.out.is_empty() && !tls.is_handshaking() {
            tls.writer().write_all(&self.session.out)?;
            self.session.out.clear();
        }
        while self.writable && tls.wants_write() {
            settle(tls.write_tls(&mut self.socket), &mut self.writable)?;
        }
        Ok(())
    }

    /// Begins the handshake; false where TLS cannot be had.
    fn start_tls(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(config) = cx.shared.tls.clone() else { return false };
        self.session.plaintext_discarded(self.pending.len(), cx.books);
        self.pending.clear();
        let Ok(mut tls) = ServerConnection::new(config) else { return false };
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        self.session.tls_started();
        true
    }

    fn decrypt(&mut self, mut wire: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while !wire.is_empty() {
            tls.read_tls(&mut wire)?;
            let was_handshaking = tls.is_handshaking();
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(why) => {
                    // The alert goes out with the last flush where it can.
                    let _ = tls.write_tls(&mut self.socket);
                    if was_handshaking {
                        self.session.tls_failed(cx.books);
                    }
                    return Err(io::Error::other(why));
                }
            };
            if was_handshaking && !tls.is_handshaking() {
                let version = tls.protocol_version().and_then(|version| version.as_str());
                self.session.tls_established(version.unwrap_or("TLS"), cx.books);
            }
            let start = self.pending.len();
            self.pending.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.pending[start..])?;
        }
        Ok(())
    }
}

/// Bytes written; a full socket is no error.
fn settle(written: io::Result<usize>, writable: &mut bool) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(len) => Ok(len),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
            *writable = false;
            Ok(0)
        }
        Err(why) if why.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(why) => Err(why),
    }
}
