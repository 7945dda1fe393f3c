//! Pools and warm-up plans of the fleet: as the file writes them, as the store keeps them, what they mean.

use crate::config::parse_duration;
use mailrail_queue::{
    policy::{DEFAULT_ACCOUNT, DEFAULT_DEDICATED_POOL, Overflow, PoolKind, SHARED_POOL},
    warmup::{ledger::SPREAD, plan::Plan},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use toml::Spanned;

/// Managed pools that an account may have.
const MANAGED_MOST: usize = 5;

/// `[[pool]]` of the fleet file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePool {
    pub(super) name: Spanned<String>,
    kind: Option<PoolKind>,
    pub(super) account: Option<Spanned<String>>,
    overflow: Option<Spanned<Overflow>>,
    overflow_after: Option<Spanned<String>>,
    plan: Option<Spanned<toml::Value>>,
    spread: Option<Spanned<String>>,
}

/// A pool, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolItem {
    #[serde(rename = "pool_kind")]
    pub(crate) kind: PoolKind,
    pub(crate) account: Option<String>,
    pub(crate) overflow: Overflow,
    pub(crate) overflow_after_ms: u64,
    pub(crate) plan: Option<PlanItem>,
    pub(crate) spread_ms: Option<u64>,
    /// Given when it was made over the control socket; not in the file, which leaves them as they are.
    pub(crate) tags: BTreeMap<String, String>,
}

/// A warm-up plan of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum PlanItem {
    /// A cap for each day.
    Table(Vec<u32>),
    /// From `start`, by a factor in thousandths a day, to `target`.
    Growth { start: u32, factor_permille: u32, target: u32 },
}

impl PlanItem {
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn plan(&self) -> Result<Plan, String> {
        match self {
            Self::Table(caps) => Plan::table(caps),
            Self::Growth { start, factor_permille, target } => Plan::growth(*start, *factor_permille, *target),
        }
        .map_err(|error| error.to_string())
    }

    /// From the file or a request, checked.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let form = "a warm-up plan is a list of caps, [50, 100, 200], or { start = 50, factor = 1.2, target = 50000 }";
        let cap = |value: &toml::Value| {
            let number = value.as_integer().ok_or_else(|| format!("{form}; {value} is no whole number"))?;
            u32::try_from(number).map_err(|_| format!("{number} is no number of recipients a day"))
        };
        let plan = match value {
            toml::Value::Array(caps) => Self::Table(caps.iter().map(cap).collect::<Result<_, _>>()?),
            toml::Value::Table(table) => {
                let of = |key: &str| table.get(key).ok_or_else(|| format!("{form}; {key} is missing"));
                if let Some(key) = table.keys().find(|key| !["start", "factor", "target"].contains(&key.as_str())) {
                    return Err(format!("{form}; it has no {key}"));
                }
                let factor = of("factor")?;
                let factor = factor.as_float().or_else(|| factor.as_integer().map(|whole| whole as f64));
                let permille =
                    factor.map(|factor| (factor * 1000.0).round()).filter(|f| (1000.0..=100_000.0).contains(f));
                let factor_permille = permille
                    .ok_or("the factor of a warm-up plan is at least 1: it must not fall, and at most 100")?
                    as u32;
                Self::Growth { start: cap(of("start")?)?, factor_permille, target: cap(of("target")?)? }
            }
            _ => return Err(form.into()),
        };
        plan.plan().map(|_| plan)
    }

    /// From a request, checked.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        Self::from_toml(&toml::Value::try_from(value).map_err(|error| error.to_string())?)
    }

    /// As the file has it.
    pub(crate) fn to_toml(&self) -> String {
        match self {
            Self::Table(caps) => format!("{caps:?}"),
            Self::Growth { start, factor_permille, target } => {
                let factor = format!("{}.{:03}", factor_permille / 1000, factor_permille % 1000);
                format!("{{ start = {start}, factor = {factor}, target = {target} }}")
            }
        }
    }
}

impl FilePool {
    /// # Errors
    /// Where in the file, and what is wrong there.
    pub(super) fn item(&self) -> Result<PoolItem, (usize, String)> {
        let (name, at) = (self.name.get_ref(), self.name.span().start);
        check_name(name).map_err(|why| (at, format!("[[pool]] {why}")))?;
        let kind = self.kind.unwrap_or_default();
        if name == DEFAULT_DEDICATED_POOL {
            let why = "is made by itself, of the IPs that an account has in no pool of its own: take it out";
            return Err((at, format!("[[pool]] \"{name}\" {why}")));
        }
        if name == SHARED_POOL && kind != PoolKind::Shared {
            return Err((at, format!("[[pool]] \"{name}\" is the shared pool: it can be no other kind")));
        }
        if kind == PoolKind::Shared {
            let given = [
                ("account", self.account.as_ref().map(|s| s.span())),
                ("overflow", self.overflow.as_ref().map(|s| s.span())),
                ("overflow_after", self.overflow_after.as_ref().map(|s| s.span())),
                ("plan", self.plan.as_ref().map(|s| s.span())),
                ("spread", self.spread.as_ref().map(|s| s.span())),
            ];
            if let Some((key, Some(span))) = given.into_iter().find(|(_, span)| span.is_some()) {
                let why = "is not for a shared pool, which has no plans; write kind = \"dedicated\"";
                return Err((span.start, format!("[[pool]] \"{name}\": {key} {why}")));
            }
        }
        Ok(PoolItem {
            kind,
            account: self.account()?,
            overflow: self.overflow.as_ref().map_or_else(Overflow::default, |overflow| *overflow.get_ref()),
            overflow_after_ms: self.millis("overflow_after", self.overflow_after.as_ref(), 0)?.unwrap_or(0),
            plan: plan_of(&format!("[[pool]] \"{name}\""), self.plan.as_ref())?,
            spread_ms: self.millis("spread", self.spread.as_ref(), 1000)?,
            tags: BTreeMap::new(),
        })
    }

