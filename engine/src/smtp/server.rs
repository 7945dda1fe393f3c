//! One client's SMTP session as a machine: bytes in, replies and messages out (RFC 5321, 2920, 3030).
//!
//! One per client connection. The caller reads into [`Server::space`], calls [`Server::step`] until it says
//! [`Step::Read`], and writes [`Server::out`] before each read, so that one write answers a whole pipelined batch. Content
//! stays where it was read; [`Server::content`] is it.
//!
//! Must never say 250 to a message by itself (only [`Server::finish`] does), never hand out content of a message that it
//! refuses at the end, never take octets of content for commands or the reverse, and never hold more than one receive
//! buffer, whatever the client sends.

use super::{
    auth::Exchange,
    bdat::BdatScanner,
    buffer::{self, Buffer},
    command,
    data::{ContentLimits, DataScanner, Facts, Piece},
    envelope::Envelope,
    patience::STRETCH,
    reply::Reply,
    session::{Next, Session},
};
use std::{sync::Arc, time::Duration};

/// Replies that may wait for a write before the machine asks for one, octets. What a client can make us say is larger than
/// what it says (EHLO: by 20 times).
const OUT_MAX: usize = 16 * 1024;

/// What a listener allows. Shared by all of its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPolicy {
    /// Name in the greeting.
    pub hostname: String,
    /// Largest message, octets, as SIZE says (RFC 1870).
    pub max_size: u64,
    /// Recipients of one transaction. RFC 5321 section 4.5.3.1.8 has 100; the product has 50, as SES.
    pub max_recipients: usize,
    /// Octets in a line of content, CRLF included (RFC 5321 section 4.5.3.1.6).
    pub max_line: usize,
    /// Octets in the header section; at most [`HEADER_MAX`], so that it is always whole in the first piece of content.
    pub max_header: usize,
    /// Commands that are wrong before the session ends; counted anew after each message.
    pub max_errors: u32,
    /// Commands that bring no message on (NOOP, RSET, EHLO, refused addresses) before the session ends; counted the same.
    pub max_idle_commands: u32,
    /// STARTTLS can be done.
    pub starttls: bool,
    /// Nothing about mail before TLS.
    pub tls_required: bool,
    /// AUTH can be done (RFC 4954); outside TLS only with [`Self::auth_in_clear`].
    pub auth: bool,
    /// Nobody sends mail without.
    pub auth_required: bool,
    /// Passwords may travel in the clear: the listener is on loopback.
    pub auth_in_clear: bool,
    /// Wrong credentials before the session ends.
    pub max_auth_failures: u32,
    /// SMTPUTF8 is offered (RFC 6531).
    pub smtputf8: bool,
    /// `MAIL FROM:<>` is taken.
    pub allow_null_sender: bool,
    /// How long to wait for a command (RFC 5321 section 4.5.3.2.7).
    pub command_timeout: Duration,
    /// How long to wait for more content (RFC 5321 section 4.5.3.2.5).
    pub content_timeout: Duration,
}

/// Largest header section that can be asked for, octets.
pub const HEADER_MAX: usize = buffer::MAX - 2 * buffer::ROOM;

impl Default for ServerPolicy {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            max_size: 41_943_040,
            max_recipients: 50,
            max_line: 1000,
            max_header: HEADER_MAX,
            max_errors: 20,
            max_idle_commands: 200,
            starttls: false,
            tls_required: false,
            auth: false,
            auth_required: false,
            auth_in_clear: false,
            max_auth_failures: 3,
            smtputf8: false,
            allow_null_sender: true,
            command_timeout: Duration::from_secs(300),
            content_timeout: Duration::from_secs(180),
        }
    }
}

impl ServerPolicy {
    /// Content that is read of one message or chunk at most, to be able to answer it; beyond that the session ends.
    pub(super) fn swallow_max(&self) -> u64 {
        self.max_size.saturating_mul(2).saturating_add(1 << 20)
    }

    fn content_limits(&self) -> ContentLimits {
        ContentLimits { line: self.max_line, header: self.max_header.min(HEADER_MAX) }
    }
}

