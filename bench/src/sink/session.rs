//! The SMTP server side of a sink (RFC 5321), as a machine without a socket: bytes and time in, replies out.
//!
//! One per connection. Own parser on purpose: it shares none with the MTA it judges, and is strict only where SMTP
//! leaves no choice. Must never deliver what it did not answer 250, save for the fault that does exactly that.

mod commands;
mod deliver;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::SmallRng;

use crate::model::{FaultKind, Model, Stage, Starttls};
use crate::sink::books::Books;
use crate::sink::data::{Head, Scanner};
use crate::sink::shared::Shared;

/// Rubbish that is no SMTP reply.
const MALFORMED: &[u8] = b"2x0?this is \x00 no reply\r\n-\r\n";

/// Bytes of an endless reply written at a time.
const ENDLESS_PIECE: usize = 4096;

/// What a session needs from outside for one step.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    /// Microseconds since 1970, for the ledger.
    pub(super) wall_us: u64,
    pub(super) shared: &'a Shared,
    pub(super) books: &'a mut Books,
    pub(super) rng: &'a mut SmallRng,
}

/// What the next input byte belongs to.
#[derive(Debug)]
enum Phase {
    Command,
    /// The response to a 334 (RFC 4954).
    Auth,
    Data(Scanner),
    Bdat {
        remaining: u64,
        last: bool,
    },
    /// Input is read and thrown away.
    Deaf,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It does.
    Open,
    /// It closes once everything said is written.
    AfterFlush,
}

#[derive(Debug)]
struct Recipient {
    end: usize,
    model: usize,
}

/// One SMTP session.
#[derive(Debug)]
pub(super) struct Session {
    ip: IpAddr,
    /// The listener's model, and where it counts.
    model: usize,
    cell: usize,
    phase: Phase,
    greeted: bool,
    esmtp: bool,
    tls: Option<&'static str>,
    helo: String,
    sender: Option<Vec<u8>>,
    /// Addresses of the recipients accepted, one behind the other.
    addresses: Vec<u8>,
    recipients: Vec<Recipient>,
    head: Head,
    content: Vec<u8>,
    content_len: u64,
    /// A BDAT transaction is under way.
    chunking: bool,
    /// The refusal that the chunk being skipped will get.
    refusal: Option<String>,
    messages: u32,
    /// A model has had enough messages: the next MAIL gets 421.
    full: bool,
    delay_ms: u64,
    held: Option<(Instant, Vec<u8>)>,
    endless: bool,
    /// Replies to be written.
    pub(super) out: Vec<u8>,
    pub(super) end: End,
    /// TLS starts once `out` is written.
    pub(super) starting_tls: bool,
}

impl Session {
    pub(super) fn new(ip: IpAddr, model: usize, cell: usize) -> Self {
        Self {
            ip,
            model,
            cell,
            phase: Phase::Command,
            greeted: false,
            esmtp: false,
            tls: None,
            helo: String::new(),
            sender: None,
            addresses: Vec::new(),
            recipients: Vec::new(),
            head: Head::default(),
            content: Vec::new(),
            content_len: 0,
            chunking: false,
            refusal: None,
            messages: 0,
            full: false,
            delay_ms: 0,
            held: None,
            endless: false,
            out: Vec::new(),
            end: End::Open,
            starting_tls: false,
        }
    }

    /// Greets, or turns the client away; `open` is the number of its connections, this one included.
    pub(super) fn greet(&mut self, open: u64, cx: &mut Context<'_>) {
        let shared = cx.shared;
        let model = &shared.table.models[self.model];
        let counts = cx.books.cells.at(self.cell);
        counts.max_connections = counts.max_connections.max(open);
        if model.connections_per_ip.is_some_and(|max| open > u64::from(max)) {
            counts.connections_refused += 1;
            self.refuse(cx, self.model, "421 4.7.0 Too many concurrent connections from {ip}");
            self.end = End::AfterFlush;
            return;
        }
        counts.connections += 1;
        if self.misbehave(Stage::Connect, self.model, cx) || self.fail(Stage::Connect, self.model, cx) {
            return;
        }
        let greeting = format!("220 {} ESMTP sink", shared.hostname);
        self.reply_after(Duration::from_millis(model.latency.greeting_ms), &greeting, self.model, cx);
    }

