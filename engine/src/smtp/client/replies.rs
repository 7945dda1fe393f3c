//! What a delivery connection makes of the server's replies.
//!
//! Part of the client machine (one per delivery connection): each reply is matched with the oldest command that has none.
//! It must never take a reply for a command that was not given.

use super::{Client, Expect, State, Tls};
use crate::smtp::{
    flight::Turn,
    letter::{Capabilities, ContentWriter},
    outcome::{Stage, Verdict, Why},
    reply::Reply,
};

impl Client {
    /// Takes one reply from the input, if there is a whole one.
    pub(super) fn read_reply(&mut self) -> bool {
        let ehlo = self.expected.front() == Some(&Expect::Ehlo);
        let (caps, lines) = (&mut self.caps, &mut self.ehlo_lines);
        let parsed = self.parser.parse(&self.input[self.start..self.end], |line| {
            if ehlo {
                if *lines > 0 {
                    caps.line(line);
                }
                *lines += 1;
            }
        });
        match parsed {
            Ok((taken, complete)) => {
                self.start += taken;
                if complete {
                    let mut reply = std::mem::take(self.parser.reply_mut());
                    self.take_reply(&mut reply);
                    *self.parser.reply_mut() = reply;
                }
                complete
            }
            Err(_) => {
                self.close(Why::Misbehaved("malformed or endless reply"));
                false
            }
        }
    }

    fn take_reply(&mut self, reply: &mut Reply) {
        self.replies += 1;
        let shutdown = (reply.code == 421).then(|| reply.clone());
        match self.expected.pop_front() {
            None => return self.unsolicited(reply),
            Some(Expect::Quit) => {
                let why = self.why.take().unwrap_or(Why::Quit);
                return self.close(why);
            }
            Some(_) if shutdown.is_some() && self.flights.is_empty() => {}
            Some(kind @ (Expect::Mail | Expect::Rcpt | Expect::Data | Expect::Final)) => self.letter_reply(kind, reply),
            Some(Expect::LoneDot) => self.finish_front(),
            Some(Expect::Rset) => {}
            Some(kind) => self.hello_reply(kind, reply),
        }
        if let Some(reply) = shutdown {
            return self.close(Why::Shutdown(reply));
        }
        self.send_held();
    }

    fn unsolicited(&mut self, reply: &mut Reply) {
        let why = if reply.code == 421 || (reply.code >= 400 && !self.flights.is_empty()) {
            Why::Shutdown(reply.clone())
        } else {
            Why::Misbehaved("a reply to nothing")
        };
        if let (Why::Shutdown(_), Some(flight)) = (&why, self.flights.back_mut()) {
            flight.decide(Verdict::Refused, Stage::Content, reply);
        }
        self.close(why);
    }

    fn letter_reply(&mut self, kind: Expect, reply: &mut Reply) {
        self.shut |= reply.code == 421;
        let Some(flight) = self.flights.front_mut() else { return };
        let failed_chunk = kind == Expect::Final && flight.chunk && !reply.is_positive();
        let turn = match kind {
            Expect::Mail => flight.mail(reply),
            Expect::Rcpt => flight.rcpt(reply),
            Expect::Data => flight.data(reply),
            _ => flight.last(reply),
        };
        let give_up = flight.decided && !self.held_kinds.is_empty();
        // After 503 to MAIL the two ends do not agree on where they are.
        let lost_step = kind == Expect::Mail && flight.decided && flight.outcome.reply.code == 503;
        self.dirty |= lost_step || failed_chunk || (flight.mail_accepted && (give_up || kind == Expect::Data));
        match turn {
            Turn::Misbehaved(what) => self.close(Why::Misbehaved(what)),
            Turn::LoneDot => {
                self.out.extend_from_slice(b".\r\n");
                self.expected.push_back(Expect::LoneDot);
            }
            Turn::Finished => self.finish_front(),
            Turn::Next if give_up => {
                self.held.clear();
                self.held_kinds.clear();
                self.finish_front();
            }
            Turn::Next => {
                if kind == Expect::Data {
                    self.dirty = false;
                    self.writer = Some(ContentWriter::new(true));
                }
            }
        }
    }

    fn hello_reply(&mut self, kind: Expect, reply: &mut Reply) {
        let good = reply.is_positive();
        match kind {
            Expect::Greeting if good => self.say_hello(Expect::Ehlo),
            Expect::Ehlo if good => self.hello_done(),
            Expect::Ehlo if reply.is_permanent() => self.say_hello(Expect::Helo),
            Expect::Helo if good => self.hello_done(),
            Expect::StartTls if !good && self.policy.tls == Tls::Required => self.leave(Why::TlsRequired),
            Expect::StartTls if !good => self.state = State::Session,
            Expect::StartTls if self.start < self.end => {
                self.close(Why::Injected);
            }
            Expect::StartTls => self.state = State::Tls,
            _ => self.close(Why::Refused(std::mem::take(reply))),
        }
        if self.state == State::Hello && self.start < self.end {
            self.close(Why::Misbehaved("a reply before its command"));
        }
    }

    pub(super) fn say_hello(&mut self, kind: Expect) {
        self.state = State::Hello;
        self.caps = Capabilities::default();
        self.ehlo_lines = 0;
        self.out.extend_from_slice(if kind == Expect::Ehlo { b"EHLO " } else { b"HELO " });
        self.out.extend_from_slice(self.policy.helo.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.expected.push_back(kind);
    }

    fn hello_done(&mut self) {
        self.state = State::Session;
        if self.tls || self.policy.tls == Tls::Never {
            return;
        }
        if self.caps.starttls {
            self.state = State::Hello;
            self.out.extend_from_slice(b"STARTTLS\r\n");
            self.expected.push_back(Expect::StartTls);
        } else if self.policy.tls == Tls::Required {
            self.leave(Why::TlsRequired);
        }
    }
}
