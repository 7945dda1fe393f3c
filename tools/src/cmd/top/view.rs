//! What is on the screen: the last samples, and what the keys have chosen. Draws nothing.

use crate::{cmd::provider::Trouble, ui::units};
use mailrail_engine::{
    control::api::types::{
        QueueReport, StatusReport,
        provider::{ProviderRow, Providers},
    },
    link::{IpStatus, ProviderIp, WarmupStanding},
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

/// Samples of the throughput that are kept: more than the widest screen shows.
const KEPT: usize = 512;

/// One answer of the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) status: StatusReport,
    pub(super) queue: QueueReport,
    pub(super) providers: Providers,
}

/// A table of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Ips,
    Providers,
    Sites,
    Shards,
}

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Ips, Self::Providers, Self::Sites, Self::Shards];

    /// Columns by which it can be sorted, as the headings name them.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Ips => &["IP", "POOL", "WARM-UP", "SENT/CAP", "QUEUED", "CONNS", "OUT/S", "DEFER", "BOUNCE"],
            Self::Providers => &["PROVIDER", "STATE", "RATE", "QUEUED", "CONNS", "OUT/S", "NEXT", "LAST COMPLAINT"],
            Self::Sites => &["SITE", "PROVIDER", "QUEUED", "DEFER", "CONNS", "NEXT TRY", "REASON"],
            Self::Shards => &["SHARD", "QUEUED", "IN/S", "OUT/S", "CLIENTS", "CONNS", "SPOOL"],
        }
    }
}

/// A line of a table: its cells as text, and what each is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    keys: Vec<Key>,
    /// Something is not as it should be.
    pub(super) troubled: bool,
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    Text(String),
    Number(f64),
    Ip(IpAddr),
}

impl Key {
    /// Names rise; figures fall, as the largest is what is looked for.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Ip(a), Self::Ip(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => b.total_cmp(a),
            _ => Ordering::Equal,
        }
    }
}

/// How a table is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) sort: usize,
    pub(super) reverse: bool,
    pub(super) scroll: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    pub(super) now: Sample,
    before: Option<Sample>,
    /// Recipients delivered a second, the newest last.
    pub(super) rates: VecDeque<u64>,
    pub(super) focus: Panel,
    looks: [Look; Panel::ALL.len()],
    pub(super) filter: String,
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Why there is nothing new.
    pub(super) error: Option<String>,
    quits: bool,
}

impl View {
    pub(super) fn new(now: Sample) -> Self {
        Self {
            now,
            before: None,
            rates: VecDeque::new(),
            focus: Panel::Ips,
            looks: [Look::default(); Panel::ALL.len()],
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            error: None,
            quits: false,
        }
    }

    pub(super) fn quits(&self) -> bool {
        self.quits
    }

    pub(super) fn look(&self, panel: Panel) -> Look {
        self.looks[panel as usize]
    }

    /// Takes an answer, or why there is none. While it is paused, what is on the screen stays.
    pub(super) fn take(&mut self, answer: Result<Sample, String>) {
        match answer {
            Err(error) => self.error = Some(error),
            Ok(_) if self.paused => {}
            Ok(sample) => {
                self.error = None;
                let before = std::mem::replace(&mut self.now, sample);
                self.before = Some(before);
                let rate = self.rate(|status| status.totals.delivered);
                self.rates.push_back(rate.round() as u64);
                if self.rates.len() > KEPT {
                    self.rates.pop_front();
                }
            }
        }
    }

    /// What a figure grew by, a second, between the last two answers. A server that was restarted counts from zero again.
    pub(super) fn rate(&self, of: impl Fn(&StatusReport) -> u64) -> f64 {
        self.growth(|sample| of(&sample.status))
    }

    fn growth(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        let Some(before) = &self.before else { return 0.0 };
        let span = self.now.status.time.saturating_sub(before.status.time).max(1) as f64 / 1000.0;
        of(&self.now).saturating_sub(of(before)) as f64 / span
    }