/// What the caller has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write [`Server::out`], then read.
    Read,
    /// Write [`Server::out`], then go on.
    Flush,
    /// Store [`Server::content`], a piece of a message of which more is to come, and say [`Server::content_taken`].
    ContentFull,
    /// Throw away the pieces stored since the last message: theirs is refused or given up.
    Discard,
    /// A message is complete: [`Server::envelope`], and [`Server::content`], its last piece. Then [`Server::finish`].
    Message,
    /// Write [`Server::out`], shake hands, then [`Server::tls_started`].
    StartTls,
    /// Check [`Server::credentials`], then say [`Server::authenticated`].
    Authenticate,
    /// Write [`Server::out`], then close.
    Close(Close),
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The client said QUIT.
    Quit,
    /// Too many wrong or idle commands.
    TooManyErrors,
    /// The client sent plaintext after STARTTLS, before the handshake.
    Injection,
    /// BDAT was not understood, so what follows it may be content.
    OutOfStep,
    /// Far more content than a message may have.
    TooMuch,
    /// [`Server::timed_out`].
    TimedOut,
    /// [`Server::shutting_down`].
    Shutdown,
    /// [`Server::too_many_connections`].
    Busy,
}

/// The answer to a complete message.
#[derive(Clone, Copy, Debug)]
pub enum FinalReply<'a> {
    /// It is durable.
    Accepted {
        /// Its message id.
        id: &'a str,
    },
    /// It is not taken; nothing of it was kept.
    Refused(&'a Reply),
}

#[derive(Debug)]
enum State {
    Line,
    /// A line was too long; nothing before its CRLF is a command.
    SkipLine,
    Data(DataScanner),
    Chunk {
        left: u64,
        size: u64,
        last: bool,
        good: bool,
    },
    Message,
    Auth,
    Tls,
    Closed(Close),
}

/// The machine.
#[derive(Debug)]
pub struct Server {
    session: Session,
    buffer: Buffer,
    state: State,
    bdat: Option<BdatScanner>,
    facts: Facts,
    pieces: bool,
    discard: bool,
    /// Commands that came.
    commands: u64,
    /// Octets that came as content.
    octets: u64,
}

impl Server {
    /// A session on a connection just made. `tls`: it is inside TLS already.
    #[must_use]
    pub fn new(policy: Arc<ServerPolicy>, tls: bool) -> Self {
        Self {
            session: Session::new(policy, tls),
            buffer: Buffer::default(),
            state: State::Line,
            bdat: None,
            facts: Facts::default(),
            pieces: false,
            discard: false,
            commands: 0,
            octets: 0,
        }
    }

    /// Greets the client.
    pub fn greet(&mut self) {
        let greeting = format!("220 {} ESMTP Mailrail", self.session.policy.hostname);
        self.session.say(&greeting);
    }

