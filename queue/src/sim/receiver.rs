//! What a receiver does with the mail of a leased IP: takes so much as it trusts the IP, puts off what is more, and blocks it
//! when it does not listen. Pure: a model, and how an IP stands with it.
//!
//! Trust is a number from 0 to 100. It rises by a step on each day on which mail came and nothing was wrong with it, and falls
//! by what was too much, by addresses that do not exist, and by silence. Of a crowd the expected share bounces or is put off,
//! and the odd recipient by chance: of single messages that is a chance each.

use crate::time::Wall;
use std::{sync::Arc, time::Duration};

/// Days that make up what is usual of an IP.
const WEEK: usize = 7;
/// A share of refused mail above which a day was too much.
const TOO_MUCH: f64 = 0.01;
/// Fewer bounces of a day than these say nothing of a list.
const FEW: f64 = 5.0;
/// A share of refused mail that costs as much trust as a day can.
const WORST: f64 = 0.2;

/// A reply of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Basic code.
    pub code: u16,
    /// Enhanced code, if it has one.
    pub enhanced: Option<(u8, u16, u16)>,
    /// What follows.
    pub text: Arc<str>,
}

impl Reply {
    /// `421 4.7.28 words`.
    ///
    /// # Errors
    /// What it has to be.
    pub fn parse(line: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{line}\" is no refusal: write it as \"421 4.7.0 words\", a code from 400 to 599 first");
        let (code, rest) = line.split_once(' ').ok_or_else(wrong)?;
        let code = code.parse().ok().filter(|code| (400..600).contains(code)).ok_or_else(wrong)?;
        let numbers = |word: &str| {
            let mut parts = word.split('.');
            let enhanced = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts.next().is_none().then_some(enhanced)
        };
        let enhanced = rest.split(' ').next().and_then(numbers);
        let text = if enhanced.is_some() { rest.split_once(' ').map_or("", |(_, text)| text) } else { rest };
        Ok(Self { code, enhanced, text: text.into() })
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.enhanced {
            Some((class, subject, detail)) => write!(f, "{} {class}.{subject}.{detail} {}", self.code, self.text),
            None => write!(f, "{} {}", self.code, self.text),
        }
    }
}

/// How a receiver behaves; shares are 0 to 1, trust is 0 to 100.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Unique.
    pub name: Arc<str>,
    /// The provider that it is to the queue: its limits, its reading of replies, its ladders.
    pub provider: Option<Arc<str>>,
    /// Recipients a day of one IP by trust, from the least trust; between two points in proportion.
    pub volume: Vec<(f64, f64)>,
    /// What it takes of an IP that it has not seen, whatever its usual day.
    pub first_day: f64,
    /// Most times its usual day (the best of a week) that an IP may send.
    pub growth: f64,
    /// Trust in an IP that it does not know; in one that has sent for long.
    pub start: f64,
    /// See `start`.
    pub known: f64,
    /// Trust won by a good day.
    pub rise: f64,
    /// Trust lost by a day on which a fifth or more was too much; a smaller part costs less. A block costs as much again.
    pub ramp: f64,
    /// Trust lost by a day with too many addresses that do not exist.
    pub bounces: f64,
    /// And how many these are.
    pub bounces_over: f64,
    /// Trust lost by a day without mail.
    pub idle: f64,
    /// Of what is too much, this share is taken nevertheless.
    pub lenient: f64,
    /// Once so many times what it takes has been tried, it may block.
    pub block_at: f64,
    /// The chance of that at each refusal.
    pub block: f64,
    /// How long a block lasts.
    pub block_for: Duration,
    /// Of all mail, this share is put off for reasons of the mailbox.
    pub defers: f64,
    /// What it says of too much.
    pub slow: Vec<Reply>,
    /// What it says to an IP that it blocks.
    pub blocked: Vec<Reply>,
    /// What it says of mail that it puts off.
    pub busy: Reply,
}

impl Model {
    /// Recipients of a day at this trust.
    #[must_use]
    pub fn takes(&self, trust: f64) -> f64 {
        let Some(first) = self.volume.first() else { return f64::MAX };
        let mut before = *first;
        for point in &self.volume {
            if trust <= point.0 {
                let width = point.0 - before.0;
                let part = if width > 0.0 { (trust - before.0) / width } else { 1.0 };
                return before.1 + (point.1 - before.1) * part.clamp(0.0, 1.0);
            }
            before = *point;
        }
        before.1
    }

    /// Most recipients of a day of an IP in which it has this trust, and whose best day of the last week this was.
    #[must_use]
    pub fn limit(&self, trust: f64, usual: f64) -> f64 {
        self.takes(trust).min((usual * self.growth).max(self.first_day)).max(1.0)
    }
}

/// What became of a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Taken.
    pub taken: u32,
    /// Of no such address.
    pub bounced: u32,
    /// Put off for reasons of the mailbox.
    pub busy: u32,
    /// Refused for the IP's sake.
    pub refused: u32,
    /// Not tried after that.
    pub untried: u32,
    /// The refusal, by its number among those of the model; true: that of a block.
    pub reply: (usize, bool),
}