    pub(super) fn key(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            self.quits = true;
        } else if self.typing {
            self.type_key(key.code);
        } else if self.help {
            self.help = false;
        } else {
            self.command(key.code);
        }
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode) {
        let columns = self.focus.columns().len();
        let look = &mut self.looks[self.focus as usize];
        match code {
            KeyCode::Char('q') | KeyCode::Esc => self.quits = true,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => look.sort = (look.sort + 1) % columns,
            KeyCode::Char('S') => look.sort = (look.sort + columns - 1) % columns,
            KeyCode::Char('r') => look.reverse = !look.reverse,
            KeyCode::Up => look.scroll = look.scroll.saturating_sub(1),
            KeyCode::Down => look.scroll += 1,
            KeyCode::PageUp => look.scroll = look.scroll.saturating_sub(10),
            KeyCode::PageDown => look.scroll += 10,
            KeyCode::Home => look.scroll = 0,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Panel::ALL.len() - 1),
            _ => {}
        }
    }

    fn turn(&mut self, by: usize) {
        self.focus = Panel::ALL[(self.focus as usize + by) % Panel::ALL.len()];
    }

    /// The lines of a table: filtered, sorted, from where it is scrolled to; and how many there are in all.
    pub(super) fn lines(&self, panel: Panel) -> (Vec<Line>, usize) {
        let mut lines = match panel {
            Panel::Ips => self.ips(),
            Panel::Providers => self.providers(),
            Panel::Sites => self.sites(),
            Panel::Shards => self.shards(),
        };
        let wanted = self.filter.to_lowercase();
        lines.retain(|line| {
            // Shards have no names to look for.
            panel == Panel::Shards || wanted.is_empty() || line.cells.iter().any(|c| c.to_lowercase().contains(&wanted))
        });
        let look = self.look(panel);
        lines.sort_by(|a, b| {
            let order = a.keys[look.sort].order(&b.keys[look.sort]);
            let order = if look.reverse { order.reverse() } else { order };
            order.then_with(|| a.keys[0].order(&b.keys[0]))
        });
        let all = lines.len();
        let scroll = look.scroll.min(all.saturating_sub(1));
        (lines.split_off(scroll.min(all)), all)
    }

    fn ips(&self) -> Vec<Line> {
        let of = |status: &StatusReport, ip: IpAddr| {
            status
                .shards
                .iter()
                .flat_map(|shard| &shard.ips)
                .find(|known| known.address == ip)
                .map_or(0, |ip| ip.delivered)
        };
        let ips = self.now.status.shards.iter().flat_map(|shard| &shard.ips);
        ips.map(|ip| self.ip(ip, self.rate(|status| of(status, ip.address)))).collect()
    }

    fn ip(&self, ip: &IpStatus, rate: f64) -> Line {
        let warmup = ip.warmup.as_ref();
        let percentage = warmup.map_or(-1.0, |warmup| f64::from(warmup.percentage));
        let ladders = self.ladders(ip.address);
        let sent = warmup.map_or_else(|| if ladders.0 > 0 { units::count(ladders.1) } else { "-".into() }, sent_of_cap);
        Line {
            cells: vec![
                ip.address.to_string(),
                ip.pool.clone(),
                match (warmup, ladders.0) {
                    (Some(warmup), _) => bar(warmup),
                    (None, 0) => "shared".into(),
                    (None, 1) => "1 ladder".into(),
                    (None, many) => format!("{many} ladders"),
                },
                sent,
                units::count(ip.queued),
                ip.connections.to_string(),
                per_second(rate),
                units::count(ip.deferred),
                units::count(ip.bounced),
            ],
            keys: vec![
                Key::Ip(ip.address),
                Key::Text(ip.pool.clone()),
                Key::Number(percentage),
                Key::Number(warmup.map_or(ladders.1 as f64, |warmup| f64::from(warmup.sent))),
                Key::Number(ip.queued as f64),
                Key::Number(ip.connections.into()),
                Key::Number(rate),
                Key::Number(ip.deferred as f64),
                Key::Number(ip.bounced as f64),
            ],
            troubled: warmup.is_some_and(|warmup| warmup.waiting > 0),
        }
    }

    /// Ladders of a leased IP of a managed pool, and the recipients that they were charged today.
    fn ladders(&self, ip: IpAddr) -> (usize, u64) {
        let of_ip = self.now.providers.providers.iter().flat_map(|row| &row.ips).filter(|known| known.ip == ip);
        of_ip.filter_map(|known| known.ladder.as_ref()).fold((0, 0), |(n, sent), l| (n + 1, sent + u64::from(l.sent)))
    }

    /// Those that some leased IP has met.
    fn providers(&self) -> Vec<Line> {
        let met = self.now.providers.providers.iter().filter(|row| !row.ips.is_empty());
        met.map(|row| self.provider(row)).collect()
    }

    fn provider(&self, row: &ProviderRow) -> Line {
        let delivered = |sample: &Sample| {
            let same = sample.providers.providers.iter().find(|other| other.name == row.name);
            same.map_or(0, |row| row.ips.iter().map(|ip| ip.delivered).sum())
        };
        let trouble = Trouble::of(&row.ips);
        let next = |ip: &ProviderIp| ip.suspended_until.or(ip.recovers_at);
        let next = row.ips.iter().filter_map(next).min();
        let now = self.now.status.time;
        let last = row.ips.iter().filter_map(|ip| Some((ip.reason_at?, ip.reason.as_deref()?))).max();
        // Of one leased IP, the one that is let do least.
        let slowest = row.ips.iter().max_by_key(|ip| ip.slower).and_then(|ip| ip.rate.clone());
        let rate = self.growth(delivered);
        Line {
            cells: vec![
                row.name.clone(),
                trouble.to_string(),
                slowest.clone().unwrap_or_else(|| "-".into()),
                units::count(row.queued),
                row.open.to_string(),
                per_second(rate),
                next.map_or_else(|| "-".into(), |at| units::relative(at, now)),
                last.map_or_else(|| "-".into(), |(_, why)| why.to_owned()),
            ],
            keys: vec![
                Key::Text(row.name.clone()),
                Key::Number((trouble.suspended * row.ips.len() + trouble.slowed) as f64),
                Key::Text(slowest.unwrap_or_default()),
                Key::Number(row.queued as f64),
                Key::Number(row.open.into()),
                Key::Number(rate),
                Key::Number(next.unwrap_or(0) as f64),
                Key::Number(last.map_or(0, |(at, _)| at) as f64),
            ],
            troubled: trouble.suspended + trouble.slowed > 0,
        }
    }

    fn sites(&self) -> Vec<Line> {
        #[derive(Default)]
        struct Sum {
            provider: String,
            queued: u64,
            deferred: u64,
            connections: u32,
            next_try: Option<u64>,
            reason: String,
        }
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for row in &self.now.queue.rows {
            let sum = sums.entry(&row.site).or_default();
            sum.provider = row.provider.clone().unwrap_or_default();
            sum.queued += row.queued;
            sum.deferred += row.deferred;
            sum.connections += row.connections;
            sum.next_try = sum.next_try.into_iter().chain(row.next_try).min();
            if sum.reason.is_empty() {
                sum.reason.clone_from(&row.reason);
            }
        }
        let now = self.now.status.time;
        let line = |(site, sum): (&str, Sum)| {
            let next = sum.next_try.filter(|at| *at > now && *at < u64::MAX);
            let cells = vec![
                site.to_owned(),
                if sum.provider.is_empty() { "-".into() } else { sum.provider.clone() },
                units::count(sum.queued),
                units::count(sum.deferred),
                sum.connections.to_string(),
                next.map_or_else(|| "now".into(), |at| units::relative(at, now)),
                sum.reason.clone(),
            ];
            let keys = vec![
                Key::Text(site.to_owned()),
                Key::Text(sum.provider),
                Key::Number(sum.queued as f64),
                Key::Number(sum.deferred as f64),
                Key::Number(sum.connections.into()),
                Key::Number(next.unwrap_or(0) as f64),
                Key::Text(sum.reason.clone()),
            ];
            Line { cells, keys, troubled: !sum.reason.is_empty() }
        };
        sums.into_iter().map(line).collect()
    }

    fn shards(&self) -> Vec<Line> {
        let shards = self.now.status.shards.iter();
        shards
            .map(|shard| {
                let of = |status: &StatusReport, accepted: bool| {
                    let same = status.shards.iter().find(|other| other.shard == shard.shard);
                    same.map_or(0, |same| if accepted { same.accepted } else { same.delivered })
                };
                let (taken, sent) = (self.rate(|status| of(status, true)), self.rate(|status| of(status, false)));
                Line {
                    cells: vec![
                        shard.shard.to_string(),
                        units::count(shard.queued),
                        per_second(taken),
                        per_second(sent),
                        shard.sessions.to_string(),
                        shard.deliveries.to_string(),
                        shard.spool_full.clone().unwrap_or_else(|| units::bytes(shard.spool_bytes)),
                    ],
                    keys: vec![
                        // The first shard first.
                        Key::Number(-f64::from(shard.shard)),
                        Key::Number(shard.queued as f64),
                        Key::Number(taken),
                        Key::Number(sent),
                        Key::Number(shard.sessions.into()),
                        Key::Number(shard.deliveries.into()),
                        Key::Number(shard.spool_bytes as f64),
                    ],
                    troubled: shard.spool_full.is_some(),
                }
            })
            .collect()
    }

    /// The last errors of all shards, the newest first: time and text.
    pub(super) fn errors(&self) -> Vec<(u64, &str)> {
        let shards = &self.now.status.shards;
        let mut errors: Vec<_> =
            shards.iter().flat_map(|shard| &shard.last_errors).map(|(at, text)| (*at, text.as_str())).collect();
        errors.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        errors
    }
}

/// A rate in few letters.
pub(super) fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { units::count(rate.round() as u64) }
}

/// How far a warm-up is.
fn bar(warmup: &WarmupStanding) -> String {
    if warmup.done {
        return "warm".into();
    }
    const WIDTH: usize = 8;
    let full = (usize::from(warmup.percentage.min(100)) * WIDTH).div_ceil(100);
    let held = if warmup.held { " held" } else { "" };
    format!("{}{} {}%{held}", "█".repeat(full), "░".repeat(WIDTH - full), warmup.percentage)
}

fn sent_of_cap(warmup: &WarmupStanding) -> String {
    let cap = warmup.cap.map_or_else(|| "-".into(), |cap| units::count(cap.into()));
    format!("{}/{cap}", units::count(warmup.sent.into()))
}
