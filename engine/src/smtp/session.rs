//! What a server session says to each command: state of the dialogue, the transaction, the replies.
//!
//! One per client connection, inside [`super::server::Server`], which owns the bytes. It must never let a transaction go on
//! in which a command was not understood, nor say anything that the client could have chosen beyond printable ASCII.

use super::{
    address::{AddressError, Path},
    auth::{Exchange, Turn},
    command::{self, Command, CommandError, MailParams, RcptParams},
    envelope::Envelope,
    reply::push_number,
    server::{Close, ServerPolicy},
};
use std::sync::Arc;

/// What has to happen after a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read the next command.
    Line,
    /// Forget the transaction, then read the next command.
    Reset,
    /// Read the text of DATA.
    Data,
    /// Read a chunk; not `good`: swallow it and say 503.
    Chunk { size: u64, last: bool, good: bool },
    /// Shake hands.
    StartTls,
    /// Check the credentials.
    Authenticate,
    /// Hang up.
    Close(Close),
}

/// How the client said hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    None,
    Helo,
    Ehlo,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) policy: Arc<ServerPolicy>,
    pub(super) tls: bool,
    pub(super) helo: String,
    pub(super) out: Vec<u8>,
    pub(super) envelope: Envelope,
    /// BDAT has begun: DATA, MAIL and RCPT have to wait for its last chunk.
    pub(super) chunks: bool,
    pub(super) exchange: Exchange,
    pub(super) auth_failures: u32,
    /// No memory for another transaction.
    pub(super) short: bool,
    authenticated: bool,
    hello: Hello,
    sender: bool,
    errors: u32,
    idle: u32,
}

impl Session {
    pub(super) fn new(policy: Arc<ServerPolicy>, tls: bool) -> Self {
        Self {
            policy,
            tls,
            helo: String::new(),
            out: Vec::new(),
            envelope: Envelope::default(),
            chunks: false,
            exchange: Exchange::None,
            auth_failures: 0,
            short: false,
            authenticated: false,
            hello: Hello::None,
            sender: false,
            errors: 0,
            idle: 0,
        }
    }

