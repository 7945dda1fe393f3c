//! What torture has to say at its end: tables for people, one object for machines, a verdict.

use super::{
    books::Balance,
    gauge::{Course, Unit},
    operator,
    plan::Warming,
    waits::{self, Cause},
};
use crate::ui::{
    table::{Left, Right, Table, bad, figure, good, text, unless_zero},
    units,
};
use mailrail_bench::latency::Summary;
use serde::Serialize;
use std::fmt::Write;

/// One object on standard output.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) kills: u32,
    pub(super) seed: u64,
    pub(super) rate: u32,
    #[serde(flatten)]
    pub(super) balance: Balance,
    /// What waits when patience ends, by cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) waits: Vec<Cause>,
    /// Recipients behind whose final dot the connection was lost: promised to nobody.
    pub(super) in_doubt: u64,
    pub(super) warming: Vec<Warming>,
    /// What the operator changed meanwhile.
    pub(super) orders: operator::Findings,
    /// Messages whose signature does not verify, or that have none.
    pub(super) dkim_failed: u64,
    /// Final dot to 250.
    pub(super) accept: Summary,
    /// Looks at the process in a long run.
    pub(super) samples: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) courses: Vec<Course>,
    pub(super) seconds: f64,
    pub(super) cut_short: bool,
    /// Why it has failed; empty if it has not.
    pub(super) wrong: Vec<String>,
    pub(super) ok: bool,
}

impl Findings {
    /// With its verdict.
    pub(super) fn judged(mut self) -> Self {
        let mut wrong = self.balance.wrong();
        if self.cut_short {
            wrong.push("it was cut short".into());
        }
        if self.balance.queued > 0 {
            wrong.push(format!("{} still queued when patience ended", self.balance.queued));
        }
        if self.dkim_failed > 0 {
            wrong.push(format!("{} messages with a bad or missing signature", self.dkim_failed));
        }
        let exceeds = self.warming.iter().filter(|warming| warming.exceeds());
        wrong.extend(exceeds.map(|w| format!("{} has named {} recipients on a day of {}", w.address, w.named, w.cap)));
        let orders = &self.orders;
        for (n, what) in [
            (orders.forgotten, "changes that were answered and forgotten"),
            (orders.unfinished, "orders that were never carried out"),
        ] {
            if n > 0 {
                wrong.push(format!("{n} {what}"));
            }
        }
        if orders.changes() == 0 {
            wrong.push("no change of the operator was answered, which proves nothing of them".into());
        }
        let rising = self.courses.iter().filter(|course| !course.flat);
        wrong.extend(rising.map(|course| format!("{} has grown", course.name)));
        (self.ok, self.wrong) = (wrong.is_empty(), wrong);
        self
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let (kills, seconds, seed) = (self.kills, self.seconds, self.seed);
        let mut out = format!("{kills} kills in {seconds:.0} s at {} messages/s, seed {seed}\n\n", self.rate);
        let waits = (!self.waits.is_empty()).then(|| waits::table(&self.waits, units::now_ms()));
        for table in [Some(self.outcomes()), waits, Some(self.plans()), Some(self.changes()), self.gauges()]
            .into_iter()
            .flatten()
        {
            let _ = writeln!(out, "{table}\n");
        }
        self.balance.examples.iter().for_each(|example| out += &format!("{example}\n"));
        out
    }

    fn outcomes(&self) -> Table {
        let mut table = Table::new(&[Left("RECIPIENTS THAT GOT A 250"), Right(""), Left("")]);
        let b = &self.balance;
        let per_kill = b.copies_of_kills as f64 / f64::from(self.kills.max(1));
        let kills = format!("{per_kill:.1} a kill, the oldest {} ms before it", b.oldest_doubt_ms);
        let plain = [
            ("all", b.accepted, ""),
            ("delivered", b.delivered, ""),
            ("bounced, DSN arrived", b.bounced - b.without_dsn, ""),
            ("suppressed after a bounce", b.suppressed, ""),
            ("cancelled by an order", b.cancelled, ""),
            ("still queued", b.queued, ""),
            ("copies of attempts in doubt", b.copies_in_doubt, "receivers that hang up after the dot"),
            ("copies of kills", b.copies_of_kills, &kills),
            ("ended by an order while in doubt", b.ended_in_doubt, "a receiver has it, and nobody knew"),
        ];
        plain.into_iter().for_each(|(name, n, more)| table.row([text(name), figure(n), text(more)]));
        for (name, n) in [
            ("lost", b.lost),
            ("bounced without DSN", b.without_dsn),
            ("copies that nothing explains", b.unexplained),
            ("delivered again after a durable outcome", b.delivered_twice),
            ("without Send event", b.without_send),
            ("receivers and events disagree", b.disagree),
            ("both delivered and bounced", b.contradict),
            ("signatures bad or missing (messages)", self.dkim_failed),
        ] {
            table.row([text(name), unless_zero(n, bad), text("")]);
        }
        table.row([text("in doubt for the client, no 250 came"), figure(self.in_doubt), text("not among these")]);
        table
    }

    fn plans(&self) -> Table {
        let mut table = Table::new(&[Left("WARMS UP"), Right("RECIPIENTS NAMED"), Right("PLAN OF THE DAY")]);
        for warming in &self.warming {
            let named = units::count(warming.named);
            let named = if warming.exceeds() { bad(named) } else { good(named) };
            table.row([text(warming.address), named, figure(warming.cap)]);
        }
        table
    }

    fn changes(&self) -> Table {
        let mut table = Table::new(&[Left("CHANGES BY THE OPERATOR"), Right("ANSWERED")]);
        self.orders.answered.iter().for_each(|(kind, n)| table.row([text(kind), figure(*n)]));
        table.row([text("refused with a reason"), figure(self.orders.refused)]);
        table.row([text("no answer: killed"), figure(self.orders.unanswered)]);
        table.row([text("answered and forgotten"), unless_zero(self.orders.forgotten, bad)]);
        table.row([text("orders never carried out"), unless_zero(self.orders.unfinished, bad)]);
        table
    }

    fn gauges(&self) -> Option<Table> {
        if self.courses.is_empty() {
            return None;
        }
        let mut table = Table::new(&[
            Left("OVER THE RUN"),
            Right("2ND QUARTER"),
            Right("LAST QUARTER"),
            Right("MOST"),
            Right("ALLOWED"),
            Left(""),
        ]);
        for course in &self.courses {
            let shown = |n| if course.unit == Unit::Bytes { units::bytes(n) } else { units::count(n) };
            let verdict = if course.flat { good("flat") } else { bad("grows") };
            let figures = [course.second_quarter, course.last_quarter, course.max, course.allowed];
            table.row(std::iter::once(text(course.name)).chain(figures.map(|n| text(shown(n)))).chain([verdict]));
        }
        Some(table)
    }
}
