//! `mailrail trace`: one message's story, from its events, in plain words.

use super::{Failure, Outcome, connect::Connect};
use crate::{
    client::encoded,
    event::Event,
    ui::{
        self,
        colour::{self, BAD, DIM, GOOD, HEAD, WARN, paint},
        units,
    },
};
use mailrail_engine::control::api::types::TraceReport;
use std::{fmt::Write, time::Duration};

/// Tell the story of one message: each recipient, each try, each reply
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail trace 0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000\n  \
mailrail trace --json 0100019b7ca1d0f8-… | jq '.events[] | .smtpResponse'\n"
))]
pub(crate) struct Args {
    /// Message id, as the server's final 250 and every event have it
    #[arg(value_name = "MESSAGE-ID")]
    message: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let path = format!("/mailrail/v1/trace/{}", encoded(&args.message));
    let report: TraceReport = args.connect.client()?.get(&path)?;
    if report.events.is_empty() {
        let message = &args.message;
        return Err(Failure::Operation(format!(
            "no event of message {message}: never accepted here, or its log is gone"
        )));
    }
    if args.json {
        return Ok(ui::print_json(&report)?);
    }
    let events = report.events.into_iter().map(serde_json::from_value).collect::<Result<Vec<Event>, _>>();
    let events = events.map_err(|why| Failure::Operation(format!("an event of this message cannot be read: {why}")))?;
    Ok(ui::print(&story(&args.message, &events))?)
}

