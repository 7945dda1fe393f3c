//! Selection queued mail a command is about.

use crate::client::encoded;
use mailrail_engine::link::orders::Filter;
use std::net::IpAddr;

/// The members of a filter; all that are given must hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only this message
    #[arg(long, value_name = "MESSAGE-ID")]
    message: Option<String>,
    /// Only this recipient
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Only this recipient domain
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Only this site: the name of one of its mail hosts, as `mailrail queue` shows it
    #[arg(long, value_name = "HOST")]
    site: Option<String>,
    /// Only sites of this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only mail of this account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Only mail of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Only mail that leaves by this leased IP
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
}

impl Selection {
    /// As the server takes it.
    pub(crate) fn filter(&self) -> Filter {
        let Self { message, recipient, domain, site, provider, account, pool, ip } = self.clone();
        Filter { message, recipient, domain, site, provider, account, pool, ip }
    }

    /// Is it about a single message?
    pub(crate) fn is_message(&self) -> bool {
        self.message.is_some()
    }

    /// As the query of a path: `&name=value` for each member.
    pub(crate) fn query(&self) -> String {
        let ip = self.ip.map(|ip| ip.to_string());
        let members = [
            ("domain", &self.domain),
            ("ip", &ip),
            ("site", &self.site),
            ("provider", &self.provider),
            ("account", &self.account),
            ("pool", &self.pool),
            ("recipient", &self.recipient),
            ("message", &self.message),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect()
    }
}
