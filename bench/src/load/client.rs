//! The SMTP client side of the load generator, as a machine without a socket: bytes and time in, commands out.
//!
//! One per connection. With PIPELINING the text of one message and MAIL, RCPT and DATA of the next go in one write
//! (RFC 2920), so a busy connection costs one round trip a message. Must never call a recipient accepted without the
//! 250 to the final dot.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::Instant;

use base64::Engine as _;

use super::message::{Envelope, Recipe, Stamp};
use super::reply::{Malformed, Replies};

/// What became of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was said; it is safe to try again.
    Unsaid,
    /// RCPT was accepted, the final dot is not answered.
    Named,
    /// 250 to the final dot.
    Accepted,
    /// Refused with this code.
    Refused(u16),
    /// The connection was lost between the final dot and its answer.
    InDoubt,
}

/// One message on its way.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) number: u64,
    pub(super) attempt: u32,
    pub(super) envelope: Envelope,
    /// Which recipients of the envelope are tried.
    pub(super) which: Vec<u16>,
    /// What became of them, in the same order.
    pub(super) fates: Vec<Fate>,
    /// When it was due (open loop) or begun.
    pub(super) due: Instant,
    pub(super) dot: Option<Instant>,
    /// When the answer to the final dot came, and its text.
    pub(super) answered: Option<Instant>,
    pub(super) reply: Vec<u8>,
    mail_accepted: bool,
}

impl Transaction {
    pub(super) fn new(number: u64, attempt: u32, envelope: Envelope, which: Vec<u16>, due: Instant) -> Self {
        let fates = vec![Fate::Unsaid; which.len()];
        Self {
            number,
            attempt,
            envelope,
            which,
            fates,
            due,
            dot: None,
            answered: None,
            reply: Vec::new(),
            mail_accepted: false,
        }
    }

    /// Gives every recipient that waits for an answer this one.
    fn settle(&mut self, fate: Fate) {
        for have in &mut self.fates {
            if matches!(have, Fate::Unsaid | Fate::Named) {
                *have = fate;
            }
        }
    }
}

/// How a connection is to be made use of; one per run.
#[derive(Debug)]
pub(super) struct Habits {
    pub(super) hostname: String,
    pub(super) starttls: bool,
    pub(super) auth: Option<(String, String)>,
    pub(super) pipelining: bool,
    pub(super) messages_max: u32,
}

