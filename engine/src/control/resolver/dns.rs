//! Questions to the DNS, and what may come back: records, nothing, no such name, or no answer now. *Control thread.*
//!
//! What it knows of hickory nobody else needs to know. Every name is asked as absolute, so that no search list of the
//! host has a say, and never looked up in the host's own files.

use super::site::{TTL, TTL_NEVER};
use crate::config::DnsConfig;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType},
    },
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Questions on their way at a time, more than slow domains alone can have. Each has a socket of its own, and files are what
/// the shards need too.
const QUESTIONS: usize = 2048;

/// What one question came to.
pub(super) enum Found<T> {
    /// These, to be believed so long.
    Some(T, Duration),
    /// The name is there, such records are not.
    Nothing,
    /// The name is not there.
    NoName,
    /// No answer; why.
    Later(String),
}

/// See the module.
pub(super) struct Dns {
    resolver: TokioResolver,
    questions: Semaphore,
}

impl Dns {
    /// # Errors
    /// The system's resolver configuration cannot be read.
    pub(super) fn new(config: &DnsConfig) -> Result<Self, String> {
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| {
                format!("the system's name servers cannot be read ({error}); name some with [dns] servers =")
            })?
        } else {
            let servers = config.servers.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            let servers = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = config.timeout;
        options.attempts = 2;
        options.use_hosts_file = ResolveHosts::Never;
        options.negative_max_ttl = Some(TTL_NEVER);
        options.positive_max_ttl = Some(TTL.1);
        options.edns0 = true;
        let resolver = builder.build().map_err(|error| format!("resolver: {error}"))?;
        Ok(Self { resolver, questions: Semaphore::new(QUESTIONS) })
    }

    /// MX records: preference and name, lower case, no trailing dot; the name of a null MX is empty.
    pub(super) async fn mx(&self, domain: &str) -> Found<Vec<(u16, String)>> {
        self.lookup(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => {
                let name = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                Some((mx.preference, name))
            }
            _ => None,
        })
        .await
    }

    /// Names in PTR records, lower case, no trailing dot.
    pub(super) async fn ptr(&self, name: &str) -> Found<Vec<String>> {
        self.lookup(name, RecordType::PTR, |data| match data {
            RData::PTR(ptr) => Some(ptr.0.to_ascii().trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .await
    }

    /// A and AAAA records. Addresses of one kind are enough, if the other kind cannot be had.
    pub(super) async fn addresses(&self, host: &str) -> Found<Vec<IpAddr>> {
        let v4 = self.lookup(host, RecordType::A, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
        let v6 = self.lookup(host, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        });
        match tokio::join!(v4, v6) {
            (Found::Some(mut four, ttl), Found::Some(six, other)) => {
                four.extend(six);
                Found::Some(four, ttl.min(other))
            }
            (Found::Some(found, ttl), _) | (_, Found::Some(found, ttl)) => Found::Some(found, ttl),
            (Found::Later(text), _) | (_, Found::Later(text)) => Found::Later(text),
            (Found::NoName, _) => Found::NoName,
            (Found::Nothing, _) => Found::Nothing,
        }
    }

    async fn lookup<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Found<Vec<T>> {
        // Never closed.
        let Ok(_permit) = self.questions.acquire().await else { return Found::Nothing };
        match self.resolver.lookup(format!("{}.", name.trim_end_matches('.')), kind).await {
            Ok(lookup) => {
                let found: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
                let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
                if found.is_empty() { Found::Nothing } else { Found::Some(found, ttl) }
            }
            Err(error) => failed(&error),
        }
    }
}

fn failed<T>(error: &NetError) -> Found<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Found::NoName,
            ResponseCode::NoError => Found::Nothing,
            code => Found::Later(format!("the name servers say {code}")),
        },
        error => Found::Later(error.to_string()),
    }
}
