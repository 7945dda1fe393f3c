//! Lines of the event log: one JSON object for each recipient and event, in a fixed order of fields, absent rather than
//! null, named as SES names them where it has a name.
//!
//! Written by hand over `serde_json`'s string escaping: the objects are flat, and this runs once or twice a message on the
//! shard.

use super::detail::{Attempt, Outcome};
use crate::message::{date, meta::Meta, trace::write_display};
use mailrail_queue::{
    classify::DelayType,
    time::Wall,
    warmup::{day::Day, ladder::Decision},
};
use mailrail_spool::{OutboxKind, OutboxRecord, SettleKind};
use std::net::IpAddr;

/// Appends the lines of one record; none for records that are nobody's business (a move between shards).
pub(crate) fn record(record: &OutboxRecord<'_>, out: &mut Vec<u8>) {
    let Some(meta) = Meta::decode(record.meta) else { return };
    let accepted = Wall(record.accepted_ms);
    if record.kind == OutboxKind::Accepted {
        if meta.flags.moved {
            return;
        }
        for recipient in &meta.recipients {
            send(&meta, recipient.address, accepted, record.content_len, out);
        }
        return;
    }
    let Some(attempt) = Attempt::decode(record.detail) else { return };
    let event = match record.kind {
        OutboxKind::Settled(SettleKind::Suppressed) if attempt.outcome == Outcome::Complained => "Complaint",
        OutboxKind::Settled(SettleKind::Delivered) => "Delivery",
        OutboxKind::Settled(SettleKind::Bounced | SettleKind::Suppressed) => "Bounce",
        OutboxKind::Settled(SettleKind::Expired) => "Expired",
        OutboxKind::Settled(SettleKind::Cancelled) => "Cancel",
        OutboxKind::Settled(SettleKind::Moved) | OutboxKind::Accepted => return,
        OutboxKind::Deferred { .. } | OutboxKind::Attempt => "Attempt",
    };
    for number in record.recipients() {
        let Some(recipient) = meta.recipients.get(usize::from(number)) else { continue };
        // That mail waits for a plan is no try, and told to the sender only.
        let waits = attempt.outcome == Outcome::Deferred(DelayType::SendingDeferral);
        if !waits {
            outcome(event, &meta, recipient.address, accepted, &attempt, out);
        }
        if event == "Attempt" && attempt.tell_delay {
            outcome("DeliveryDelay", &meta, recipient.address, accepted, &attempt, out);
        }
    }
}

fn send(meta: &Meta<'_>, recipient: &str, accepted: Wall, size: u64, out: &mut Vec<u8>) {
    let mut line = Line::begin("Send", accepted, meta, recipient, out);
    line.number("size", size);
    if let Some(ip) = meta.lease {
        line.ip("outgoingIp", ip);
    }
    line.text("pool", Some(meta.pool).filter(|pool| !pool.is_empty()));
    if let Some(ip) = meta.source_ip {
        line.ip("sourceIp", ip);
    }
    line.text("sourceTlsVersion", meta.source_tls);
    line.text("fromDomain", Some(meta.from_domain));
    line.text("envId", meta.env_id);
    if meta.flags.dsn {
        line.raw("dsn", b"true");
    }
    line.end();
}

fn outcome(event: &str, meta: &Meta<'_>, recipient: &str, accepted: Wall, attempt: &Attempt<'_>, out: &mut Vec<u8>) {
    let mut line = Line::begin(event, attempt.time, meta, recipient, out);
    if attempt.attempt > 0 {
        line.number("attempt", u64::from(attempt.attempt));
    }
    if let Some(ip) = attempt.lease.or(meta.lease) {
        line.ip("outgoingIp", ip);
    }
    line.text("pool", Some(meta.pool).filter(|pool| !pool.is_empty()));
    line.text("mxHost", attempt.mx_host);
    if let Some(remote) = attempt.remote {
        line.ip("remoteMtaIp", remote.ip());
        line.number("remotePort", u64::from(remote.port()));
    }
    if let Some((version, cipher)) = attempt.tls {
        line.text("tlsVersion", Some(version));
        line.text("tlsCipher", Some(cipher));
    }
    match attempt.outcome {
        Outcome::Delivered => line.display("smtpResponse", "", &attempt.reply),
        Outcome::Deferred(delay) => {
            line.text("delayType", Some(delay.as_str()));
            diagnostic(&mut line, attempt);
        }
        Outcome::Bounced(kind, sub) => {
            line.text("bounceType", Some(kind.as_str()));
            line.text("bounceSubType", Some(sub.as_str()));
            diagnostic(&mut line, attempt);
        }
        Outcome::Cancelled => diagnostic(&mut line, attempt),
        Outcome::Complained => line.text("complaintSubType", Some("OnAccountSuppressionList")),
    }
    if attempt.in_doubt {
        line.raw("inDoubt", b"true");
    }
    if attempt.next_try > Wall(0) {
        line.time("nextTry", attempt.next_try);
    }
    let processing = u64::try_from(attempt.time.since(accepted).as_millis()).unwrap_or(u64::MAX);
    line.number("processingTimeMillis", processing);
    if attempt.attempt > 0 {
        for (name, period) in [
            ("queueTimeMillis", attempt.queue),
            ("connectTimeMillis", attempt.connect),
            ("transferTimeMillis", attempt.transfer),
        ] {
            line.number(name, u64::try_from(period.as_millis()).unwrap_or(u64::MAX));
        }
    }
    line.end();
}

