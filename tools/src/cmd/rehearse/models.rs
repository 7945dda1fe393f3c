//! Receivers: those that ship (`packaging/receivers.toml`), and what a campaign says of them or adds.

use mailrail_engine::config::parse_duration;
use mailrail_queue::{
    policy::Policy,
    sim::receiver::{Model, Reply},
};
use serde::Deserialize;
use std::time::Duration;
use toml::Spanned;

/// The models that ship.
pub(super) const SHIPPED: &str = include_str!("../../../../packaging/receivers.toml");

/// `[[receiver]]`; what is left out stays as it was.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    name: String,
    provider: Option<String>,
    volume: Option<Vec<(f64, f64)>>,
    first_day: Option<f64>,
    growth: Option<f64>,
    taken_anyway: Option<f64>,
    deferred: Option<f64>,
    busy: Option<String>,
    slow: Option<Vec<String>>,
    #[serde(default)]
    reputation: Reputation,
    #[serde(default)]
    block: Block,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reputation {
    start: Option<f64>,
    known: Option<f64>,
    rise: Option<f64>,
    ramp: Option<f64>,
    bounces: Option<f64>,
    bounces_over: Option<f64>,
    idle: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    at: Option<f64>,
    chance: Option<f64>,
    #[serde(rename = "for")]
    time: Option<String>,
    replies: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Shipped {
    receiver: Vec<Entry>,
}

/// All receivers: those that ship, with a campaign's own on top.
///
/// # Errors
/// Where, and what is wrong there.
pub(super) fn table(own: &[Spanned<Entry>], policy: &Policy) -> Result<Vec<Model>, (usize, String)> {
    let shipped: Shipped =
        toml::from_str(SHIPPED).map_err(|error| (0, format!("packaging/receivers.toml: {}", error.message())))?;
    let mut models: Vec<Model> = Vec::new();
    for entry in &shipped.receiver {
        entry.take(&mut models).map_err(|why| (0, format!("packaging/receivers.toml: {why}")))?;
    }
    for (n, entry) in own.iter().enumerate() {
        let (at, name) = (entry.span().start, &entry.get_ref().name);
        if own.iter().take(n).any(|other| other.get_ref().name == *name) {
            return Err((at, format!("[[receiver]] \"{name}\" is listed twice")));
        }
        entry.get_ref().take(&mut models).map_err(|why| (at, why))?;
        let provider = entry.get_ref().provider.as_deref();
        if let Some(unknown) = provider.filter(|provider| policy.providers.get(provider).is_none()) {
            return Err((at, format!("[[receiver]] \"{name}\": provider \"{unknown}\" is no [[provider]]")));
        }
    }
    Ok(models)
}

impl Entry {
    fn take(&self, models: &mut Vec<Model>) -> Result<(), String> {
        let known = models.iter().position(|model| *model.name == *self.name);
        let base = match known {
            Some(known) => models[known].clone(),
            None => strange(&self.name)?,
        };
        let model = self.apply(base).map_err(|why| format!("[[receiver]] \"{}\": {why}", self.name))?;
        match known {
            Some(known) => models[known] = model,
            None => models.push(model),
        }
        Ok(())
    }

    fn apply(&self, mut to: Model) -> Result<Model, String> {
        let (reputation, block) = (&self.reputation, &self.block);
        let set = |of: &mut f64, key: &str, given: Option<f64>, scale: f64, most: f64| match given {
            None => Ok(()),
            Some(value) if (0.0..=most).contains(&value) => {
                *of = value * scale;
                Ok(())
            }
            Some(value) => Err(format!("{key} = {value}: 0 to {most}")),
        };
        set(&mut to.first_day, "first_day", self.first_day, 1.0, 1e9)?;
        set(&mut to.growth, "growth", self.growth, 1.0, 1000.0)?;
        set(&mut to.lenient, "taken_anyway", self.taken_anyway, 0.01, 100.0)?;
        set(&mut to.defers, "deferred", self.deferred, 0.01, 100.0)?;
        set(&mut to.start, "reputation.start", reputation.start, 1.0, 100.0)?;
        set(&mut to.known, "reputation.known", reputation.known, 1.0, 100.0)?;
        set(&mut to.rise, "reputation.rise", reputation.rise, 1.0, 100.0)?;
        set(&mut to.ramp, "reputation.ramp", reputation.ramp, 1.0, 100.0)?;
        set(&mut to.bounces, "reputation.bounces", reputation.bounces, 1.0, 100.0)?;
        set(&mut to.bounces_over, "reputation.bounces_over", reputation.bounces_over, 0.01, 100.0)?;
        set(&mut to.idle, "reputation.idle", reputation.idle, 1.0, 100.0)?;
        set(&mut to.block_at, "block.at", block.at, 1.0, 1000.0)?;
        set(&mut to.block, "block.chance", block.chance, 0.01, 100.0)?;
        if let Some(time) = &block.time {
            to.block_for = parse_duration(time).map_err(|why| format!("block.for: {why}"))?;
        }
        if let Some(provider) = &self.provider {
            to.provider = Some(provider.as_str().into());
        }
        if let Some(volume) = &self.volume {
            to.volume = points(volume)?;
        }
        if let Some(lines) = &self.slow {
            to.slow = replies("slow", lines)?;
        }
        if let Some(lines) = &block.replies {
            to.blocked = replies("block.replies", lines)?;
        }
        if let Some(line) = &self.busy {
            to.busy = Reply::parse(line).map_err(|why| format!("busy: {why}"))?;
        }
        if to.busy.code >= 500 {
            return Err("busy: puts mail off, so that its code is one from 400 to 499".into());
        }
        Ok(to)
    }
}

fn points(volume: &[(f64, f64)]) -> Result<Vec<(f64, f64)>, String> {
    let rises = volume.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let fits = volume.iter().all(|(trust, takes)| (0.0..=100.0).contains(trust) && (0.0..=1e9).contains(takes));
    if volume.is_empty() || !rises || !fits {
        return Err(
            "volume: pairs of reputation (0 to 100) and recipients a day, both rising: [[0, 100], [90, 500000]]".into(),
        );
    }
    Ok(volume.to_vec())
}

fn replies(key: &str, lines: &[String]) -> Result<Vec<Reply>, String> {
    if lines.is_empty() {
        return Err(format!("{key} is empty: it has to say something"));
    }
    lines.iter().map(|line| Reply::parse(line).map_err(|why| format!("{key}: {why}"))).collect()
}

/// A receiver that nothing was said of yet: one that takes much and says little.
fn strange(name: &str) -> Result<Model, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(format!("[[receiver]] name \"{name}\": 1 to 64 of letters, digits, -, _ and ."));
    }
    Ok(Model {
        name: name.into(),
        provider: None,
        volume: vec![(0.0, 300.0), (30.0, 10_000.0), (85.0, 500_000.0)],
        first_day: 1000.0,
        growth: 2.0,
        start: 10.0,
        known: 85.0,
        rise: 2.5,
        ramp: 10.0,
        bounces: 6.0,
        bounces_over: 0.05,
        idle: 0.5,
        lenient: 0.1,
        block_at: 1.5,
        block: 0.02,
        block_for: Duration::from_secs(12 * 3600),
        defers: 0.003,
        slow: vec![Reply::parse("451 4.7.1 Too many messages from {ip}, slow down")?],
        blocked: vec![Reply::parse("554 5.7.1 Client host [{ip}] blocked using a local block list")?],
        busy: Reply::parse("451 4.3.2 Try again later")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_ship_are_in_order() {
        let policy = Policy {
            providers: std::sync::Arc::new(mailrail_queue::shape::table::Table::with(&[]).unwrap()),
            ..Policy::default()
        };
        let models = table(&[], &policy).unwrap();
        assert!(models.len() >= 5);
        for model in models {
            assert!(model.provider.as_ref().is_none_or(|name| policy.providers.get(name).is_some()), "{}", model.name);
            assert!(model.limit(model.start, 0.0) >= 100.0 && model.takes(100.0) > 100_000.0, "{}", model.name);
        }
    }
}
