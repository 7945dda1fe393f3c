//! `[[domain]]` of the fleet: rules of recipient domains.

use super::fleet::{Fleet, FleetError, Item};
use crate::config::is_domain;
use mailrail_queue::policy::{DomainRule, TlsMode};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileDomain {
    name: Spanned<String>,
    tls: Option<TlsMode>,
    connections: Option<u32>,
    messages_per_connection: Option<u32>,
}

impl Fleet {
    /// # Errors
    /// Where in the file, and what is wrong there.
    pub(super) fn take_domain(
        &mut self,
        domain: &FileDomain,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let name = domain.name.get_ref().to_ascii_lowercase();
        let at = domain.name.span().start;
        if !is_domain(name.strip_prefix("*.").unwrap_or(&name)) {
            return Err(fail(at, format!("[[domain]] name \"{name}\" is none of: example.com, *.example.com")));
        }
        if domain.connections == Some(0) || domain.messages_per_connection == Some(0) {
            return Err(fail(at, format!("[[domain]] {name}: limits must be 1 at least")));
        }
        let item = Item::Domain {
            tls: domain.tls.map(|tls| tls_name(tls).into()),
            connections: domain.connections,
            messages_per_connection: domain.messages_per_connection,
        };
        if !self.put(&name, item) {
            return Err(fail(at, format!("[[domain]] {name} is listed twice")));
        }
        Ok(())
    }
}

fn tls_name(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::None => "none",
        TlsMode::Opportunistic => "opportunistic",
        TlsMode::Required => "required",
    }
}

/// The rule that an item of the fleet means.
pub(super) fn rule(item: &Item) -> Option<DomainRule> {
    let Item::Domain { tls, connections, messages_per_connection } = item else { return None };
    let tls = tls.as_deref().map(|tls| match tls {
        "none" => TlsMode::None,
        "required" => TlsMode::Required,
        _ => TlsMode::Opportunistic,
    });
    Some(DomainRule { tls, connections: *connections, messages_per_connection: *messages_per_connection })
}