    /// Takes input; says how much of it was used up. What is left is to be offered again once [`Self::is_open`].
    pub(super) fn input(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.is_open() {
            let rest = &bytes[at..];
            at += match &mut self.phase {
                Phase::Command | Phase::Auth => {
                    let Some(end) = memchr::memchr(b'\n', rest) else { break };
                    let is_last = end + 1 == rest.len();
                    self.line(&rest[..=end], is_last, cx);
                    end + 1
                }
                Phase::Data(scanner) => {
                    let (taken, done) = scanner.scan(rest);
                    self.content(&rest[..taken], cx);
                    if done && matches!(self.phase, Phase::Data(_)) {
                        self.phase = Phase::Command;
                        self.finish(cx);
                    }
                    taken
                }
                Phase::Bdat { remaining, last } => {
                    let taken = rest.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                    *remaining -= taken as u64;
                    let (done, last) = (*remaining == 0, *last);
                    self.content(&rest[..taken], cx);
                    if done && matches!(self.phase, Phase::Bdat { .. }) {
                        self.chunk_done(last, cx);
                    }
                    taken
                }
                Phase::Deaf => rest.len(),
            };
        }
        at
    }

    /// Whether input is welcome now.
    pub(super) fn is_open(&self) -> bool {
        self.held.is_none() && self.end == End::Open && !self.starting_tls
    }

