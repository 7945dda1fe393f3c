//! Which plan would fit: what the receivers of a pool's mail would take of one new IP, day by day, if none were ever pressed.

use super::campaign::Campaign;
use crate::{egress, warmup::plan::Plan};

/// Of what a receiver takes, a plan uses so much: no two days are the same.
const USED: f64 = 0.8;
/// Days that are looked ahead.
const AHEAD: usize = 180;
const WEEK: usize = 7;

/// A plan that grows by a factor a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// First day's cap.
    pub start: u32,
    /// A day, in thousandths.
    pub factor_permille: u32,
    /// Last day's cap.
    pub target: u32,
    /// Days that it takes.
    pub days: u16,
}

/// The steepest plan for the new IPs of a pool that its receivers would not be pressed by; none: there is none, or no mail.
#[must_use]
pub fn fit(campaign: &Campaign, pool: usize) -> Option<Fit> {
    let shares = shares(campaign, pool);
    let ips = campaign.policy.pools.get(pool)?.leases.len() as u64;
    let of_pool = |day| -> u64 { mine(campaign, pool).map(|stream| stream.volume(day)).sum() };
    let most = (1..=campaign.days).map(of_pool).max()?.checked_div(ips)?;
    let target = u32::try_from(most).ok()?.max(50);
    let caps = caps(campaign, &shares, f64::from(target));
    let start = two_digits((*caps.first()?).min(f64::from(target)) as u32);
    if start == 0 {
        return None;
    }
    let fits = |permille: &u32| {
        let Ok(plan) = Plan::growth(start, *permille, target) else { return false };
        let below = |(cap, most): (&u32, &f64)| f64::from(*cap) <= *most;
        usize::from(plan.days()) <= caps.len() && plan.caps().iter().zip(&caps).all(below)
    };
    let factor_permille = (1010..=3000).rev().step_by(10).find(fits)?;
    let days = Plan::growth(start, factor_permille, target).ok()?.days();
    Some(Fit { start, factor_permille, target, days })
}

fn mine(campaign: &Campaign, pool: usize) -> impl Iterator<Item = &super::campaign::Stream> {
    campaign.streams.iter().filter(move |stream| {
        let of = egress::pool_of(&campaign.policy, &stream.account, stream.pool.as_deref());
        matches!(of, Ok(Some(of)) if of as usize == pool)
    })
}

/// What part of the pool's mail each receiver gets.
fn shares(campaign: &Campaign, pool: usize) -> Vec<f64> {
    let mut volumes = vec![0.0; campaign.receivers.len()];
    for stream in mine(campaign, pool) {
        let volume: u64 = (1..=campaign.days).map(|day| stream.volume(day)).sum();
        let parts: u64 = stream.to.iter().map(|(_, parts)| parts).sum();
        for (receiver, part) in &stream.to {
            if let Some(of) = volumes.get_mut(*receiver) {
                *of += volume as f64 * *part as f64 / parts.max(1) as f64;
            }
        }
    }
    let all: f64 = volumes.iter().sum();
    volumes.iter().map(|volume| volume / all.max(1.0)).collect()
}

/// What may go on each day, until it is as much as is wanted.
fn caps(campaign: &Campaign, shares: &[f64], target: f64) -> Vec<f64> {
    let mut caps = Vec::new();
    let served = || campaign.receivers.iter().zip(shares).filter(|(_, share)| **share > 0.0);
    let mut trust: Vec<f64> = served().map(|(model, _)| model.start).collect();
    while caps.len() < AHEAD && caps.last().is_none_or(|cap| *cap < target * 1.5) {
        let week = caps.iter().rev().take(WEEK).copied().fold(0.0, f64::max);
        let takes =
            served().zip(&trust).map(|((model, share), trust)| USED * model.limit(*trust, week * share) / share);
        caps.push(takes.fold(f64::MAX, f64::min));
        trust.iter_mut().zip(served()).for_each(|(trust, (model, _))| *trust = (*trust + model.rise).min(100.0));
    }
    caps
}

fn two_digits(value: u32) -> u32 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value / unit * unit
}