    /// Adds one reply line.
    pub(super) fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// Protocol word for the Received header (RFC 3848, RFC 6531 section 4.3).
    pub(super) fn protocol(&self) -> &'static str {
        match (self.hello, self.tls, self.envelope.smtputf8, self.authenticated) {
            (Hello::Ehlo, false, true, false) => "UTF8SMTP",
            (Hello::Ehlo, true, true, false) => "UTF8SMTPS",
            (Hello::Ehlo, false, true, true) => "UTF8SMTPA",
            (Hello::Ehlo, true, true, true) => "UTF8SMTPSA",
            (Hello::Ehlo, false, false, false) => "ESMTP",
            (_, true, _, true) => "ESMTPSA",
            (_, false, _, true) => "ESMTPA",
            (_, true, _, false) => "ESMTPS",
            (Hello::Helo | Hello::None, false, _, false) => "SMTP",
        }
    }

    /// MAIL was taken.
    pub(super) fn in_transaction(&self) -> bool {
        self.sender
    }

    /// The transaction is over or given up.
    pub(super) fn clear(&mut self) {
        self.envelope.clear();
        self.sender = false;
        self.chunks = false;
    }

    /// A message came to its end: the client does real work.
    pub(super) fn worked(&mut self) {
        self.errors = 0;
        self.idle = 0;
    }

    /// The handshake is done: all that was said before counts for nothing (RFC 3207 section 4.2).
    pub(super) fn tls_started(&mut self) {
        self.clear();
        self.tls = true;
        self.exchange = Exchange::None;
        self.authenticated = false;
        self.hello = Hello::None;
        self.helo.clear();
    }

    /// A reply to what should not have been said; too many of them end the session.
    pub(super) fn bad(&mut self, line: &str) -> Next {
        self.errors += 1;
        if self.errors > self.policy.max_errors {
            self.say("421 4.7.0 Too many errors");
            return Next::Close(Close::TooManyErrors);
        }
        self.say(line);
        Next::Line
    }

    /// A reply to a command that moves no message on; a session made of them ends.
    fn idle(&mut self, line: &str) -> Next {
        self.too_idle().unwrap_or_else(|| {
            self.say(line);
            Next::Line
        })
    }

    fn too_idle(&mut self) -> Option<Next> {
        self.idle += 1;
        (self.idle > self.policy.max_idle_commands).then(|| {
            self.say("421 4.7.0 Too many commands without a message");
            Next::Close(Close::TooManyErrors)
        })
    }

    /// Answers one line, given without its CRLF.
    pub(super) fn line(&mut self, line: &[u8]) -> Next {
        if self.exchange.is_open() {
            let turn = self.exchange.line(line);
            return self.turn(turn);
        }
        match command::parse(line, self.policy.smtputf8) {
            Ok(command) => self.command(command),
            Err(error) => match self.error(error) {
                Next::Line if command::looks_like_bdat(line) => Next::Close(Close::OutOfStep),
                next => next,
            },
        }
    }

    fn error(&mut self, error: CommandError<'_>) -> Next {
        match error {
            CommandError::TooLong => self.bad("500 5.5.2 Line too long"),
            CommandError::Characters => self.bad("500 5.5.2 Invalid character in command"),
            CommandError::Unknown => self.bad("500 5.5.1 Command not recognized"),
            CommandError::Syntax(usage) => self.bad(&format!("501 5.5.4 Syntax: {usage}")),
            CommandError::Value(usage) => self.bad(&format!("501 5.5.4 {usage}")),
            CommandError::Parameter => self.bad("555 5.5.4 Parameter not recognized or given twice"),
            _ if !self.ready() => self.not_ready(),
            CommandError::Sender(path, error) => self.bad_address("553 5.1.7 ", path, "Invalid email address", error),
            CommandError::Recipient(path, error) => self.bad_address("553 5.1.3 ", path, "address unknown", error),
        }
    }

    fn bad_address(&mut self, codes: &str, path: &str, text: &str, error: AddressError) -> Next {
        if error == AddressError::NeedsUtf8 {
            return self.idle("553 5.6.7 Address needs SMTPUTF8");
        }
        let path = path.split_inclusive('>').next().unwrap_or_default();
        let shown: String = path.chars().take(320).map(|c| if c.is_ascii() { c } else { '?' }).collect();
        self.idle(&format!("{codes}{shown} {text}"))
    }

    fn command(&mut self, command: Command<'_>) -> Next {
        match command {
            Command::Ehlo(name) => self.hello(Hello::Ehlo, name),
            Command::Helo(name) => self.hello(Hello::Helo, name),
            Command::Rset => match self.idle("250 2.0.0 Ok") {
                Next::Line => Next::Reset,
                next => next,
            },
            Command::Noop => self.idle("250 2.0.0 Ok"),
            Command::Quit => {
                self.say("221 2.0.0 Bye");
                Next::Close(Close::Quit)
            }
            Command::StartTls => self.start_tls(),
            Command::Bdat(size, last) => self.bdat(size, last),
            Command::Auth(..) if !self.policy.auth => self.bad("502 5.5.1 Command not implemented"),
            _ if !self.ready() => self.not_ready(),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial),
            Command::Mail(path, params) => self.mail(path, params),
            Command::Rcpt(path, params) => self.rcpt(path, params),
            Command::Data => self.data(),
            Command::Vrfy => self.idle("252 2.1.5 Cannot verify, but will take mail for it"),
            Command::Help => self.idle("214 2.0.0 See RFC 5321"),
            Command::NotImplemented => self.bad("502 5.5.1 Command not implemented"),
        }
    }

    /// Whether mail may be talked about.
    fn ready(&self) -> bool {
        self.hello != Hello::None && (self.tls || !self.policy.tls_required)
    }

    fn not_ready(&mut self) -> Next {
        if !self.tls && self.policy.tls_required {
            return self.bad("530 5.7.0 Must issue a STARTTLS command first");
        }
        self.bad("503 5.5.1 Send EHLO first")
    }

    fn hello(&mut self, hello: Hello, name: &str) -> Next {
        if let Some(end) = self.too_idle() {
            return end;
        }
        self.hello = hello;
        self.helo.clear();
        self.helo.push_str(name);
        let policy = Arc::clone(&self.policy);
        if hello == Hello::Helo {
            self.say(&format!("250 {}", policy.hostname));
            return Next::Reset;
        }
        self.out.extend_from_slice(b"250-");
        self.say(&policy.hostname);
        self.say("250-PIPELINING");
        self.out.extend_from_slice(b"250-SIZE ");
        push_number(&mut self.out, policy.max_size);
        self.say("\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES");
        if policy.starttls && !self.tls {
            self.say("250-STARTTLS");
        }
        if self.may_authenticate() {
            self.say("250-AUTH PLAIN LOGIN");
        }
        if policy.smtputf8 {
            self.say("250-SMTPUTF8");
        }
        self.say("250 DSN");
        Next::Reset
    }

    fn start_tls(&mut self) -> Next {
        if self.tls {
            return self.bad("503 5.5.1 TLS is already active");
        }
        if !self.policy.starttls {
            return self.bad("502 5.5.1 STARTTLS not available");
        }
        if self.hello != Hello::Ehlo {
            return self.bad("503 5.5.1 Send EHLO first");
        }
        Next::StartTls
    }

    /// AUTH is of use here.
    fn may_authenticate(&self) -> bool {
        self.policy.auth && (self.tls || self.policy.auth_in_clear)
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Next {
        if self.hello != Hello::Ehlo {
            return self.bad("503 5.5.1 Send EHLO first");
        }
        if !self.may_authenticate() {
            return self.bad("538 5.7.11 Encryption required for requested authentication mechanism");
        }
        if self.authenticated || self.sender {
            return self.bad("503 5.5.1 Already authenticated, or in a mail transaction");
        }
        let turn = self.exchange.begin(mechanism, initial);
        self.turn(turn)
    }

    fn turn(&mut self, turn: Turn) -> Next {
        match turn {
            Turn::Challenge(line) => {
                self.say(line);
                Next::Line
            }
            Turn::Check => Next::Authenticate,
            Turn::Refuse(line) => self.bad(line),
        }
    }

    /// The credentials were checked.
    pub(super) fn authenticated(&mut self, right: bool) -> Next {
        if right {
            self.authenticated = true;
            self.say("235 2.7.0 Authentication successful.");
            return Next::Line;
        }
        self.auth_failures += 1;
        if self.auth_failures >= self.policy.max_auth_failures {
            self.say("421 4.7.0 Too many failed authentications");
            return Next::Close(Close::TooManyErrors);
        }
        self.bad("535 5.7.8 Authentication Credentials Invalid")
    }

    fn mail(&mut self, path: Path<'_>, params: MailParams<'_>) -> Next {
        if self.policy.auth_required && !self.authenticated {
            return self.bad("530 5.7.0 Authentication required");
        }
        if self.sender {
            return self.bad("503 5.5.1 Sender already given");
        }
        if self.short {
            return self.idle("452 4.3.1 Insufficient system memory, try again later");
        }
        if params.size.is_some_and(|size| size > self.policy.max_size) {
            return self.idle("552 5.3.4 Message is too long.");
        }
        let envelope = &mut self.envelope;
        match path {
            Path::Mailbox(mailbox) => {
                if !params.smtputf8 && !mailbox.local.is_ascii() {
                    return self.idle("553 5.6.7 Address needs SMTPUTF8");
                }
                [mailbox.local, "@", &mailbox.domain].iter().for_each(|part| envelope.sender.push_str(part));
            }
            Path::Null if self.policy.allow_null_sender => {}
            Path::Null | Path::Postmaster => return self.idle("553 5.1.7 <> Invalid email address"),
        }
        envelope.ret = params.ret;
        envelope.env_id = params.env_id.map(str::to_owned);
        envelope.body = params.body.unwrap_or_default();
        envelope.smtputf8 = params.smtputf8;
        envelope.declared_size = params.size;
        self.sender = true;
        self.say("250 2.1.0 Ok");
        Next::Line
    }

    fn rcpt(&mut self, path: Path<'_>, params: RcptParams<'_>) -> Next {
        if !self.sender || self.chunks {
            return self.bad("503 5.5.1 Send MAIL first");
        }
        if self.envelope.recipients.len() >= self.policy.max_recipients {
            return self.idle("452 4.5.3 Too many recipients");
        }
        let notify = params.notify.unwrap_or_default();
        match path {
            Path::Mailbox(mailbox) => {
                if !self.envelope.smtputf8 && !mailbox.local.is_ascii() {
                    return self.idle("553 5.6.7 Address needs SMTPUTF8");
                }
                self.envelope.push([mailbox.local, "@", &mailbox.domain], notify, params.orcpt);
            }
            Path::Postmaster => {
                self.envelope.push(["postmaster", "@", &self.policy.hostname], notify, params.orcpt);
            }
            Path::Null => return self.idle("553 5.1.3 <> address unknown"),
        }
        self.say("250 2.1.5 Ok");
        Next::Line
    }

    fn data(&mut self) -> Next {
        if self.chunks {
            return self.bad("503 5.5.1 BDAT has begun: send its last chunk or RSET");
        }
        if self.envelope.recipients.is_empty() {
            return self.bad(if self.sender { "503 5.5.1 No valid recipients" } else { "503 5.5.1 Send MAIL first" });
        }
        self.say("354 End data with <CR><LF>.<CR><LF>");
        Next::Data
    }

    /// The chunk is on its way whatever we say, so it is always read; only one beyond all measure ends the session.
    fn bdat(&mut self, size: u64, last: bool) -> Next {
        if size > self.policy.swallow_max() {
            self.say("552 5.3.4 Message is too long.");
            return Next::Close(Close::TooMuch);
        }
        let good = self.ready() && !self.envelope.recipients.is_empty();
        self.chunks |= good;
        Next::Chunk { size, last, good }
    }

    /// Says what the swallowed chunk of a BDAT out of order gets.
    pub(super) fn stray_chunk(&mut self) -> Next {
        if !self.ready() {
            return self.not_ready();
        }
        self.bad(if self.sender { "503 5.5.1 No valid recipients" } else { "503 5.5.1 Send MAIL first" })
    }
}
