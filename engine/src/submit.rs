//! Who may send to whom: an account's state and sandbox at submission, and the recipients that are on a suppression list.
//!
//! A suppressed recipient is accepted and counted, and never reaches the queue. That it is suppressed stands in the message's
//! own record, so that no crash between the append and the settling makes mail of it.

use crate::{
    clock,
    event::detail::{Attempt, Outcome},
    message::meta::Meta,
    shard::Shard,
    smtp::{
        envelope::Recipient,
        reply::{Enhanced, Reply},
    },
};
use mailrail_queue::{
    admit::suppress::{self, Change, Key, Overlay, Set, Suppressed},
    classify::{BounceSubType, BounceType},
    policy::{Account, Policy},
};
use mailrail_spool::{MessageKey, RecipientState, SettleKind};
use std::sync::Arc;

/// Addresses named in a refusal.
const SHOWN: usize = 5;

/// The suppression lists as this shard sees them. *One per shard.*
#[derive(Default)]
pub(crate) struct Lists(Option<(Key, Overlay)>);

impl Lists {
    /// All entries anew.
    pub(crate) fn replace(&mut self, key: Key, set: Arc<Set>) {
        let mut overlay = Overlay::default();
        overlay.swap(set);
        self.0 = Some((key, overlay));
    }

    /// What has changed since.
    pub(crate) fn change(&mut self, changes: &[Change]) {
        if let Some((_, overlay)) = &mut self.0 {
            changes.iter().for_each(|change| overlay.change(*change));
        }
    }
}

/// The account that sends, if it may send to these.
///
/// # Errors
/// The reply that refuses the message.
pub(crate) fn may_send<'a>(
    policy: &'a Policy,
    account: &str,
    recipients: &[Recipient],
    regions: &[String],
) -> Result<&'a Account, Reply> {
    let Some(account) = policy.account(account) else {
        // Removed while its client was connected, or named by a listener and not by the fleet.
        return Err(Reply::new(454, Enhanced(4, 7, 0), "Temporary authentication failure"));
    };
    let rejected = |text: String| Err(Reply::new(554, Enhanced(5, 7, 1), format!("Message rejected: {text}")));
    if !account.sending_enabled {
        return rejected("Sending paused for this account.".into());
    }
    let mut failed = recipients.iter().map(|to| to.address.as_str()).filter(|to| !account.may_send_to(to));
    let shown: Vec<&str> = failed.by_ref().take(SHOWN).collect();
    if shown.is_empty() {
        return Ok(account);
    }
    let cut = if failed.next().is_some() { "..." } else { "" };
    let region = regions.first().map_or("local", String::as_str).to_ascii_uppercase();
    rejected(format!(
        "Email address is not verified. The following identities failed the check in region {region}: {}{cut}",
        shown.join(", ")
    ))
}

/// Numbers of the recipients that are on a list.
pub(crate) fn suppressed(shard: &Shard, account: &Account, recipients: &[Recipient]) -> Vec<(u16, Suppressed)> {
    let lists = shard.lists.borrow();
    let Some((key, overlay)) = &lists.0 else { return Vec::new() };
    let each = (0..).zip(recipients).filter_map(|(number, to)| {
        // An address that cannot be on a list is on none.
        let found = suppress::suppressed(overlay, *key, &account.name, account.reasons, None, &to.address);
        Some((number, found.ok().flatten()?))
    });
    each.collect()
}

/// Of a message's suppressed recipients, those not settled.
pub(crate) fn open_suppressed(meta: &Meta<'_>, states: &[RecipientState]) -> Vec<(u16, Suppressed)> {
    let is_open = |number: u16| states.get(usize::from(number)).is_some_and(|state| !state.settled);
    meta.suppressed.iter().copied().filter(|(number, _)| is_open(*number)).collect()
}

/// Settles suppressed recipients; it rides with the next sync.
pub(crate) fn settle_suppressed(shard: &Shard, key: MessageKey, suppressed: &[(u16, Suppressed)]) {
    if suppressed.is_empty() {
        return;
    }
    let mut detail = Vec::with_capacity(128);
    for (number, why) in suppressed {
        let (outcome, text) = told(*why);
        let reply = Reply::local(550, Enhanced(5, 1, 1), text);
        Attempt { time: clock::wall(), reply, outcome, ..Attempt::default() }.encode(&mut detail);
        // The queue has never had it.
        let _settled = shard.spool.borrow_mut().settle(key, &[*number], SettleKind::Suppressed, &detail);
    }
    shard.stats.borrow_mut().suppressed += suppressed.len() as u64;
    shard.dirty.raise();
}

/// As SES tells it.
fn told(why: Suppressed) -> (Outcome, &'static str) {
    let permanent = |sub| Outcome::Bounced(BounceType::Permanent, sub);
    match why {
        Suppressed::OnAccountList => (
            permanent(BounceSubType::OnAccountSuppressionList),
            "the address is on the suppression list of the account; not sent",
        ),
        Suppressed::OnAccountListForComplaint => {
            (Outcome::Complained, "the address is on the suppression list of the account, for a complaint; not sent")
        }
        Suppressed::OnHostList => {
            (permanent(BounceSubType::Suppressed), "the address is on the suppression list of the host; not sent")
        }
    }
}
