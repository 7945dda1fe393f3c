//! A `[[provider]]` as a TOML file or the store has it: words, and nothing checked. [`Entry::apply`] checks.

use super::{
    reply::{Answer, Pattern, Then},
    table::Provider,
};
use crate::{bucket::Rate, policy::TlsMode, retry::RetrySchedule, warmup::ladder::Rules};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Longest time that any setting here may name.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// One provider; what is left out stays as it was, or is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// Unique; that of a provider that exists changes it.
    pub name: String,
    /// Suffixes of its mail hosts, by whole labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mx: Vec<String>,
    /// Connections of one leased IP to all of its sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Messages on one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u32>,
    /// Recipients in one transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_per_message: Option<u32>,
    /// Messages in a time, by one leased IP: `"10/s"`, `"600/min"`, `"5000/h"`, `"40000/d"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Messages that may go at once after a pause; without it five seconds' worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// TLS of its sites, unless a `[[domain]]` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Waits between tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// A step of recovery after each such time without a further complaint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<String>,
    /// What replies ask for; these are asked before those that were there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reply: Vec<Reply>,
    /// Ladder of managed pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Climb>,
}

/// See [`RetrySchedule`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// First wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Each further wait is so many times the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// Longest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// See [`Answer`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// Basic codes, `x` for any digit; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<String>,
    /// Enhanced codes, `x` for any number; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enhanced: Vec<String>,
    /// One of these is in the text, in whatever case; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
    /// What to do: `slower`, `fewer`, `suspend` or `nothing`.
    pub then: Then,
    /// How long a first suspension lasts.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// See [`Rules`]; ratios in per cent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Climb {
    /// Recipients a day on the lowest step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// From step to step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    /// Recipients a day at which there is no limit any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<u32>,
    /// Share of the step that must be used to rise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
    /// Deferrals must stay under this to rise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferred: Option<u32>,
    /// Hard bounces must stay under this to rise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounced: Option<u32>,
    /// Deferrals over this make it fall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// Idle days after which it decays by a step; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<u32>,
}

/// A factor of two digits, in hundredths; written as `1.4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(pub u64);

impl Serialize for Factor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0 as f64 / 100.0)
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // What is no factor becomes 0, or too much: both are refused.
        f64::deserialize(from).map(|factor| Self((factor * 100.0).round() as u64))
    }
}

impl Entry {
    /// The provider that comes of `base` when this is said of it.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn apply(&self, base: Option<&Provider>) -> Result<Provider, String> {
        let mut to = match base {
            Some(base) => base.clone(),
            None => Provider::named(&check_name(&self.name)?),
        };
        if !self.mx.is_empty() {
            to.mx = self.mx.iter().map(|suffix| check_suffix(suffix)).collect::<Result<_, _>>()?;
        }
        if to.mx.is_empty() {
            return Err(
                "names no mail hosts: write mx = [\"example.com\"], suffixes of the names of its MX hosts".into()
            );
        }
        let least = |key: &str, value: Option<u32>| match value {
            Some(0) => Err(format!("{key} = 0: nothing could be sent; the least is 1")),
            value => Ok(value),
        };
        to.connections = least("connections", self.connections)?.or(to.connections);
        to.messages = least("messages_per_connection", self.messages_per_connection)?.or(to.messages);
        to.recipients = least("recipients_per_message", self.recipients_per_message)?.or(to.recipients);
        if let Some(rate) = &self.rate {
            to.rate = Some(parse_rate(rate)?);
        }
        to.burst = least("burst", self.burst)?.or(to.burst);
        to.tls = self.tls.or(to.tls);
        if let Some(retry) = &self.retry {
            to.retry = Some(retry.schedule(to.retry.as_ref())?);
        }
        if let Some(recover) = &self.recover {
            to.recover = duration("recover", recover, 1)?;
        }
        let mut answers = self.reply.iter().map(Reply::answer).collect::<Result<Vec<_>, _>>()?;
        answers.extend(to.answers.iter().cloned());
        to.answers = answers.into();
        if let Some(climb) = &self.ladder {
            to.ladder = climb.rules(to.ladder)?;
        }
        Ok(to)
    }
}