/// What the machine needs from outside for one step.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) stamp: Stamp<'a>,
    pub(super) recipe: &'a Recipe,
    pub(super) habits: &'a Habits,
    /// Transactions that have come to an end.
    pub(super) done: &'a mut Vec<Transaction>,
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The server said no before any message.
    Refused(&'static str, u16),
    /// What it said is no SMTP, or not what was asked.
    Malformed,
    /// Plaintext came behind the 220 to STARTTLS.
    InjectedPlaintext,
    /// STARTTLS or AUTH is wanted and not offered.
    NotOffered(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt(usize),
    Data,
    Dot,
    /// An answer that changes nothing.
    Ignored,
}

/// One SMTP client session.
#[derive(Debug)]
pub(super) struct Client {
    replies: Replies,
    expect: VecDeque<Expect>,
    ready: bool,
    /// The server has said 421, or we have said QUIT.
    leaving: bool,
    in_tls: bool,
    pipelining: bool,
    offers_tls: bool,
    offers_auth: bool,
    offers_size: bool,
    messages: u32,
    /// MAIL is out, the final dot is not.
    opening: Option<Transaction>,
    /// The final dot is out.
    closing: Option<Transaction>,
    /// Commands and content to be written.
    pub(super) out: Vec<u8>,
    /// TLS starts now.
    pub(super) starting_tls: bool,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            replies: Replies::default(),
            expect: VecDeque::from([Expect::Greeting]),
            ready: false,
            leaving: false,
            in_tls: false,
            pipelining: false,
            offers_tls: false,
            offers_auth: false,
            offers_size: false,
            messages: 0,
            opening: None,
            closing: None,
            out: Vec::new(),
            starting_tls: false,
        }
    }

    /// The connection is TLS from its first byte.
    pub(super) fn implicit_tls(&mut self) {
        self.in_tls = true;
    }

    /// TLS has begun behind STARTTLS: everything is asked again (RFC 3207 section 4.2).
    pub(super) fn tls_started(&mut self, habits: &Habits) {
        self.starting_tls = false;
        self.in_tls = true;
        self.hello(habits);
    }

    /// Whether a reply is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.expect.is_empty()
    }

    /// Whether greeting, TLS and AUTH are done.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the connection can take another message now.
    pub(super) fn can_begin(&self, habits: &Habits) -> bool {
        self.ready
            && !self.leaving
            && self.opening.is_none()
            && self.messages < habits.messages_max
            && if self.pipelining { self.out.len() < 1 << 20 } else { self.expect.is_empty() }
    }

    /// Whether it has sent all it may and has nothing under way.
    pub(super) fn is_spent(&self, habits: &Habits) -> bool {
        self.ready && (self.leaving || self.messages >= habits.messages_max) && !self.is_busy()
    }

    /// Whether a message is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.opening.is_some() || self.closing.is_some()
    }

    /// Begins a message.
    pub(super) fn begin(&mut self, transaction: Transaction, recipe: &Recipe) {
        let sender = &recipe.of.senders[transaction.envelope.sender];
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "MAIL FROM:<{sender}>");
        if self.offers_size {
            let _ = write!(self.out, " SIZE={}", transaction.envelope.size);
        }
        self.out.extend_from_slice(b"\r\n");
        self.expect.push_back(Expect::Mail);
        self.messages += 1;
        if self.pipelining {
            for at in 0..transaction.which.len() {
                self.rcpt(&transaction, at);
            }
            self.command(b"DATA", Expect::Data);
        }
        self.opening = Some(transaction);
    }

    /// Says good-bye.
    pub(super) fn quit(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.command(b"QUIT", Expect::Ignored);
        }
    }

    /// The connection is lost: what is under way ends.
    pub(super) fn lost(&mut self, done: &mut Vec<Transaction>) {
        self.leaving = true;
        self.expect.clear();
        if let Some(mut transaction) = self.closing.take() {
            transaction.settle(Fate::InDoubt);
            done.push(transaction);
        }
        if let Some(mut transaction) = self.opening.take() {
            for fate in transaction.fates.iter_mut().filter(|fate| **fate == Fate::Named) {
                *fate = Fate::Unsaid;
            }
            done.push(transaction);
        }
    }

    /// Takes input; says how much of it was used up.
    pub(super) fn input(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Broken> {
        let mut at = 0;
        while at < bytes.len() && !self.starting_tls {
            let next = self.replies.next(&bytes[at..]).map_err(|Malformed| Broken::Malformed)?;
            let Some((line, used)) = next else { break };
            at += used;
            if self.expect.front() == Some(&Expect::Ehlo) && line.code == 250 {
                self.capability(line.text);
            }
            if line.last {
                let (code, text) = (line.code, line.text);
                self.reply(code, text, cx)?;
            }
        }
        if self.starting_tls && at < bytes.len() {
            return Err(Broken::InjectedPlaintext);
        }
        Ok(at)
    }

    fn capability(&mut self, text: &[u8]) {
        let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        self.pipelining |= is(b"PIPELINING");
        self.offers_tls |= is(b"STARTTLS");
        self.offers_size |= is(b"SIZE");
        self.offers_auth |=
            is(b"AUTH") && text.to_ascii_uppercase().split(|byte| *byte == b' ').any(|it| it == b"PLAIN");
    }

    fn reply(&mut self, code: u16, text: &[u8], cx: &mut Context<'_>) -> Result<(), Broken> {
        let expected = self.expect.pop_front();
        if code == 421 {
            self.leaving = true;
        }
        let is_ok = (200..300).contains(&code);
        match expected {
            // Some servers say 421 unasked before they close.
            None if code == 421 => {}
            None => return Err(Broken::Malformed),
            Some(Expect::Ignored) => {}
            Some(Expect::Greeting) if is_ok => self.hello(cx.habits),
            Some(Expect::Ehlo) if is_ok => return self.hello_done(cx.habits),
            Some(Expect::StartTls) if is_ok => self.starting_tls = true,
            Some(Expect::Auth) if is_ok => self.ready = true,
            Some(Expect::Greeting) => return Err(Broken::Refused("greeting", code)),
            Some(Expect::Ehlo) => return Err(Broken::Refused("EHLO", code)),
            Some(Expect::StartTls) => return Err(Broken::Refused("STARTTLS", code)),
            Some(Expect::Auth) => return Err(Broken::Refused("AUTH", code)),
            Some(Expect::Mail) => self.mail_reply(code, is_ok, cx),
            Some(Expect::Rcpt(at)) => self.rcpt_reply(at, code, is_ok, cx),
            Some(Expect::Data) => self.data_reply(code, cx),
            Some(Expect::Dot) => {
                if let Some(mut transaction) = self.closing.take() {
                    transaction.answered = Some(cx.now);
                    transaction.reply.extend_from_slice(text);
                    transaction.settle(if is_ok { Fate::Accepted } else { Fate::Refused(code) });
                    cx.done.push(transaction);
                }
            }
        }
        Ok(())
    }

    fn hello(&mut self, habits: &Habits) {
        (self.pipelining, self.offers_tls, self.offers_auth, self.offers_size) = (false, false, false, false);
        let _ = write!(self.out, "EHLO {}\r\n", habits.hostname);
        self.expect.push_back(Expect::Ehlo);
    }

    fn hello_done(&mut self, habits: &Habits) -> Result<(), Broken> {
        self.pipelining &= habits.pipelining;
        if habits.starttls && !self.in_tls {
            if !self.offers_tls {
                return Err(Broken::NotOffered("STARTTLS"));
            }
            self.command(b"STARTTLS", Expect::StartTls);
        } else if let Some((user, password)) = &habits.auth {
            if !self.offers_auth {
                return Err(Broken::NotOffered("AUTH PLAIN"));
            }
            let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
            self.command(format!("AUTH PLAIN {plain}").as_bytes(), Expect::Auth);
        } else {
            self.ready = true;
        }
        Ok(())
    }

    fn mail_reply(&mut self, code: u16, is_ok: bool, cx: &mut Context<'_>) {
        let Some(mut transaction) = self.opening.take() else { return };
        if is_ok {
            transaction.mail_accepted = true;
            if !self.pipelining {
                self.rcpt(&transaction, 0);
            }
        } else {
            transaction.settle(Fate::Refused(code));
            if !self.pipelining {
                cx.done.push(transaction);
                return;
            }
        }
        self.opening = Some(transaction);
    }

    fn rcpt_reply(&mut self, at: usize, code: u16, is_ok: bool, cx: &mut Context<'_>) {
        let Some(mut transaction) = self.opening.take() else { return };
        if let Some(fate) = transaction.fates.get_mut(at).filter(|fate| **fate == Fate::Unsaid) {
            *fate = if is_ok { Fate::Named } else { Fate::Refused(code) };
        }
        if !self.pipelining && !self.leaving {
            if at + 1 < transaction.which.len() {
                self.rcpt(&transaction, at + 1);
            } else if transaction.fates.contains(&Fate::Named) {
                self.command(b"DATA", Expect::Data);
            } else {
                self.command(b"RSET", Expect::Ignored);
                cx.done.push(transaction);
                return;
            }
        }
        self.opening = Some(transaction);
    }

    fn data_reply(&mut self, code: u16, cx: &mut Context<'_>) {
        let Some(mut transaction) = self.opening.take() else { return };
        let is_named = transaction.fates.contains(&Fate::Named);
        if code == 354 && is_named {
            cx.recipe.content(transaction.number, &transaction.envelope, cx.stamp, &mut self.out);
            transaction.dot = Some(cx.now);
            self.expect.push_back(Expect::Dot);
            self.closing = Some(transaction);
            return;
        }
        if code == 354 {
            // RFC 2920 section 3.1: the server wants a text though it took no recipient; it gets an empty one.
            self.command(b".", Expect::Ignored);
        } else {
            transaction.settle(Fate::Refused(code));
            if transaction.mail_accepted && !self.leaving {
                self.command(b"RSET", Expect::Ignored);
            }
        }
        cx.done.push(transaction);
    }

    fn rcpt(&mut self, transaction: &Transaction, at: usize) {
        let recipient = &transaction.envelope.recipients[usize::from(transaction.which[at])];
        let _ = write!(self.out, "RCPT TO:<{recipient}>\r\n");
        self.expect.push_back(Expect::Rcpt(at));
    }

    fn command(&mut self, command: &[u8], expected: Expect) {
        self.out.extend_from_slice(command);
        self.out.extend_from_slice(b"\r\n");
        self.expect.push_back(expected);
    }
}
