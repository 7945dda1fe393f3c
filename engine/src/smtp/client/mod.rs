//! One delivery connection as a machine: letters in, bytes out; bytes in, outcomes out (RFC 5321, 2920, 3030, 3207).
//!
//! One per delivery connection. The caller calls [`Client::step`] and does what it says. Where the server offers
//! PIPELINING, the next letter's MAIL, RCPT and DATA ride on the present letter's final dot; with CHUNKING, small letters go
//! out whole, several of them, before the first reply.
//!
//! Must never write a lone CR or LF, never believe what was said in the clear once TLS is on, never wait for the end of an
//! endless reply, and never claim more about a letter than the replies and the bytes handed out prove.

mod replies;

use super::{
    flight::{Content, Flight},
    letter::{Capabilities, ContentWriter, Letter},
    outcome::{LetterOutcome, Stage, Verdict, Why},
    reply::{Enhanced, Reply, ReplyParser, push_number},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Receive buffer, octets: twice the longest reply line, so that there is always room to read.
const INPUT: usize = 2 * super::reply::LINE_MAX;

/// When to use TLS (RFC 3207).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not even if offered.
    Never,
    /// If offered.
    #[default]
    Opportunistic,
    /// Or deliver nothing.
    Required,
}

/// How to speak on a connection.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// Name for EHLO: that of the leased IP.
    pub helo: Arc<str>,
    /// When to use TLS.
    pub tls: Tls,
    /// Use PIPELINING where offered.
    pub pipelining: bool,
    /// Use BDAT where offered (with PIPELINING: alone it saves nothing).
    pub chunking: bool,
    /// Send 8-bit content to a server without 8BITMIME as it is. Otherwise such a letter is refused with 5.6.3, as RFC 6152
    /// section 3 wants: converting would break DKIM signatures.
    pub eight_bit_anyway: bool,
    /// Letters in flight at most; as many can be in doubt when the connection breaks.
    pub window_letters: usize,
    /// No further letter while more octets of content than this are in flight.
    pub window_bytes: u64,
    /// Letters up to so many octets go by BDAT. A larger one waits for the replies to RCPT first, by DATA: sending it in
    /// vain costs more than the round trip.
    pub chunk_max: u64,
}

impl ClientPolicy {
    /// The usual one.
    #[must_use]
    pub fn new(helo: Arc<str>, tls: Tls) -> Self {
        Self {
            helo,
            tls,
            pipelining: true,
            chunking: true,
            eight_bit_anyway: false,
            window_letters: 8,
            window_bytes: 256 * 1024,
            chunk_max: 64 * 1024,
        }
    }
}

/// What the caller has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read, at most [`Client::timeout`].
    Read,
    /// Write what [`Client::take_out`] gives.
    Write,
    /// Shake hands, then [`Client::tls_started`].
    StartTls,
    /// Nothing is in flight: offer a letter or quit. Bytes that come in nevertheless (or the end of the connection) are to
    /// be given to the machine.
    Ready,
    /// Append this letter's content, then say [`Client::content_done`]. Then, if there is room, offer the next letter
    /// before writing: it rides along.
    Content {
        /// Its id.
        letter: u32,
    },
    /// Look at [`Client::outcome`] before the next step.
    Outcome,
    /// The connection is over and all outcomes have been told: close it.
    Closed(Why),
}

/// A command whose reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Rset,
    Mail,
    Rcpt,
    Data,
    Final,
    LoneDot,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Up to the end of EHLO.
    Hello,
    /// STARTTLS was agreed to.
    Tls,
    /// Letters may be sent.
    Session,
    /// QUIT is written.
    Leaving,
    Closed,
}

/// The machine.
#[derive(Debug)]
pub struct Client {
    policy: ClientPolicy,
    caps: Capabilities,
    ehlo_lines: u32,
    tls: bool,
    state: State,
    expected: VecDeque<Expect>,
    flights: VecDeque<Flight>,
    /// Commands held back until the last one is answered, for a server without PIPELINING.
    held: Vec<u8>,
    held_kinds: VecDeque<Expect>,
    writer: Option<ContentWriter>,
    /// The server may still be in a transaction.
    dirty: bool,
    /// A 421 has come: the server takes nothing more on this connection (RFC 5321 section 3.8).
    shut: bool,
    input: Vec<u8>,
    start: usize,
    end: usize,
    parser: ReplyParser,
    out: Vec<u8>,
    sent: u64,
    outcomes: VecDeque<LetterOutcome>,
    outcome: LetterOutcome,
    spare: Vec<LetterOutcome>,
    why: Option<Why>,
    /// Replies that came.
    replies: u64,
}