/// The message and each recipient, in the order they were accepted.
fn story(message: &str, events: &[Event]) -> String {
    let mut out = format!("{}\n", paint(HEAD, format!("Message {message}")));
    if let Some(sent) = events.iter().find(|event| event.event_type == "Send") {
        let sender = match sent.source.as_deref() {
            None | Some("" | "<>") => "the null sender (a bounce message)",
            Some(sender) => sender,
        };
        let _ = write!(out, "  from {sender}, accepted {}", sent.timestamp);
        if let Some(ip) = &sent.source_ip {
            let _ = write!(out, " from {ip}");
        }
        if let Some(size) = sent.size {
            let _ = write!(out, ", {}", units::bytes(size));
        }
        out.push('\n');
    }
    let mut recipients: Vec<&str> = Vec::new();
    for recipient in events.iter().filter_map(|event| event.recipient.as_deref()) {
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    for recipient in recipients {
        let own: Vec<_> = events.iter().filter(|event| event.recipient.as_deref() == Some(recipient)).collect();
        let _ = write!(out, "\n{}: {}\n", paint(HEAD, recipient), summary(&own));
        for event in own {
            let _ = writeln!(out, "  {}  {}", paint(DIM, &event.timestamp), line(event));
        }
    }
    out
}

/// How it stands with a recipient, in one phrase.
fn summary(events: &[&Event]) -> String {
    let tries = events.iter().filter_map(|event| event.attempt).max().unwrap_or(0);
    let after = |event: &Event| {
        let tries = if tries == 1 { "the first try".to_owned() } else { format!("{tries} tries") };
        match event.processing_time_millis {
            Some(ms) => format!(" after {}, {tries}", units::duration(Duration::from_millis(ms))),
            None if tries == "0 tries" => String::new(),
            None => format!(" after {tries}"),
        }
    };
    let last = |kind: &str| events.iter().rev().find(|event| event.event_type == kind);
    if let Some(event) = last("Delivery") {
        return paint(GOOD, format!("delivered{}", after(event)));
    }
    if let Some(event) = last("Bounce") {
        let kind = [&event.bounce_type, &event.bounce_sub_type].map(|part| part.as_deref().unwrap_or("?"));
        return paint(BAD, format!("bounced ({}){}", kind.join(", "), after(event)));
    }
    if let Some(event) = last("Expired") {
        return paint(BAD, format!("expired{}", after(event)));
    }
    match events.iter().rev().find_map(|event| event.next_try.as_deref()) {
        Some(next) => paint(WARN, format!("deferred, next try {next}")),
        None => paint(WARN, "queued"),
    }
}

/// One event in words.
fn line(event: &Event) -> String {
    let mut out = match event.event_type.as_str() {
        "Send" => paint(colour::DIM, "accepted"),
        "Delivery" => paint(GOOD, "delivered"),
        "Bounce" => paint(BAD, "bounced"),
        "Expired" => paint(BAD, "expired"),
        "DeliveryDelay" => paint(WARN, "delayed"),
        "Attempt" if event.in_doubt == Some(true) => paint(WARN, "in doubt: the receiver may have it"),
        "Attempt" => paint(WARN, "deferred"),
        other => other.to_owned(),
    };
    if let Some(attempt) = event.attempt.filter(|_| event.event_type != "DeliveryDelay") {
        let _ = write!(out, ", try {attempt}");
    }
    if let Some(ip) = &event.outgoing_ip {
        let _ = write!(out, "{} {ip}", if event.event_type == "Send" { ", to leave by" } else { " from" });
    }
    if let Some(host) = &event.mx_host {
        let _ = write!(out, " to {host}");
    }
    if let Some(address) = &event.remote_mta_ip {
        let _ = write!(out, " [{address}]");
    }
    match (&event.tls_version, &event.tls_cipher) {
        (Some(version), Some(cipher)) => {
            let _ = write!(out, " over {version} ({cipher})");
        }
        (Some(version), None) => {
            let _ = write!(out, " over {version}");
        }
        _ => {}
    }
    let said = event.smtp_response.as_deref().or(event.diagnostic_code.as_deref());
    if let Some(said) = said {
        let _ = write!(out, ": {said}");
    }
    if let Some(next) = &event.next_try {
        let _ = write!(out, "; next try {next}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000";

    fn events(lines: &str) -> Vec<Event> {
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn told(lines: &str) -> String {
        anstream::adapter::strip_str(&story(ID, &events(lines))).to_string()
    }

    const GREYLISTED: &str = r#"{"eventType":"Send","timestamp":"2026-01-02T03:04:05.000Z","source":"s@example.com","recipient":"a@example.net","sourceIp":"192.0.2.7","size":4300}
{"eventType":"Attempt","timestamp":"2026-01-02T03:04:05.300Z","recipient":"a@example.net","attempt":1,"outgoingIp":"192.0.2.10","mxHost":"mx.example.net","remoteMtaIp":"198.51.100.25","smtpResponse":"451 4.7.1 greylisted","nextTry":"2026-01-02T03:05:05.000Z"}"#;

    #[test]
    fn a_deferred_recipient_has_its_reason_and_next_try() {
        let told = told(GREYLISTED);
        assert!(
            told.contains("from s@example.com, accepted 2026-01-02T03:04:05.000Z from 192.0.2.7, 4.20 KiB"),
            "{told}"
        );
        assert!(told.contains("a@example.net: deferred, next try 2026-01-02T03:05:05.000Z"), "{told}");
        assert!(
            told.contains("deferred, try 1 from 192.0.2.10 to mx.example.net [198.51.100.25]: 451 4.7.1"),
            "{told}"
        );
    }

    #[test]
    fn a_delivery_ends_the_story() {
        let end = r#"{"eventType":"Delivery","timestamp":"2026-01-02T03:05:06.000Z","recipient":"a@example.net","attempt":2,"tlsVersion":"TLSv1.3","smtpResponse":"250 2.0.0 Ok","processingTimeMillis":61000}"#;
        let told = told(&format!("{GREYLISTED}\n{end}"));
        assert!(told.contains("a@example.net: delivered after 1m 1s, 2 tries"), "{told}");
        assert!(told.contains("over TLSv1.3: 250 2.0.0 Ok"), "{told}");
    }

    #[test]
    fn a_bounce_names_its_kind() {
        let told = told(
            r#"{"eventType":"Bounce","timestamp":"2026-01-02T03:05:06.000Z","recipient":"b@example.net","attempt":1,"bounceType":"Permanent","bounceSubType":"NoEmail","diagnosticCode":"smtp; 550 5.1.1 unknown"}"#,
        );
        assert!(told.contains("b@example.net: bounced (Permanent, NoEmail) after the first try"), "{told}");
        assert!(told.contains("smtp; 550 5.1.1 unknown"), "{told}");
    }
}
