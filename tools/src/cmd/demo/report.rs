//! What the demo has to say at its end: tables for people, one object for machines.

use super::books::{Ended, Reconciliation};
use crate::ui::{
    colour::{BAD, GOOD, HEAD, paint},
    table::{Left, Right, Table, bad, figure, good, text, unless_zero},
    units,
};
use mailrail_bench::{
    latency::Summary,
    load::LoadReport,
    sink::{Counts, SinkReport, dkim::DkimCounts},
};
use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// Everything there is to report.
pub(super) struct Findings {
    pub(super) load: LoadReport,
    pub(super) sink: SinkReport,
    pub(super) books: Reconciliation,
    pub(super) ended: Ended,
    /// Name and domains of each receiver.
    pub(super) receivers: Vec<(String, String)>,
    /// Messages accepted, and DSNs made besides.
    pub(super) messages: u64,
    pub(super) dsns: u64,
    /// From the first message to the last delivery.
    pub(super) elapsed: Duration,
    /// CPU time of the server's process.
    pub(super) cpu: Option<Duration>,
    pub(super) syncs: u64,
}

/// One object on standard output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct Json {
    messages: u64,
    accepted: u64,
    delivered: u64,
    bounced: u64,
    queued: u64,
    lost: u64,
    duplicated: u64,
    dkim_passed: u64,
    dkim_failed: u64,
    dsns: u64,
    accepted_per_second: f64,
    delivered_per_second: f64,
    accept: Summary,
    end_to_end: Summary,
    cpu_us_per_message: Option<u64>,
    syncs_per_message: f64,
    ok: bool,
}

impl Findings {
    fn dkim(&self) -> DkimCounts {
        self.sink.dkim.clone().unwrap_or_default()
    }

    /// Messages with a signature that does not verify, or with none though their sender has a key.
    fn dkim_failed(&self) -> u64 {
        let dkim = self.dkim();
        dkim.messages_failed + dkim.messages_unsigned
    }

    fn cpu_us(&self) -> Option<u64> {
        let cpu = u64::try_from(self.cpu?.as_micros()).ok()?;
        cpu.checked_div(self.messages)
    }

    /// Nothing lost, nothing twice, every signature good.
    pub(super) fn is_good(&self) -> bool {
        let Reconciliation { accepted, lost, duplicated, .. } = self.books;
        accepted > 0 && lost == 0 && duplicated == 0 && self.dkim_failed() == 0 && self.dkim().messages_passed > 0
    }

