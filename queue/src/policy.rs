//! The policy snapshot: what the control plane decided, complete and immutable.
//!
//! Control thread builds one, every shard gets the same `Arc` and swaps it in whole; nothing here is ever changed in
//! place, so a decision never sees half of a change.

use crate::{
    admit::{quota::Limits, suppress::Reasons},
    shape::table::{Provider, Table},
    time::Wall,
    warmup::{
        day::DayStart,
        plan::{Percentage, Plan},
    },
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// Index of a leased IP inside one [`Policy`]; only meaningful together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseIndex(pub u32);

/// A leased IP: an egress address bound to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Source address of the connections.
    pub address: IpAddr,
    /// Name said in EHLO.
    pub helo: Arc<str>,
    /// Pool it belongs to, an index into [`Policy::pools`].
    pub pool: u32,
    /// The one shard that owns it.
    pub shard: u16,
    /// How it warms up; none: it is shared, and has no plan.
    pub warmup: Option<Arc<Warmup>>,
    /// It takes no new mail, and finishes what it has.
    pub draining: bool,
}

/// What was decided of the warm-up of a dedicated IP. What has come of it is the ledger's, in the shard that owns the IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Which leasing of the address this is; a later one has a higher number.
    pub leasing: u64,
    /// When it was leased: that day is day 1.
    pub leased: Wall,
    /// It was warm when it was leased: it counts, without a cap.
    pub warm: bool,
    /// Caps of its days.
    pub plan: Plan,
    /// A day's cap is spent in no less than this.
    pub spread: Duration,
    /// When days begin.
    pub starts: DayStart,
    /// The last percentage set by an operator, with a number that rises with each: it is to be obeyed once.
    pub set: Option<(u64, Percentage)>,
    /// The plan is to stand still.
    pub held: bool,
}

/// Of which kind a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// For all accounts; its IPs have no plan.
    #[default]
    Shared,
    /// Of one account, which decides of its IPs; these warm up by their plans.
    Dedicated,
    /// Of one account; the host decides which IPs it has.
    Managed,
}

/// Where mail goes that a pool's warming IPs may not take now, and which the pool has no warm IP for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// To warm IPs of the account if it has any, else to the shared pool.
    #[default]
    Auto,
    /// Nowhere but to warm IPs of this pool.
    Pool,
    /// To the shared pool.
    Shared,
    /// To warm IPs of the account's dedicated pools.
    Dedicated,
    /// It waits.
    Defer,
    /// It is refused at submission for the time being; what was accepted waits.
    Reject,
}

/// Pool of an account's dedicated IPs that are in no pool of its own.
pub const DEFAULT_DEDICATED_POOL: &str = "ses-default-dedicated-pool";
/// The shared pool.
pub const SHARED_POOL: &str = "ses-shared-pool";

/// A named set of leased IPs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Unique name.
    pub name: Arc<str>,
    /// Its leases, in order of address.
    pub leases: Vec<LeaseIndex>,
    /// Whose IPs these are.
    pub kind: PoolKind,
    /// The account it belongs to; none: to the unauthenticated clients, or, if shared, to all.
    pub account: Option<Arc<str>>,
    /// Where mail goes that its plans do not let through.
    pub overflow: Overflow,
    /// Mail that the smoothing lets go within this time waits for it.
    pub overflow_after: Duration,
}

/// What TLS a recipient domain is to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never STARTTLS.
    None,
    /// STARTTLS where offered, certificate not verified, plain text if it fails.
    #[default]
    Opportunistic,
    /// STARTTLS with a verified certificate, or the mail is deferred.
    Required,
}

/// Rules of one recipient domain (exact name, or `*.name`); what they leave open its provider says, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainRule {
    /// TLS to use.
    pub tls: Option<TlsMode>,
    /// Connections per (IP, site).
    pub connections: Option<u32>,
    /// Messages a connection.
    pub messages_per_connection: Option<u32>,
}

/// The account of clients that give no credentials, unless their listener names another one.
pub const DEFAULT_ACCOUNT: &str = "default";