/// How one IP stands with one receiver.
#[derive(Clone, Debug)]
pub struct Standing {
    /// 0 to 100.
    pub trust: f64,
    week: [f64; WEEK],
    /// Most recipients of this day.
    limit: f64,
    /// Of this day.
    taken: f64,
    bounced: f64,
    refused: f64,
    blocked_until: Wall,
    /// Blocks of this day, and one that nobody has asked about.
    blocks: u32,
    fresh: bool,
    /// It has had mail of this IP.
    pub met: bool,
}

impl Standing {
    /// Of an IP that it knows from long ago, or not at all.
    #[must_use]
    pub fn new(model: &Model, known: bool, chance: u64) -> Self {
        let trust = if known { model.known } else { model.start };
        let usual = if known { model.takes(trust).min(1e9) } else { 0.0 };
        let (taken, bounced, refused) = (0.0, 0.0, 0.0);
        let mut new = Self {
            trust,
            week: [usual; WEEK],
            limit: 0.0,
            taken,
            bounced,
            refused,
            blocked_until: Wall(0),
            blocks: 0,
            fresh: false,
            met: false,
        };
        new.limit = new.next_limit(model, chance);
        new
    }

    /// The best day of the last week.
    #[must_use]
    pub fn usual(&self) -> f64 {
        self.week.iter().copied().fold(0.0, f64::max)
    }

    /// Most recipients of this day.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Has it been blocked since this was last asked?
    pub fn newly_blocked(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// No two days are the same: a twentieth more or less.
    fn next_limit(&self, model: &Model, chance: u64) -> f64 {
        model.limit(self.trust, self.usual()) * (0.95 + 0.1 * part(chance))
    }

    /// `count` recipients are tried, `probe` of them before a refusal is heard. `unknown`: the share of addresses that do not
    /// exist.
    pub fn answer(
        &mut self,
        model: &Model,
        wall: Wall,
        (count, probe): (u32, u32),
        unknown: f64,
        chance: &mut impl FnMut() -> u64,
    ) -> Answer {
        self.met = true;
        let mut answer = Answer::default();
        let blocked = self.blocked_until > wall;
        let room = if blocked { 0.0 } else { (self.limit - self.taken).max(0.0) };
        let inside = count.min(room.min(f64::from(u32::MAX)) as u32);
        let over = count - inside;
        let anyway = if blocked || over == 0 { 0 } else { share(over, model.lenient, chance()) };
        let refused = over - anyway;
        answer.refused = refused.min(probe.max(1));
        answer.untried = refused - answer.refused;
        let looked_at = inside + anyway;
        if looked_at > 0 {
            answer.bounced = share(looked_at, unknown, chance());
            answer.busy = share(looked_at - answer.bounced, model.defers, chance());
            answer.taken = looked_at - answer.bounced - answer.busy;
        }
        self.taken += f64::from(answer.taken);
        self.bounced += f64::from(answer.bounced);
        self.refused += f64::from(answer.refused);
        if answer.refused > 0 {
            let insisted = self.taken + self.refused > self.limit * model.block_at;
            let blocks = !blocked && insisted && part(chance()) < model.block;
            if blocks {
                (self.blocks, self.fresh) = (self.blocks + 1, true);
                self.blocked_until = wall.plus(model.block_for);
            }
            let by_block = blocked || blocks;
            let replies = if by_block { &model.blocked } else { &model.slow };
            answer.reply = ((chance() % replies.len().max(1) as u64) as usize, by_block);
        }
        answer
    }

    /// The day is over. Returns how often it was blocked.
    pub fn end_day(&mut self, model: &Model, chance: u64) -> u32 {
        let tried = self.taken + self.bounced + self.refused;
        let usual = self.usual();
        let too_much = if tried > 0.0 { self.refused / tried } else { 0.0 };
        let unknown = self.bounced / (self.taken + self.bounced).max(1.0);
        let mut change = 0.0;
        if tried == 0.0 {
            // Silence makes nobody less than a stranger.
            change = if self.trust > model.start { -model.idle.min(self.trust - model.start) } else { 0.0 };
        } else if too_much > TOO_MUCH {
            change = -model.ramp * (too_much / WORST).min(1.0);
        } else if unknown > model.bounces_over && self.bounced >= FEW {
            change = -model.bounces;
        } else if self.taken * 4.0 >= usual.min(self.limit) {
            change = model.rise;
        }
        if self.blocks > 0 {
            change -= model.ramp;
        }
        self.trust = (self.trust + change).clamp(0.0, 100.0);
        self.week.rotate_left(1);
        self.week[WEEK - 1] = self.taken;
        (self.taken, self.bounced, self.refused) = (0.0, 0.0, 0.0);
        self.limit = self.next_limit(model, chance);
        std::mem::take(&mut self.blocks)
    }
}

/// 0 to 1.
fn part(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

/// The expected share of `count`; whether a broken one counts as whole is a matter of chance.
fn share(count: u32, of: f64, chance: u64) -> u32 {
    let exact = f64::from(count) * of.clamp(0.0, 1.0);
    let whole = exact.floor();
    let more = u32::from(part(chance) < exact - whole);
    (whole as u32 + more).min(count)
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