    fn account(&self) -> Result<Option<String>, (usize, String)> {
        let Some(account) = &self.account else { return Ok(None) };
        check_name(account.get_ref()).map_err(|why| (account.span().start, format!("[[pool]] account: {why}")))?;
        Ok(Some(account.get_ref().clone()).filter(|account| account != DEFAULT_ACCOUNT))
    }

    fn millis(&self, key: &str, text: Option<&Spanned<String>>, least: u64) -> Result<Option<u64>, (usize, String)> {
        let Some(text) = text else { return Ok(None) };
        let wrong = |why: String| (text.span().start, format!("[[pool]] \"{}\": {key}: {why}", self.name.get_ref()));
        millis(text.get_ref(), least).map(Some).map_err(wrong)
    }
}

/// A time of at most a day, in milliseconds.
///
/// # Errors
/// Why it is none.
pub(crate) fn millis(text: &str, least: u64) -> Result<u64, String> {
    let millis = parse_duration(text)?.as_millis();
    let fits = u64::try_from(millis).ok().filter(|ms| (least..=86_400_000).contains(ms));
    fits.ok_or_else(|| format!("at least {least} ms, at most a day"))
}

/// The plan of a pool or an IP.
///
/// # Errors
/// Where in the file, and what is wrong there.
pub(super) fn plan_of(what: &str, plan: Option<&Spanned<toml::Value>>) -> Result<Option<PlanItem>, (usize, String)> {
    let read = |plan: &Spanned<toml::Value>| {
        PlanItem::from_toml(plan.get_ref()).map_err(|why| (plan.span().start, format!("{what}: plan: {why}")))
    };
    plan.map(read).transpose()
}

/// # Errors
/// Why this is no name of a pool or an account.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(format!("name \"{name}\": 1 to 64 of letters, digits, - and _"));
    }
    Ok(())
}

/// # Errors
/// An account would have too many managed pools.
pub(crate) fn check_managed<'a>(pools: impl Iterator<Item = &'a PoolItem>) -> Result<(), String> {
    let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for pool in pools.filter(|pool| pool.kind == PoolKind::Managed) {
        *counts.entry(pool.account.as_deref()).or_default() += 1;
    }
    match counts.into_iter().find(|(_, count)| *count > MANAGED_MOST) {
        Some((account, count)) => {
            let account = account.unwrap_or("default");
            Err(format!("account {account} would have {count} managed pools; the most is {MANAGED_MOST}"))
        }
        None => Ok(()),
    }
}

impl PoolItem {
    /// In words.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{} pool", kind_name(self.kind));
        if let Some(account) = &self.account {
            words += &format!(" of {account}");
        }
        if self.kind != PoolKind::Shared {
            words += &format!(", overflow {}", overflow_name(self.overflow));
        }
        if self.overflow_after_ms > 0 {
            words += &format!(", overflow_after {}ms", self.overflow_after_ms);
        }
        if let Some(plan) = &self.plan {
            words += &format!(", plan {}", plan.to_toml());
        }
        if let Some(spread) = self.spread_ms {
            words += &format!(", spread {spread}ms");
        }
        words
    }

    /// As the file has it, below its name.
    pub(super) fn to_toml(&self) -> String {
        let mut out = String::new();
        if self.kind == PoolKind::Shared {
            return out;
        }
        out += &format!("kind = \"{}\"\n", kind_name(self.kind));
        if let Some(account) = &self.account {
            out += &format!("account = \"{account}\"\n");
        }
        out += &format!("overflow = \"{}\"\n", overflow_name(self.overflow));
        if self.overflow_after_ms > 0 {
            out += &format!("overflow_after = \"{}ms\"\n", self.overflow_after_ms);
        }
        if let Some(plan) = &self.plan {
            out += &format!("plan = {}\n", plan.to_toml());
        }
        if let Some(spread) = self.spread_ms {
            out += &format!("spread = \"{spread}ms\"\n");
        }
        out
    }

    /// A day's cap is spent in no less than this.
    pub(super) fn spread(&self) -> Duration {
        self.spread_ms.map_or(SPREAD, Duration::from_millis)
    }
}

/// As in the file.
pub(crate) fn kind_name(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Shared => "shared",
        PoolKind::Dedicated => "dedicated",
        PoolKind::Managed => "managed",
    }
}

fn overflow_name(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::Auto => "auto",
        Overflow::Pool => "pool",
        Overflow::Shared => "shared",
        Overflow::Dedicated => "dedicated",
        Overflow::Defer => "defer",
        Overflow::Reject => "reject",
    }
}
