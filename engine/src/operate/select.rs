//! Which queued mail a filter selects: what the queue knows is looked at first, the envelope in the spool only if need be.

use crate::{
    flow,
    link::orders::Filter,
    message::{id::MessageId, meta::Meta},
    shard::Shard,
};
use mailrail_queue::{Seen, policy::Policy, time::Wall};
use mailrail_spool::{MessageKey, Spool};
use smallvec::SmallVec;

/// Numbers of recipients.
pub(crate) type Numbers = SmallVec<[u16; 2]>;

/// A filter, made ready.
#[derive(Debug)]
pub(crate) struct Selector {
    filter: Filter,
    /// Only mail accepted then or before.
    before: Option<Wall>,
    /// Not mail of this pool.
    except_pool: Option<String>,
    /// Not notifications of this host.
    no_dsn: bool,
}

impl Selector {
    pub(crate) fn new(filter: &Filter) -> Self {
        let mut filter = filter.clone();
        filter.domain = filter.domain.map(|domain| flow::domain_of(&format!("x@{domain}")));
        filter.site = filter.site.map(|site| site.to_ascii_lowercase());
        filter.ip = filter.ip.map(|ip| ip.to_canonical());
        Self { filter, before: None, except_pool: None, no_dsn: false }
    }

    /// The same, of what was accepted then or before, and is not of this pool.
    pub(crate) fn until(self, before: Wall, except_pool: Option<&str>) -> Self {
        Self { before: Some(before), except_pool: except_pool.map(str::to_owned), ..self }
    }

    /// The same without notifications.
    pub(crate) fn without_dsns(self) -> Self {
        Self { no_dsn: true, ..self }
    }

    /// The recipients of a job that it selects.
    pub(crate) fn pick(&self, shard: &Shard, spool: &Spool, seen: &Seen<'_, MessageKey>) -> Numbers {
        if !self.fits_queue(shard, seen) {
            return Numbers::new();
        }
        let filter = &self.filter;
        let of_domain = |domain: &str| filter.domain.as_ref().is_none_or(|wanted| wanted == domain);
        let mut picked: Numbers =
            seen.recipients().filter(|(_, domain)| of_domain(domain)).map(|(number, _)| number).collect();
        if !picked.is_empty() && self.wants_envelope() && !self.fits_envelope(shard, spool, seen.key(), &mut picked) {
            picked.clear();
        }
        picked
    }

    fn fits_queue(&self, shard: &Shard, seen: &Seen<'_, MessageKey>) -> bool {
        let Filter { site, provider, ip, .. } = &self.filter;
        ip.is_none_or(|ip| seen.lease() == Some(ip))
            && site.as_ref().is_none_or(|site| match seen.site() {
                Some(known) => known.split(',').any(|host| is_host(host, site)),
                None => seen.domain() == site,
            })
            && provider.as_ref().is_none_or(|provider| {
                let known = seen.site().and_then(|site| shard.provider_name(site));
                known.is_some_and(|known| known.eq_ignore_ascii_case(provider))
            })
    }

    fn wants_envelope(&self) -> bool {
        let Filter { message, recipient, account, pool, .. } = &self.filter;
        let members = [message, recipient, account, pool];
        members.into_iter().any(Option::is_some) || self.before.is_some() || self.except_pool.is_some() || self.no_dsn
    }

    fn fits_envelope(&self, shard: &Shard, spool: &Spool, key: MessageKey, picked: &mut Numbers) -> bool {
        let Filter { message, recipient, account, pool, .. } = &self.filter;
        let Some(view) = spool.message(key) else { return false };
        if self.before.is_some_and(|before| view.accepted_ms > before.0)
            || message.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&MessageId::display(view.id)))
        {
            return false;
        }
        if recipient.is_none() && account.is_none() && pool.is_none() && self.except_pool.is_none() && !self.no_dsn {
            return true;
        }
        let Some(meta) = Meta::decode(view.meta) else { return false };
        if account.as_ref().is_some_and(|account| account != meta.account) || self.no_dsn && meta.flags.dsn {
            return false;
        }
        if pool.is_some() || self.except_pool.is_some() {
            let snapshot = shard.policy();
            let own = Some(pool_of(&meta, &snapshot.policy));
            let is = |wanted: &Option<String>| wanted.as_deref() == own;
            if pool.is_some() && !is(pool) || is(&self.except_pool) {
                return false;
            }
        }
        if let Some(wanted) = recipient {
            let address = |number: &u16| meta.recipients.get(usize::from(*number)).map(|to| to.address);
            picked.retain(|number| address(number).is_some_and(|known| known.eq_ignore_ascii_case(wanted)));
        }
        !picked.is_empty()
    }
}

/// Is this the host of a site, with its port or without?
fn is_host(host: &str, wanted: &str) -> bool {
    host == wanted || host.rsplit_once(':').is_some_and(|(name, _)| name == wanted)
}

/// The pool of a message.
pub(crate) fn pool_of<'a>(meta: &Meta<'a>, policy: &'a Policy) -> &'a str {
    if !meta.pool.is_empty() {
        return meta.pool;
    }
    policy.default_pool.and_then(|pool| policy.pools.get(pool as usize)).map_or("", |pool| &*pool.name)
}