    /// When a reply held back is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().map(|(at, _)| *at)
    }

    /// Lets go of a reply whose time has come.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some((at, _)) = self.held
            && at <= now
            && let Some((_, reply)) = self.held.take()
        {
            self.out.extend_from_slice(&reply);
        }
    }

    /// Writes on at a reply that never ends; true where there is one.
    pub(super) fn babble(&mut self) -> bool {
        while self.endless && self.out.len() < ENDLESS_PIECE {
            self.out.extend_from_slice(b"250-and another thing\r\n");
        }
        self.endless
    }

    /// How fast this session reads, in bytes a second.
    pub(super) fn bytes_per_second(&self, shared: &Shared) -> Option<u64> {
        shared.table.models[self.model].bytes_per_second
    }

    /// A command line is longer than anyone may send (RFC 5321 section 4.5.3.1.4).
    pub(super) fn line_too_long(&mut self, cx: &mut Context<'_>) {
        self.refuse(cx, self.model, "500 5.5.6 Line too long");
        self.end = End::AfterFlush;
    }

    /// Starts over inside TLS (RFC 3207 section 4.2).
    pub(super) fn tls_started(&mut self) {
        self.starting_tls = false;
        self.greeted = false;
        self.reset();
    }

    /// The handshake is complete.
    pub(super) fn tls_established(&mut self, version: &'static str, books: &mut Books) {
        self.tls = Some(version);
        let counts = books.cells.at(self.cell);
        if version == "TLSv1.3" {
            counts.tls13 += 1;
        } else {
            counts.tls12 += 1;
        }
    }

    pub(super) fn tls_failed(&mut self, books: &mut Books) {
        books.cells.at(self.cell).tls_failed += 1;
        self.end = End::AfterFlush;
    }

    pub(super) fn plaintext_discarded(&mut self, bytes: usize, books: &mut Books) {
        books.cells.at(self.cell).plaintext_discarded += bytes as u64;
    }

    fn reset(&mut self) {
        self.sender = None;
        self.addresses.clear();
        self.recipients.clear();
        self.head.clear();
        self.content.clear();
        self.content_len = 0;
        self.chunking = false;
        self.refusal = None;
    }

    /// The model that the transaction as a whole follows: that of its first recipient.
    fn transaction_model(&self) -> usize {
        self.recipients.first().map_or(self.model, |recipient| recipient.model)
    }

    fn reply(&mut self, text: &str, model: usize, cx: &mut Context<'_>) {
        self.reply_after(Duration::ZERO, text, model, cx);
    }

    /// Says something after the model's latency and `extra`.
    fn reply_after(&mut self, extra: Duration, text: &str, model: usize, cx: &mut Context<'_>) {
        let model = &cx.shared.table.models[model];
        let mut delay = extra + Duration::from_millis(model.latency.reply_ms);
        if let Some(tarpit) = model.tarpit {
            delay += Duration::from_millis(self.delay_ms);
            self.delay_ms = (self.delay_ms + tarpit.step_ms).min(tarpit.max_ms);
        }
        if let Some((_, reply)) = &mut self.held {
            write_reply(reply, text, model);
        } else if delay.is_zero() {
            write_reply(&mut self.out, text, model);
        } else {
            let mut reply = Vec::new();
            write_reply(&mut reply, text, model);
            self.held = Some((cx.now + delay, reply));
        }
    }

    /// Says no, and counts it. `{ip}` becomes the client's address.
    fn refuse(&mut self, cx: &mut Context<'_>, model: usize, text: &str) {
        let counts = self.counts(model, cx.books);
        if text.starts_with('4') {
            counts.refused_4xx += 1;
        } else {
            counts.refused_5xx += 1;
        }
        if text.starts_with("421") {
            self.end = End::AfterFlush;
        }
        if text.contains("{ip}") {
            self.reply(&text.replace("{ip}", &self.ip.to_string()), model, cx);
        } else {
            self.reply(text, model, cx);
        }
    }

    fn protocol_error(&mut self, cx: &mut Context<'_>, text: &str) {
        cx.books.cells.at(self.cell).protocol_errors += 1;
        self.refuse(cx, self.model, text);
    }

    fn counts<'b>(&self, model: usize, books: &'b mut Books) -> &'b mut crate::sink::counts::Counts {
        let place = if model == self.model { self.cell } else { books.cells.place(model, self.ip) };
        books.cells.at(place)
    }

    /// Refuses by chance; true where it did.
    fn fail(&mut self, stage: Stage, model: usize, cx: &mut Context<'_>) -> bool {
        let shared = cx.shared;
        for failure in &shared.table.models[model].failures {
            if failure.at == stage && cx.rng.random_bool(failure.ratio) {
                self.refuse(cx, model, &failure.reply);
                if stage == Stage::Connect {
                    self.end = End::AfterFlush;
                }
                return true;
            }
        }
        false
    }

    /// Misbehaves where the model says so; true where nothing more is to be said.
    fn misbehave(&mut self, stage: Stage, model: usize, cx: &mut Context<'_>) -> bool {
        let shared = cx.shared;
        for (number, fault) in shared.table.models[model].faults.iter().enumerate() {
            let is_here = fault.at == stage && fault.kind != FaultKind::DropMidData;
            if is_here && self.shows(model, number, cx) {
                return self.show(fault.kind, model, cx);
            }
        }
        false
    }

    /// Whether a fault shows this time; counts it.
    fn shows(&mut self, model: usize, number: usize, cx: &mut Context<'_>) -> bool {
        let fault = &cx.shared.table.models[model].faults[number];
        let shows = (fault.ratio >= 1.0 || cx.rng.random_bool(fault.ratio))
            && fault.times.is_none_or(|times| cx.shared.policy().shows_fault(model, number, times));
        self.counts(model, cx.books).faults += u64::from(shows);
        shows
    }

    fn show(&mut self, kind: FaultKind, model: usize, cx: &mut Context<'_>) -> bool {
        match kind {
            FaultKind::Silent => self.phase = Phase::Deaf,
            FaultKind::Drop | FaultKind::TakeAndDrop | FaultKind::DropMidData => self.end = End::AfterFlush,
            FaultKind::MalformedReply => self.out.extend_from_slice(MALFORMED),
            FaultKind::EndlessReply => {
                self.endless = true;
                self.phase = Phase::Deaf;
            }
            FaultKind::Shutdown => self.refuse(cx, model, "421 4.3.2 Service shutting down"),
        }
        true
    }
}

/// Writes a reply, line feeds in `text` starting new lines, without enhanced codes where they are not offered.
fn write_reply(out: &mut Vec<u8>, text: &str, model: &Model) {
    for line in text.split('\n') {
        let (code, rest) = line.split_at_checked(4).unwrap_or((line, ""));
        out.extend_from_slice(code.as_bytes());
        let is_code =
            |word: &str| word.split('.').count() == 3 && word.bytes().all(|b| b == b'.' || b.is_ascii_digit());
        let rest = match rest.split_once(' ') {
            Some((word, rest)) if !model.extensions.enhanced_status_codes && is_code(word) => rest,
            _ => rest,
        };
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether STARTTLS is to be had from this model on this sink.
fn offers_tls(model: &Model, shared: &Shared) -> bool {
    match model.starttls {
        Starttls::None => false,
        Starttls::BrokenHandshake | Starttls::Refused => true,
        Starttls::Offered | Starttls::Required | Starttls::InjectedPlaintext => shared.tls.is_some(),
    }
}