impl Retry {
    fn schedule(&self, base: Option<&RetrySchedule>) -> Result<RetrySchedule, String> {
        let base = base.cloned().unwrap_or_default();
        let or = |key, text: &Option<String>, before| match text {
            Some(text) => duration(key, text, 1),
            None => Ok(before),
        };
        let first = or("retry.first", &self.first, base.first)?;
        let max = or("retry.max", &self.max, base.max.max(first))?;
        if max < first {
            return Err("retry.max is shorter than retry.first: the waits only grow".into());
        }
        let factor = self.factor.unwrap_or(base.factor);
        if !(1..=10).contains(&factor) {
            return Err(format!("retry.factor = {factor}: 1 to 10"));
        }
        Ok(RetrySchedule { first, factor, max, ..base })
    }
}

impl Reply {
    /// # Errors
    /// What is wrong.
    pub(super) fn answer(&self) -> Result<Answer, String> {
        let pattern = Pattern::new(&self.code, &self.enhanced, &self.text)?;
        if self.time.is_some() && self.then != Then::Suspend {
            return Err("reply: for = \"...\" is for then = \"suspend\" only".into());
        }
        let time = self.time.as_ref().map(|text| duration("reply: for", text, 1)).transpose()?;
        Ok(Answer { pattern, then: self.then, time: time.unwrap_or(Answer::SUSPENSION) })
    }
}

impl Climb {
    fn rules(&self, base: Rules) -> Result<Rules, String> {
        let or = |value: Option<u32>, before: u64| value.map_or(before, u64::from);
        let factor = self.factor.map_or(base.factor, |factor| factor.0);
        if !(101..=1000).contains(&factor) {
            return Err("ladder.factor: 1.01 to 10, as 1.4".into());
        }
        let rules = Rules {
            start: or(self.start, base.start),
            factor,
            warm: or(self.warm, base.warm),
            used: or(self.used, base.used),
            deferred: or(self.deferred, base.deferred),
            bounced: or(self.bounced, base.bounced),
            fall: or(self.fall, base.fall),
            idle: self.idle.unwrap_or(base.idle),
        };
        rules.check().map(|()| rules)
    }
}

fn check_name(name: &str) -> Result<Arc<str>, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name == crate::queue::OTHER {
        return Err(format!("name \"{name}\" is that of all sites which are of no provider"));
    }
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(format!("name \"{name}\": 1 to 64 of lower-case letters, digits, - _ and ."));
    }
    Ok(name.into())
}

fn check_suffix(suffix: &str) -> Result<Arc<str>, String> {
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(good)
    };
    let name = suffix.strip_prefix("*.").unwrap_or(suffix).trim_end_matches('.');
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!("mx \"{suffix}\" is no suffix of a host name, as \"google.com\""));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// `"10/s"`.
fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong =
        || format!("rate = \"{text}\": write messages in a time, as \"10/s\", \"600/min\", \"5000/h\", \"40000/d\"");
    let (tokens, per) = text.split_once('/').ok_or_else(wrong)?;
    let tokens: u32 = tokens.trim().parse().ok().filter(|tokens| *tokens > 0).ok_or_else(wrong)?;
    let per = match per.trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Rate { tokens, per: Duration::from_secs(per) })
}

/// As in the file: messages in a time, as it is written there; what was halved, in the smallest unit that keeps it exact.
#[must_use]
pub fn rate_text(rate: Rate) -> String {
    let units = [(1, "s"), (60, "min"), (3600, "h"), (86_400, "d")];
    if let Some((_, unit)) = units.into_iter().find(|(per, _)| Duration::from_secs(*per) == rate.per) {
        return format!("{}/{unit}", rate.tokens);
    }
    let per = rate.per.as_nanos().max(1);
    let in_a = |seconds: u64| u128::from(rate.tokens) * u128::from(seconds) * 1_000_000_000;
    let (seconds, unit) = units.into_iter().find(|(seconds, _)| in_a(*seconds) % per == 0).unwrap_or((86_400, "d"));
    format!("{}/{unit}", in_a(seconds) / per)
}

/// `"90s"`, `"10m"`, `"2h"`, `"1d"`; `least` in milliseconds.
fn duration(key: &str, text: &str, least: u64) -> Result<Duration, String> {
    let wrong = || format!("{key} = \"{text}\": write a time as \"90s\", \"10m\", \"2h\" or \"1d\", a week at most");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let time = Duration::from_millis(number.checked_mul(unit).filter(|ms| *ms >= least).ok_or_else(wrong)?);
    if time > LONGEST { Err(wrong()) } else { Ok(time) }
}