    /// For `--json`.
    pub(super) fn json(&self) -> impl Serialize + use<> {
        let Reconciliation { accepted, delivered, bounced, queued, lost, duplicated } = self.books;
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        Json {
            messages: self.messages,
            accepted,
            delivered,
            bounced,
            queued,
            lost,
            duplicated,
            dkim_passed: self.dkim().messages_passed,
            dkim_failed: self.dkim_failed(),
            dsns: self.dsns,
            accepted_per_second: self.load.accepted_per_second,
            delivered_per_second: delivered as f64 / seconds,
            accept: self.load.accept,
            end_to_end: self.sink.end_to_end,
            cpu_us_per_message: self.cpu_us(),
            syncs_per_message: self.syncs as f64 / self.messages.max(1) as f64,
            ok: self.is_good(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for part in [
            self.outcomes().to_string(),
            self.leases().to_string(),
            self.receivers().to_string(),
            self.times().to_string(),
        ] {
            let _ = writeln!(out, "{part}");
        }
        out.push_str(&self.figures());
        out.push_str(&self.verdict());
        out
    }

    fn outcomes(&self) -> Table {
        let mut table = Table::new(&[Left("OUTCOME"), Right("RECIPIENTS"), Left("")]);
        let Reconciliation { accepted, delivered, bounced, queued, lost, duplicated } = self.books;
        let reasons: Vec<_> =
            self.ended.reasons.iter().map(|(reason, count)| format!("{reason} {}", units::count(*count))).collect();
        table.row([text("accepted"), figure(accepted), text(format!("in {} messages", units::count(self.messages)))]);
        table.row([text("delivered"), figure(delivered), text("")]);
        table.row([text("bounced"), figure(bounced), text(reasons.join(", "))]);
        table.row([text("still queued"), figure(queued), text("")]);
        table.row([text("lost"), unless_zero(lost, bad), text("")]);
        table.row([text("duplicated"), unless_zero(duplicated, bad), text("")]);
        table
    }

    fn leases(&self) -> Table {
        let mut table = Table::new(&[
            Left("LEASED IP"),
            Right("MESSAGES"),
            Right("RECIPIENTS"),
            Right("CONNECTIONS"),
            Right("4XX"),
            Right("5XX"),
        ]);
        for (address, counts) in &self.sink.sources {
            table.row(std::iter::once(text(address)).chain(cells(counts)));
        }
        table
    }

    fn receivers(&self) -> Table {
        let mut table = Table::new(&[
            Left("RECEIVER"),
            Right("MESSAGES"),
            Right("RECIPIENTS"),
            Right("CONNECTIONS"),
            Right("4XX"),
            Right("5XX"),
            Right("TLS"),
            Left("DOMAINS"),
        ]);
        for (name, domains) in &self.receivers {
            let counts = self.sink.models.get(name).copied().unwrap_or_default();
            let tls = figure(counts.tls12 + counts.tls13);
            table.row(std::iter::once(text(name)).chain(cells(&counts)).chain([tls, text(domains)]));
        }
        table
    }

    fn times(&self) -> Table {
        let mut table =
            Table::new(&[Left("LATENCY"), Right("P50"), Right("P90"), Right("P99"), Right("P99.9"), Right("MAX")]);
        for (name, summary) in
            [("final dot to 250", &self.load.accept), ("submission to delivery", &self.sink.end_to_end)]
        {
            let shown = |us: u64| text(units::duration(Duration::from_micros(us)));
            let Summary { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *summary;
            table.row([text(name), shown(p50_us), shown(p90_us), shown(p99_us), shown(p999_us), shown(max_us)]);
        }
        table
    }

    fn figures(&self) -> String {
        let cpu = self.cpu_us().map_or("unknown".into(), |us| units::duration(Duration::from_micros(us)));
        let dkim = self.dkim();
        format!(
            "{} messages accepted at {}, all settled after {}\n{} of CPU a message in the server, {:.3} syncs a message\n\
             DKIM: {} messages verified, {} failed, {} unsigned; {} DSNs\n\n",
            units::count(self.messages),
            units::rate(self.messages, self.load.elapsed),
            units::duration(self.elapsed),
            cpu,
            self.syncs as f64 / self.messages.max(1) as f64,
            units::count(dkim.messages_passed),
            units::count(dkim.messages_failed),
            units::count(dkim.messages_unsigned),
            units::count(self.dsns),
        )
    }

    fn verdict(&self) -> String {
        let Reconciliation { accepted, lost, duplicated, .. } = self.books;
        if self.is_good() {
            let all = units::count(accepted);
            return format!(
                "{} all {all} accepted recipients are accounted for, none twice, every signature verified\n",
                paint(GOOD, "OK")
            );
        }
        format!(
            "{} {} recipients lost, {} duplicated, {} messages with a bad or missing signature\n",
            paint(BAD, "FAILED"),
            units::count(lost),
            units::count(duplicated),
            units::count(self.dkim_failed())
        )
    }
}

fn cells(counts: &Counts) -> [comfy_table::Cell; 5] {
    [
        good(units::count(counts.messages)),
        figure(counts.recipients),
        figure(counts.connections),
        figure(counts.refused_4xx),
        figure(counts.refused_5xx),
    ]
}

/// What can be tried on a server that stays.
pub(super) fn next_commands(socket: &std::path::Path, listener: std::net::SocketAddr) -> String {
    let socket = socket.display();
    format!(
        "{}\n  export MAILRAIL_SOCKET={socket}\n  mailrail status --watch 2\n  mailrail queue\n  mailrail export\n  \
         mailrail load --target {listener} --messages 1000 --domain amber.test\n  \
         curl --unix-socket {socket} http://localhost/metrics\n\nCtrl-C ends it.\n",
        paint(HEAD, "The server stays. Try, in another terminal:")
    )
}
