//! The commands of SMTP, one method a verb.

use std::fmt::Write as _;

use super::{Context, End, Phase, Recipient, Session, offers_tls};
use crate::model::{Model, Stage, Starttls, matches};
use crate::sink::data::Scanner;

impl Session {
    /// One line, with its line feed. `is_last`: nothing more has come with it.
    pub(super) fn line(&mut self, line: &[u8], is_last: bool, cx: &mut Context<'_>) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(self.phase, Phase::Auth) {
            self.phase = Phase::Command;
            self.reply("235 2.7.0 Authenticated", self.model, cx);
            return;
        }
        let shared = cx.shared;
        let model = &shared.table.models[self.model];
        let verb_len = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (verb, arguments) = line.split_at(verb_len);
        let arguments = arguments.trim_ascii();
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        // What rides behind a BDAT command is its content, behind STARTTLS it is thrown away: both are counted there.
        if !is_last && !model.extensions.pipelining && !is(b"BDAT") && !is(b"STARTTLS") {
            cx.books.cells.at(self.cell).pipelined_unasked += 1;
        }
        if is(b"MAIL") {
            self.mail(arguments, model, cx);
        } else if is(b"RCPT") {
            self.rcpt(arguments, cx);
        } else if is(b"DATA") {
            self.data(cx);
        } else if is(b"BDAT") {
            self.bdat(arguments, model, cx);
        } else if is(b"EHLO") || is(b"HELO") {
            self.hello(is(b"EHLO"), arguments, model, cx);
        } else if is(b"RSET") {
            self.reset();
            self.reply("250 2.0.0 Ok", self.model, cx);
        } else if is(b"QUIT") {
            self.end = End::AfterFlush;
            self.reply("221 2.0.0 Bye", self.model, cx);
        } else if is(b"NOOP") {
            self.reply("250 2.0.0 Ok", self.model, cx);
        } else if is(b"STARTTLS") {
            self.starttls(model, cx);
        } else if is(b"AUTH") && model.extensions.auth {
            self.auth(arguments, cx);
        } else if is(b"VRFY") {
            self.reply("252 2.5.2 Send some mail, it will be seen", self.model, cx);
        } else {
            self.protocol_error(cx, "500 5.5.2 Command not recognized");
        }
    }

    fn hello(&mut self, esmtp: bool, name: &[u8], model: &Model, cx: &mut Context<'_>) {
        if esmtp && !model.extensions.ehlo {
            self.refuse(cx, self.model, "502 5.5.1 EHLO not implemented");
            return;
        }
        if self.misbehave(Stage::Ehlo, self.model, cx) || self.fail(Stage::Ehlo, self.model, cx) {
            return;
        }
        self.reset();
        self.greeted = true;
        self.esmtp = esmtp;
        self.helo = String::from_utf8_lossy(name).into_owned();
        let mut text = format!("250-{} greets {}", cx.shared.hostname, self.ip);
        if esmtp {
            let offered = &model.extensions;
            let mut offer = |is_offered: bool, what: std::fmt::Arguments<'_>| {
                if is_offered {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\n250-{what}");
                }
            };
            offer(offered.pipelining, format_args!("PIPELINING"));
            offer(offered.size > 0, format_args!("SIZE {}", offered.size));
            offer(offered.eight_bit_mime, format_args!("8BITMIME"));
            offer(offered.enhanced_status_codes, format_args!("ENHANCEDSTATUSCODES"));
            offer(offered.chunking, format_args!("CHUNKING"));
            offer(offered.smtputf8, format_args!("SMTPUTF8"));
            offer(offered.dsn, format_args!("DSN"));
            offer(offered.auth, format_args!("AUTH PLAIN"));
            offer(self.tls.is_none() && offers_tls(model, cx.shared), format_args!("STARTTLS"));
        }
        if let Some(last) = text.rfind("250-") {
            text.replace_range(last..last + 4, "250 ");
        }
        self.reply(&text, self.model, cx);
    }

    fn mail(&mut self, arguments: &[u8], model: &Model, cx: &mut Context<'_>) {
        if self.full {
            self.refuse(cx, self.model, "421 4.7.0 Enough messages on this connection, come again");
            return;
        }
        if !self.greeted || self.sender.is_some() {
            self.protocol_error(cx, "503 5.5.1 Bad sequence of commands");
            return;
        }
        if model.starttls == Starttls::Required && self.tls.is_none() {
            self.refuse(cx, self.model, "530 5.7.0 Must issue a STARTTLS command first");
            return;
        }
        let Some((address, parameters)) = path(arguments, b"FROM:") else {
            self.protocol_error(cx, "501 5.5.4 Syntax: MAIL FROM:<address>");
            return;
        };
        if self.misbehave(Stage::Mail, self.model, cx) || self.fail(Stage::Mail, self.model, cx) {
            return;
        }
        let offered = &model.extensions;
        for parameter in parameters.split(|byte| *byte == b' ').filter(|parameter| !parameter.is_empty()) {
            let at = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
            let (keyword, value) = parameter.split_at(at);
            let is = |name: &[u8]| keyword.eq_ignore_ascii_case(name);
            let size = value.get(1..).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
            let is_known = (is(b"SIZE") && offered.size > 0 && size.is_some())
                || (is(b"BODY") && offered.eight_bit_mime)
                || (is(b"SMTPUTF8") && offered.smtputf8)
                || ((is(b"RET") || is(b"ENVID")) && offered.dsn)
                || (is(b"AUTH") && offered.auth);
            if !is_known || !self.esmtp {
                self.protocol_error(cx, "555 5.5.4 Parameter not offered");
                return;
            }
            if is(b"SIZE") && size > Some(offered.size) {
                self.refuse(cx, self.model, "552 5.3.4 Message size exceeds fixed limit");
                return;
            }
        }
        self.reset();
        self.sender = Some(address.to_vec());
        cx.books.cells.at(self.cell).transactions += 1;
        self.reply("250 2.1.0 Ok", self.model, cx);
    }

    fn rcpt(&mut self, arguments: &[u8], cx: &mut Context<'_>) {
        if self.sender.is_none() || self.chunking {
            self.protocol_error(cx, "503 5.5.1 Bad sequence of commands");
            return;
        }
        let Some((address, parameters)) = path(arguments, b"TO:").filter(|(address, _)| !address.is_empty()) else {
            self.protocol_error(cx, "501 5.5.4 Syntax: RCPT TO:<address>");
            return;
        };
        let shared = cx.shared;
        if shared.watched.contains(&self.ip) {
            cx.books.name(self.ip, self.sender.as_deref().unwrap_or_default(), address, cx.wall_us);
        }
        let at = memchr::memrchr(b'@', address).unwrap_or(address.len());
        let local = &address[..at];
        let domain = address.get(at + 1..).unwrap_or_default().to_ascii_lowercase();
        let number = shared.table.by_domain(&domain).unwrap_or(self.model);
        let model = &shared.table.models[number];
        if !parameters.is_empty() && !model.extensions.dsn {
            self.protocol_error(cx, "555 5.5.4 Parameter not offered");
            return;
        }
        if self.misbehave(Stage::Rcpt, number, cx) {
            return;
        }
        if model.recipients_per_transaction.is_some_and(|max| self.recipients.len() >= max as usize) {
            self.refuse(cx, number, "452 4.5.3 Too many recipients");
            return;
        }
        if model.unknown_users.iter().any(|pattern| matches(pattern.as_bytes(), local)) {
            self.refuse(cx, number, "550 5.1.1 User unknown");
            return;
        }
        if let Some(refusal) = self.remembered_refusal(number, address, cx) {
            self.refuse(cx, number, refusal);
            return;
        }
        if self.fail(Stage::Rcpt, number, cx) {
            return;
        }
        self.addresses.extend_from_slice(address);
        self.recipients.push(Recipient { end: self.addresses.len(), model: number });
        self.reply("250 2.1.5 Ok", number, cx);
    }

    /// What the models with a memory have to say against a recipient.
    fn remembered_refusal<'a>(&self, number: usize, address: &[u8], cx: &mut Context<'a>) -> Option<&'a str> {
        let shared = cx.shared;
        let model = &shared.table.models[number];
        if let Some(rule) = model.greylist {
            let sender = self.sender.as_deref().unwrap_or_default();
            if !shared.policy().is_known(cx.now, rule, self.ip, sender, address) {
                return Some("451 4.7.1 Greylisted, please try again later");
            }
        }
        if let Some(rule) = &model.rate_limit
            && !shared.policy().fits_rate(cx.now, rule, number, self.ip)
        {
            return Some(&rule.reply);
        }
        if let Some(rule) = &model.reputation
            && !shared.policy().fits_history(cx.now, rule, number, self.ip)
        {
            return Some(&rule.reply);
        }
        None
    }

    fn data(&mut self, cx: &mut Context<'_>) {
        if self.recipients.is_empty() || self.chunking {
            // RFC 2920 section 3.1: a client that pipelined DATA behind refused recipients is told no here.
            if self.sender.is_some() && !self.chunking {
                self.refuse(cx, self.model, "554 5.5.1 No valid recipients");
            } else {
                self.protocol_error(cx, "503 5.5.1 Bad sequence of commands");
            }
            return;
        }
        let model = self.transaction_model();
        if self.misbehave(Stage::Data, model, cx) {
            return;
        }
        if self.fail(Stage::Data, model, cx) {
            self.reset();
            return;
        }
        self.phase = Phase::Data(Scanner::new());
        self.reply("354 End data with <CR><LF>.<CR><LF>", model, cx);
    }

    fn bdat(&mut self, arguments: &[u8], model: &Model, cx: &mut Context<'_>) {
        let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let size = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
        let Some(remaining) = size else {
            self.protocol_error(cx, "501 5.5.4 Syntax: BDAT size [LAST]");
            return;
        };
        if !model.extensions.chunking {
            self.refusal = Some("502 5.5.1 BDAT not offered".into());
            cx.books.cells.at(self.cell).protocol_errors += 1;
        } else if self.recipients.is_empty() && self.refusal.is_none() {
            let has_sender = self.sender.is_some();
            let text = if has_sender { "554 5.5.1 No valid recipients" } else { "503 5.5.1 Bad sequence of commands" };
            self.refusal = Some(text.into());
        } else if !self.chunking && self.misbehave(Stage::Data, self.transaction_model(), cx) {
            return;
        }
        self.chunking = true;
        self.phase = Phase::Bdat { remaining, last };
        if remaining == 0 {
            self.chunk_done(last, cx);
        }
    }

    pub(super) fn chunk_done(&mut self, last: bool, cx: &mut Context<'_>) {
        self.phase = Phase::Command;
        if let Some(text) = self.refusal.take() {
            self.refuse(cx, self.transaction_model(), &text);
            self.reset();
        } else if last {
            self.finish(cx);
        } else {
            let text = format!("250 2.0.0 {} bytes received", self.content_len);
            self.reply(&text, self.transaction_model(), cx);
        }
    }

    fn starttls(&mut self, model: &Model, cx: &mut Context<'_>) {
        if self.tls.is_some() || !offers_tls(model, cx.shared) {
            self.protocol_error(cx, "503 5.5.1 STARTTLS not offered");
            return;
        }
        match model.starttls {
            Starttls::Refused => {
                self.refuse(cx, self.model, "454 4.7.0 TLS not available due to temporary reason");
                return;
            }
            Starttls::BrokenHandshake => {
                self.reply("220 2.0.0 Ready to start TLS\nthis is no TLS record, is it?", self.model, cx);
                self.end = End::AfterFlush;
                return;
            }
            Starttls::InjectedPlaintext => {
                self.reply("220 2.0.0 Ready to start TLS\n250-injected.invalid\n250 SIZE 1", self.model, cx);
            }
            _ => self.reply("220 2.0.0 Ready to start TLS", self.model, cx),
        }
        self.starting_tls = true;
    }

    fn auth(&mut self, arguments: &[u8], cx: &mut Context<'_>) {
        let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"PLAIN")) {
            self.refuse(cx, self.model, "504 5.5.4 Only PLAIN");
        } else if words.next().is_some() {
            self.reply("235 2.7.0 Authenticated", self.model, cx);
        } else {
            self.phase = Phase::Auth;
            self.reply("334 ", self.model, cx);
        }
    }
}

/// The address and the parameters of `FROM:<address> parameters`.
fn path<'a>(arguments: &'a [u8], prefix: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (head, rest) = arguments.split_at_checked(prefix.len())?;
    let rest = rest.trim_ascii_start();
    if !head.eq_ignore_ascii_case(prefix) || rest.first() != Some(&b'<') {
        return None;
    }
    let end = memchr::memrchr(b'>', rest)?;
    Some((&rest[1..end], rest[end + 1..].trim_ascii()))
}