impl Client {
    /// A session on a connection just made.
    #[must_use]
    pub fn new(policy: ClientPolicy) -> Self {
        Self {
            policy,
            caps: Capabilities::default(),
            ehlo_lines: 0,
            tls: false,
            state: State::Hello,
            expected: VecDeque::from([Expect::Greeting]),
            flights: VecDeque::new(),
            held: Vec::new(),
            held_kinds: VecDeque::new(),
            writer: None,
            dirty: false,
            shut: false,
            input: vec![0; INPUT],
            start: 0,
            end: 0,
            parser: ReplyParser::default(),
            out: Vec::new(),
            sent: 0,
            outcomes: VecDeque::new(),
            outcome: LetterOutcome::default(),
            spare: Vec::new(),
            why: None,
            replies: 0,
        }
    }

    /// Room to read into; never empty after [`Act::Read`] or [`Act::Ready`].
    pub fn space(&mut self) -> &mut [u8] {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.input[self.end..]
    }

    /// `n` octets were read into [`Self::space`]. The end of the connection is [`Self::lost`].
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.input.len());
    }

    /// Bytes to be written, in order.
    #[must_use]
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// Moves the bytes to be written into `into`, which has to be empty; its memory is used for the next ones. From here on
    /// they count as sent: a write that fails may have been seen by the server all the same.
    pub fn take_out(&mut self, into: &mut Vec<u8>) {
        debug_assert!(into.is_empty(), "bytes not yet written would be overtaken");
        std::mem::swap(&mut self.out, into);
        self.out.clear();
        self.sent += into.len() as u64;
    }

    /// The outcome that [`Act::Outcome`] spoke of, until the next step.
    #[must_use]
    pub fn outcome(&self) -> &LetterOutcome {
        &self.outcome
    }

    /// What the server offers; all false before EHLO is answered.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.caps
    }

    /// Whether TLS is on.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Letters offered and without an outcome.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether another letter may be offered now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let bytes: u64 = self.flights.iter().map(|flight| flight.size).sum();
        self.state == State::Session
            && match self.flights.back() {
                None => self.held_kinds.is_empty(),
                Some(last) => {
                    self.pipelining()
                        && last.content == Content::Done
                        && self.flights.len() < self.policy.window_letters
                        && bytes < self.policy.window_bytes
                }
            }
    }

    /// Replies that came so far, as [`Patience`](super::patience) counts.
    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    /// How long the next reply, or the present write, may take (RFC 5321 section 4.5.3.2).
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let seconds = match self.expected.front() {
            Some(Expect::Greeting | Expect::Ehlo | Expect::Helo | Expect::Mail | Expect::Rcpt) => 300,
            Some(Expect::StartTls | Expect::Data) => 120,
            Some(Expect::Final | Expect::LoneDot) => 600,
            Some(Expect::Rset) => 300,
            Some(Expect::Quit) => 10,
            None => 180,
        };
        Duration::from_secs(seconds)
    }

    /// Works through what was read; says what to do.
    pub fn step(&mut self) -> Act {
        while self.state != State::Closed && self.state != State::Tls && self.outcomes.is_empty() {
            if !self.read_reply() {
                break;
            }
        }
        if let Some(outcome) = self.outcomes.pop_front() {
            self.spare.push(std::mem::replace(&mut self.outcome, outcome));
            return Act::Outcome;
        }
        if let (State::Closed, Some(why)) = (self.state, &self.why) {
            return Act::Closed(why.clone());
        }
        if let Some(flight) = self.flights.back().filter(|flight| flight.content == Content::Open) {
            return Act::Content { letter: flight.outcome.letter };
        }
        if !self.out.is_empty() {
            return Act::Write;
        }
        match self.state {
            State::Tls => Act::StartTls,
            State::Session if self.flights.is_empty() && self.expected.is_empty() => Act::Ready,
            _ => Act::Read,
        }
    }

    /// Offers a letter; only if [`Self::has_room`] (otherwise its outcome is [`Verdict::NeverSeen`]). What this server cannot
    /// take is refused at once, with a local reply.
    pub fn offer(&mut self, letter: &Letter<'_>) {
        let mut outcome = self.spare.pop().unwrap_or_default();
        outcome.letter = letter.id;
        outcome.refusals.clear();
        outcome.refusals.resize(letter.recipients.len(), None);
        let mut flight = Flight::new(outcome, letter.size);
        if !self.has_room() {
            let mut reply = Reply::local(451, Enhanced(4, 4, 2), "the connection takes no letter now");
            flight.decide(Verdict::NeverSeen, Stage::Mail, &mut reply);
            return self.land(flight);
        }
        if let Some(mut reply) = self.cannot_take(letter) {
            flight.decide(Verdict::Refused, Stage::Mail, &mut reply);
            return self.land(flight);
        }
        flight.chunk =
            self.caps.chunking && self.policy.chunking && self.pipelining() && letter.size <= self.policy.chunk_max;
        self.write_commands(letter, &mut flight);
        self.flights.push_back(flight);
        self.send_held();
    }

    /// Appends a piece of the content that [`Act::Content`] asked for.
    pub fn content_append(&mut self, piece: &[u8]) {
        let (Some(writer), Some(flight)) = (&mut self.writer, self.flights.back_mut()) else { return };
        if flight.content != Content::Open {
            return;
        }
        let good = match flight.left.checked_sub(piece.len() as u64) {
            None => Err("it is larger than announced"),
            Some(left) => {
                flight.left = left;
                if writer.append(piece, &mut self.out) { Ok(()) } else { Err("it has a lone CR or LF") }
            }
        };
        if let Err(what) = good {
            self.bad_content(what);
        }
    }

    /// All content is appended.
    pub fn content_done(&mut self) {
        let (Some(mut writer), Some(flight)) = (self.writer.take(), self.flights.back_mut()) else { return };
        if flight.left > 0 {
            return self.bad_content("it is smaller than announced");
        }
        if !writer.finish(&mut self.out) {
            return self.bad_content("it ends in a lone CR");
        }
        if !flight.chunk {
            self.expected.push_back(Expect::Final);
        }
        if flight.content_done(self.sent + self.out.len() as u64) {
            self.finish_front();
        }
    }

    /// The handshake is done: what was said in the clear counts for nothing.
    pub fn tls_started(&mut self) {
        if self.state == State::Tls {
            self.tls = true;
            self.start = 0;
            self.end = 0;
            self.say_hello(Expect::Ehlo);
        }
    }

    /// Says QUIT, once nothing is in flight; does nothing before.
    pub fn quit(&mut self) {
        if self.state == State::Session && self.flights.is_empty() {
            self.leave(Why::Quit);
        }
    }

    /// The connection ended, by an error or by its end; `what` says how.
    pub fn lost(&mut self, what: &str) {
        self.close(Why::Lost(what.to_owned()));
    }

    /// [`Self::timeout`] passed.
    pub fn timed_out(&mut self) {
        self.close(Why::TimedOut);
    }

    fn pipelining(&self) -> bool {
        self.caps.pipelining && self.policy.pipelining
    }

    fn cannot_take(&self, letter: &Letter<'_>) -> Option<Reply> {
        let utf8 =
            letter.smtputf8 || !letter.sender.is_ascii() || letter.recipients.iter().any(|to| !to.address.is_ascii());
        if !letter.is_clean() {
            return Some(Reply::local(553, Enhanced(5, 1, 3), "an address or parameter cannot be written in SMTP"));
        }
        if let Some(limit) = self.caps.size.filter(|&limit| limit > 0 && letter.size > limit) {
            let text = format!("message of {} octets is larger than the server takes ({limit})", letter.size);
            return Some(Reply::local(552, Enhanced(5, 3, 4), text));
        }
        if utf8 && !self.caps.smtputf8 {
            return Some(Reply::local(553, Enhanced(5, 6, 7), "the server does not offer SMTPUTF8"));
        }
        if letter.eight_bit && !self.caps.eight_bit_mime && !self.policy.eight_bit_anyway {
            return Some(Reply::local(554, Enhanced(5, 6, 3), "the server does not offer 8BITMIME"));
        }
        None
    }

    /// Writes the group of commands: MAIL, RCPT, DATA or BDAT; RSET first where a transaction may be open. That is so after
    /// a refusal, and behind a chunk not yet answered: if it fails, RFC 3030 leaves the server's state open.
    fn write_commands(&mut self, letter: &Letter<'_>, flight: &mut Flight) {
        let pipelining = self.pipelining();
        let behind_chunk = self.flights.back().is_some_and(|last| last.chunk);
        let (out, kinds) =
            if pipelining { (&mut self.out, &mut self.expected) } else { (&mut self.held, &mut self.held_kinds) };
        if std::mem::take(&mut self.dirty) || behind_chunk {
            out.extend_from_slice(b"RSET\r\n");
            kinds.push_back(Expect::Rset);
        }
        if pipelining {
            flight.mail_at = Some(self.sent + out.len() as u64);
        }
        letter.write_mail(self.caps, out);
        kinds.push_back(Expect::Mail);
        for index in 0..letter.recipients.len() {
            letter.write_rcpt(index, self.caps, out);
            kinds.push_back(Expect::Rcpt);
        }
        if flight.chunk {
            out.extend_from_slice(b"BDAT ");
            push_number(out, letter.size);
            out.extend_from_slice(b" LAST\r\n");
            kinds.push_back(Expect::Final);
            flight.content = Content::Open;
            self.writer = Some(ContentWriter::new(false));
        } else {
            out.extend_from_slice(b"DATA\r\n");
            kinds.push_back(Expect::Data);
        }
    }

    /// Without PIPELINING: the next command, once the last one is answered.
    fn send_held(&mut self) {
        if !self.expected.is_empty() {
            return;
        }
        let Some(kind) = self.held_kinds.pop_front() else { return };
        let end = memchr::memchr(b'\n', &self.held).map_or(self.held.len(), |lf| lf + 1);
        if let (Expect::Mail, Some(flight)) = (kind, self.flights.front_mut()) {
            flight.mail_at = Some(self.sent + self.out.len() as u64);
        }
        self.out.extend(self.held.drain(..end));
        self.expected.push_back(kind);
    }

    /// QUIT, and then closed for this reason.
    fn leave(&mut self, why: Why) {
        self.out.extend_from_slice(b"QUIT\r\n");
        self.expected.push_back(Expect::Quit);
        self.state = State::Leaving;
        self.why = Some(why);
    }

    /// The content cannot be ended, and so neither can the transaction: the letter is refused, the connection given up.
    fn bad_content(&mut self, what: &'static str) {
        if let Some(flight) = self.flights.back_mut() {
            let mut reply = Reply::local(554, Enhanced(5, 6, 0), format!("content cannot be sent: {what}"));
            flight.decide(Verdict::Refused, Stage::Content, &mut reply);
        }
        self.close(Why::BadContent(what));
    }

    fn finish_front(&mut self) {
        if let Some(flight) = self.flights.pop_front() {
            self.land(flight);
        }
    }

    fn land(&mut self, mut flight: Flight) {
        flight.outcome.seen = flight.seen(self.sent);
        self.outcomes.push_back(flight.outcome);
    }

    /// The end: every letter in flight gets its outcome.
    fn close(&mut self, why: Why) {
        if self.state == State::Closed {
            return;
        }
        while let Some(mut flight) = self.flights.pop_front() {
            flight.cut(self.sent, self.shut, &why);
            self.land(flight);
        }
        let leaving = self.state == State::Leaving;
        self.state = State::Closed;
        self.expected.clear();
        self.held.clear();
        self.held_kinds.clear();
        self.writer = None;
        self.out.clear();
        if !leaving || self.why.is_none() {
            self.why = Some(why);
        }
    }
}

#[cfg(test)]
#[path = "../tests/client.rs"]
mod tests;