    /// Room to read into; never empty after [`Step::Read`].
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.space()
    }

    /// `n` octets were read into [`Self::space`].
    pub fn filled(&mut self, n: usize) {
        if matches!(self.state, State::Data(_) | State::Chunk { .. }) {
            self.octets += n as u64;
        }
        self.buffer.filled(n);
    }

    /// Gives back memory that a large message made necessary, if nothing is buffered. For a session that idles.
    pub fn trim(&mut self) {
        self.buffer.trim();
    }

    /// Octets of memory in its buffers.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.held() + self.session.out.capacity()
    }

    /// There is no memory for another transaction, or there is again: MAIL is answered by 452 meanwhile.
    pub fn set_short(&mut self, short: bool) {
        self.session.short = short;
    }

    /// As [`Self::set_short`] said last.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.session.short
    }

    /// Whether a transaction has begun.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.session.in_transaction()
    }

    /// Replies to be written. The caller clears what it has written.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.session.out
    }

    /// The transaction, at [`Step::Message`] or [`Step::ContentFull`].
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.session.envelope
    }

    /// Content of the message, without the pieces already taken. A first piece that is not the last has at least 56 KiB and
    /// the whole header section.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.buffer.content()
    }

    /// Facts about the whole content, taken pieces included.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The name the client gave with EHLO or HELO.
    #[must_use]
    pub fn helo(&self) -> &str {
        &self.session.helo
    }

    /// The word for `with` in a Received header.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.session.protocol()
    }

    /// Whether TLS is on.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.session.tls
    }

    /// Whether a message is being sent right now; if not, a stopping server may hang up without harm.
    #[must_use]
    pub fn in_content(&self) -> bool {
        matches!(self.state, State::Data(_) | State::Chunk { .. } | State::Message) || self.session.chunks
    }

    /// Things that came so far, as [`Patience`](super::patience) counts them: commands, stretches of content.
    pub(crate) fn had(&self) -> u64 {
        self.commands + self.octets / STRETCH
    }

    /// How long the next of the things that `had` counts may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self.state {
            State::Data(_) | State::Chunk { .. } => self.session.policy.content_timeout,
            _ => self.session.policy.command_timeout,
        }
    }

    /// Works through what was read.
    pub fn step(&mut self) -> Step {
        loop {
            if std::mem::take(&mut self.discard) {
                return Step::Discard;
            }
            if self.session.out.len() > OUT_MAX {
                return Step::Flush;
            }
            let step = match &self.state {
                State::Line => self.line(),
                State::SkipLine => self.skip_line(),
                State::Data(_) => self.data(),
                State::Chunk { .. } => self.chunk(),
                State::Message => Some(Step::Message),
                State::Auth => Some(Step::Authenticate),
                State::Tls => Some(Step::StartTls),
                State::Closed(why) => Some(Step::Close(*why)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// [`Self::content`] is stored: its room is free again.
    pub fn content_taken(&mut self) {
        self.pieces = true;
        self.buffer.drop_content();
    }

    /// Answers the message of [`Step::Message`] and starts a new transaction. Without a message it does nothing.
    pub fn finish(&mut self, reply: FinalReply<'_>) {
        if !matches!(self.state, State::Message) {
            return;
        }
        match reply {
            FinalReply::Accepted { id } => {
                self.session.out.extend_from_slice(b"250 Ok ");
                self.session.say(id);
            }
            FinalReply::Refused(reply) => reply.write(&mut self.session.out),
        }
        self.pieces = false;
        self.session.worked();
        self.reset();
    }

    /// User name and password, at [`Step::Authenticate`]; they are forgotten here.
    pub fn credentials(&mut self) -> Option<(String, String)> {
        self.session.exchange.take()
    }

    /// Wrong credentials given so far: the caller takes its time with a client that guesses.
    #[must_use]
    pub fn auth_failures(&self) -> u32 {
        self.session.auth_failures
    }

    /// Answers [`Step::Authenticate`].
    pub fn authenticated(&mut self, right: bool) {
        if matches!(self.state, State::Auth) {
            self.state = State::Line;
            let next = self.session.authenticated(right);
            self.act(next);
        }
    }

    /// The handshake is done: the session starts again.
    pub fn tls_started(&mut self) {
        self.session.tls_started();
        self.buffer.drop_unread();
        self.reset();
    }

    /// [`Self::timeout`] passed without input.
    pub fn timed_out(&mut self) {
        self.hang_up("451 4.4.2 Timeout waiting for data from client.", Close::TimedOut);
    }

    /// The server stops.
    pub fn shutting_down(&mut self) {
        self.hang_up("421 4.3.2 Service shutting down", Close::Shutdown);
    }

    /// Instead of [`Self::greet`]: this connection is one too many.
    pub fn too_many_connections(&mut self) {
        self.hang_up("421 4.7.0 Too many concurrent SMTP connections", Close::Busy);
    }

    fn hang_up(&mut self, line: &str, why: Close) {
        self.session.say(line);
        self.close(why);
    }

    fn close(&mut self, why: Close) {
        self.buffer.drop_unread();
        self.reset();
        self.state = State::Closed(why);
    }

    /// Forgets the transaction.
    fn reset(&mut self) {
        self.discard |= std::mem::take(&mut self.pieces);
        self.session.clear();
        self.buffer.drop_content();
        self.bdat = None;
        self.facts = Facts::default();
        self.state = State::Line;
    }

    fn line(&mut self) -> Option<Step> {
        let unread = self.buffer.unread();
        let window = &unread[..unread.len().min(command::LINE_MAX_MAIL)];
        let Some(length) = find_crlf(window) else {
            if unread.len() < command::LINE_MAX_MAIL {
                return self.more();
            }
            let next = if command::looks_like_bdat(unread) { Some(Close::OutOfStep) } else { None };
            self.session.exchange = Exchange::None;
            let bad = self.session.bad("500 5.5.2 Line too long");
            self.state = State::SkipLine;
            self.act(next.map_or(bad, Next::Close));
            return None;
        };
        let next = self.session.line(&unread[..length]);
        self.commands += 1;
        self.buffer.skip(length + 2);
        self.act(next);
        None
    }

    fn act(&mut self, next: Next) {
        match next {
            Next::Line => {}
            Next::Reset => self.reset(),
            Next::Data => self.state = State::Data(DataScanner::new(self.session.policy.content_limits())),
            Next::Chunk { size, last, good } => self.state = State::Chunk { left: size, size, last, good },
            Next::StartTls if !self.buffer.unread().is_empty() => {
                self.hang_up("421 4.7.0 Plaintext after STARTTLS", Close::Injection);
            }
            Next::StartTls => {
                self.session.say("220 2.0.0 Ready to start TLS");
                self.state = State::Tls;
            }
            Next::Authenticate => self.state = State::Auth,
            Next::Close(why) => self.close(why),
        }
    }

    fn skip_line(&mut self) -> Option<Step> {
        let unread = self.buffer.unread();
        if let Some(length) = find_crlf(unread) {
            self.buffer.skip(length + 2);
            self.state = State::Line;
            return None;
        }
        let held = usize::from(unread.last() == Some(&b'\r'));
        self.buffer.skip(unread.len() - held);
        self.more()
    }

    fn data(&mut self) -> Option<Step> {
        let State::Data(scanner) = &mut self.state else { return None };
        match scanner.next(self.buffer.unread(), &mut self.facts) {
            Piece::Keep(n) => self.keep(n),
            Piece::Dot => self.buffer.skip(1),
            Piece::More => return self.more(),
            Piece::End => {
                self.buffer.skip(3);
                self.state = State::Message;
                self.refuse_if_bad();
            }
        }
        None
    }

    fn chunk(&mut self) -> Option<Step> {
        let State::Chunk { left, size, last, good } = self.state else { return None };
        let unread = self.buffer.unread();
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(unread.len());
        if n == 0 && left > 0 {
            return self.more();
        }
        self.state = State::Chunk { left: left - n as u64, size, last, good };
        if good {
            let limits = self.session.policy.content_limits();
            self.bdat.get_or_insert_with(|| BdatScanner::new(limits)).take(&unread[..n], &mut self.facts);
            self.keep(n);
        } else {
            self.buffer.skip(n);
        }
        if left == n as u64 {
            self.end_chunk(size, last, good);
        }
        None
    }

    fn end_chunk(&mut self, size: u64, last: bool, good: bool) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        self.state = State::Line;
        if !good {
            let next = self.session.stray_chunk();
            return self.act(next);
        }
        if last {
            if let Some(scanner) = &mut self.bdat {
                scanner.end(&mut self.facts);
            }
            self.state = State::Message;
        }
        if !self.refuse_if_bad() && !last {
            self.session.say(&format!("250 2.0.0 {size} octets received"));
        }
    }

    /// The next `n` octets are content: kept as long as the message may still be accepted.
    fn keep(&mut self, n: usize) {
        if self.refusal().is_none() {
            return self.buffer.keep(n);
        }
        self.buffer.drop_content();
        self.buffer.skip(n);
        if self.facts.bytes > self.session.policy.swallow_max() {
            self.hang_up("552 5.3.4 Message is too long.", Close::TooMuch);
        }
    }

    /// At the end of content: if it is not fit to be a message, says so and forgets it.
    fn refuse_if_bad(&mut self) -> bool {
        let Some(line) = self.refusal() else { return false };
        self.session.say(line);
        self.reset();
        true
    }

    fn refusal(&self) -> Option<&'static str> {
        let facts = &self.facts;
        if facts.bytes > self.session.policy.max_size {
            Some("552 5.3.4 Message is too long.")
        } else if facts.bare {
            Some("550 5.6.11 Bare CR or LF in message")
        } else if facts.nul {
            Some("554 5.6.0 Transaction failed: NUL in message")
        } else if facts.long_header {
            Some("554 5.6.0 Transaction failed: Header section too large")
        } else if facts.long_line {
            Some("554 5.6.0 Transaction failed: Line too long")
        } else {
            None
        }
    }

    /// All input is used up.
    fn more(&mut self) -> Option<Step> {
        if !self.buffer.full() {
            return Some(Step::Read);
        }
        if self.facts.body || self.pieces {
            return Some(Step::ContentFull);
        }
        self.facts.long_header = true;
        self.buffer.drop_content();
        None
    }
}

/// Where the first CRLF stands.
fn find_crlf(input: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', input).find(|&lf| lf > 0 && input[lf - 1] == b'\r').map(|lf| lf - 1)
}

#[cfg(test)]
#[path = "tests/server.rs"]
mod tests;