/// Who sends: the owner of limits, lists and pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Unique name.
    pub name: Arc<str>,
    /// Pool of its mail that names none: index into [`Policy::pools`]; none: the host's default.
    pub pool: Option<u32>,
    /// What it may send.
    pub limits: Limits,
    /// It may send to [`Self::verified`] only.
    pub sandbox: bool,
    /// Addresses and domains (lower case) that it may send to in the sandbox.
    pub verified: Arc<[Box<str>]>,
    /// New mail is taken from it.
    pub sending_enabled: bool,
    /// While it takes no new mail, what is queued is held.
    pub pause_holds_queue: bool,
    /// For which reasons its suppression list is asked and kept.
    pub reasons: Reasons,
    /// Hard bounces come on a list by themselves.
    pub lists_bounces: bool,
}

impl Account {
    /// The built-in account of trusted networks: no limits, and a suppression list that is filled by hand only.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            name: DEFAULT_ACCOUNT.into(),
            pool: None,
            limits: Limits::default(),
            sandbox: false,
            verified: Arc::new([]),
            sending_enabled: true,
            pause_holds_queue: true,
            reasons: Reasons::default(),
            lists_bounces: false,
        }
    }

    /// May it send to this address, as far as the sandbox goes?
    #[must_use]
    pub fn may_send_to(&self, address: &str) -> bool {
        let is = |known: &str| {
            if known.contains('@') {
                return known.eq_ignore_ascii_case(address);
            }
            address.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(known))
        };
        !self.sandbox || self.verified.iter().any(|known| is(known))
    }
}

/// The snapshot.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Rises with every change; a shard drops an older one.
    pub version: u64,
    /// All pools, in order of name.
    pub pools: Vec<Pool>,
    /// All leased IPs of the host, in order of address.
    pub leases: Vec<Lease>,
    /// Pool of mail that names none: index into `pools`.
    pub default_pool: Option<u32>,
    /// All accounts, in order of name; [`DEFAULT_ACCOUNT`] is always one of them.
    pub accounts: Vec<Account>,
    /// Rules by domain name in lower-case A-labels; `*.example.com` matches subdomains.
    pub domains: Vec<(Arc<str>, DomainRule)>,
    /// Large receivers, and what they are sent.
    pub providers: Arc<Table>,
}

impl Policy {
    /// The account of this name.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&Account> {
        let at = self.accounts.binary_search_by(|account| (*account.name).cmp(name)).ok()?;
        self.accounts.get(at)
    }

    /// The provider that mail goes to whose best host (lower case) is this one.
    #[must_use]
    pub fn provider_of(&self, host: &str) -> Option<&Arc<Provider>> {
        self.providers.of_host(host)
    }

    /// The rule of a recipient domain (lower case): its own, else that of the longest `*.suffix`, else the default.
    #[must_use]
    pub fn rule_of(&self, domain: &str) -> DomainRule {
        let mut best: Option<(usize, &DomainRule)> = None;
        for (name, rule) in &self.domains {
            if **name == *domain {
                return rule.clone();
            }
            let Some(suffix) = name.strip_prefix("*.") else { continue };
            let fits = domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
            if fits && best.is_none_or(|(length, _)| suffix.len() > length) {
                best = Some((suffix.len(), rule));
            }
        }
        best.map(|(_, rule)| rule.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_lets_only_verified_addresses_and_domains_through() {
        let verified = Arc::new(["a@one.test".into(), "two.test".into()]);
        let mut account = Account { sandbox: true, verified, ..Account::built_in() };
        let through = |account: &Account| {
            ["A@One.test", "b@one.test", "x@TWO.test", "x@sub.two.test"].map(|address| account.may_send_to(address))
        };
        assert_eq!(through(&account), [true, false, true, false]);
        account.sandbox = false;
        assert_eq!(through(&account), [true; 4]);
    }

    #[test]
    fn the_nearest_rule_holds() {
        let rule = |n| DomainRule { connections: Some(n), ..DomainRule::default() };
        let domains = vec![
            (Arc::from("*.example.com"), rule(1)),
            (Arc::from("*.b.example.com"), rule(2)),
            (Arc::from("a.example.com"), rule(3)),
        ];
        let policy = Policy { domains, ..Policy::default() };
        let of = |domain| policy.rule_of(domain).connections;
        assert_eq!((of("a.example.com"), of("x.example.com"), of("x.b.example.com")), (Some(3), Some(1), Some(2)));
        assert_eq!((of("example.com"), of("badexample.com"), of("example.org")), (None, None, None));
    }
}