fn diagnostic(line: &mut Line<'_>, attempt: &Attempt<'_>) {
    if let Some(enhanced) = attempt.reply.enhanced {
        line.display("status", "", &enhanced);
    }
    let kind = if attempt.reply.local { "x-mailrail; " } else { "smtp; " };
    line.display("diagnosticCode", kind, &attempt.reply);
}

/// One object being written.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

/// A line about an account as a whole, with figures.
pub(crate) fn of_account(event: &str, at: Wall, account: &str, figures: &[(&str, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"eventType\":\"");
    out.extend_from_slice(event.as_bytes());
    out.push(b'"');
    let mut line = Line { out: &mut out };
    line.time("timestamp", at);
    line.text("account", Some(account));
    figures.iter().for_each(|(name, value)| line.number(name, *value));
    line.end();
    out
}

/// A line about a ladder of a managed pool: what a day brought, and what was decided of the next one.
pub(crate) fn of_ladder(at: Wall, ip: IpAddr, provider: &str, day: Day, decision: &Decision) -> Vec<u8> {
    let mut out = b"{\"eventType\":\"Ladder\"".to_vec();
    let mut line = Line { out: &mut out };
    line.time("timestamp", at);
    line.text("ip", Some(&ip.to_string()));
    line.text("provider", Some(provider));
    line.text("verdict", Some(decision.verdict.as_str()));
    let figures = decision.figures;
    for (name, value) in [
        ("day", u64::from(day.0)),
        ("before", decision.before),
        ("after", decision.after),
        ("sent", figures.sent),
        ("deferred", figures.deferred),
        ("bounced", figures.bounced),
        ("blocked", u64::from(figures.blocked)),
    ] {
        line.number(name, value);
    }
    line.end();
    out
}

impl<'a> Line<'a> {
    fn begin(event: &str, at: Wall, meta: &Meta<'_>, recipient: &str, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"eventType\":\"");
        out.extend_from_slice(event.as_bytes());
        out.push(b'"');
        let mut line = Self { out };
        line.time("timestamp", at);
        line.name("messageId");
        line.out.push(b'"');
        line.out.extend_from_slice(&meta.id.to_text());
        line.out.push(b'"');
        line.text("account", Some(meta.account));
        line.text("source", Some(meta.sender));
        line.text("recipient", Some(recipient));
        line
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.name(name);
        self.string(value);
    }

    /// Escaped; most strings have nothing to escape.
    fn string(&mut self, value: &str) {
        if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            // A Vec takes all that is written to it.
            let _ = serde_json::to_writer(&mut *self.out, value);
        }
    }

    fn display(&mut self, name: &str, prefix: &str, value: &impl std::fmt::Display) {
        let text = format!("{prefix}{value}");
        self.text(name, Some(&text));
    }

    fn ip(&mut self, name: &str, ip: IpAddr) {
        self.name(name);
        self.out.push(b'"');
        write_display(self.out, &ip);
        self.out.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        write_display(self.out, &value);
    }

    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    fn time(&mut self, name: &str, at: Wall) {
        self.name(name);
        self.out.push(b'"');
        date::iso8601(at, self.out);
        self.out.push(b'"');
    }

    fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        id::MessageId,
        meta::{MetaFlags, RecipientMeta},
    };
    use crate::smtp::{
        envelope::Notify,
        reply::{Enhanced, Reply},
    };

    fn meta() -> Meta<'static> {
        Meta {
            id: MessageId::new(0x019b_7ca1_d0f8, 1, 2, 3),
            sender: "a@example.com",
            env_id: None,
            ret: None,
            flags: MetaFlags::default(),
            lease: Some("192.0.2.10".parse().unwrap()),
            pool: "main",
            source_ip: Some("192.0.2.7".parse().unwrap()),
            source_tls: None,
            from_domain: "example.com",
            header_size: 0,
            recipients: vec![RecipientMeta {
                address: "\"o\\\"dd\"@example.net",
                notify: Notify::DEFAULT,
                orcpt: None,
            }],
            account: "default",
            suppressed: Vec::new(),
        }
    }

    #[test]
    fn a_line_is_json_with_the_fields_in_order() {
        let mut out = Vec::new();
        send(&meta(), "b@example.net", Wall(0), 4096, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"eventType":"Send","timestamp":"1970-01-01T00:00:00.000Z","#,
                r#""messageId":"0100019b7ca1d0f8-00010000-0000-0002-0000-000000000003-000000","#,
                r#""account":"default","source":"a@example.com","recipient":"b@example.net","size":4096,"outgoingIp":"192.0.2.10","#,
                r#""pool":"main","sourceIp":"192.0.2.7","fromDomain":"example.com"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn whatever_a_remote_host_says_the_line_stays_one_json_object() {
        let attempt = Attempt {
            reply: Reply::new(550, Enhanced(5, 1, 1), "no \"such\" \\ user\u{1}\u{2028}é"),
            outcome: Outcome::Bounced(
                mailrail_queue::classify::BounceType::Permanent,
                mailrail_queue::classify::BounceSubType::NoEmail,
            ),
            attempt: 1,
            ..Attempt::default()
        };
        let mut out = Vec::new();
        let meta = meta();
        outcome("Bounce", &meta, meta.recipients[0].address, Wall(0), &attempt, &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["recipient"], "\"o\\\"dd\"@example.net");
        assert_eq!(value["bounceSubType"], "NoEmail");
        assert_eq!(value["status"], "5.1.1");
        assert!(value["diagnosticCode"].as_str().unwrap().starts_with("smtp; 550 5.1.1 no \"such\""));
    }
}
