//! What a configuration will do, in words, for `mailrail check`.

use super::{Auth, Config, ControlConfig};
use crate::privileges;
use rustix::process::{Resource, getrlimit};
use std::time::Duration;

/// Something worth saying about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// What it will do.
    Note(String),
    /// What may not be meant so.
    Warning(String),
}

/// What the server would do with this configuration, resolved defaults included.
#[must_use]
pub fn explain(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |text: String| found.push(Finding::Note(text));
    note(format!("hostname {}, {} shard(s), data in {}", config.hostname, config.shards, config.data_dir.display()));
    for listener in &config.listeners {
        let networks = listener.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let tls = match &listener.tls {
            Some(tls) if tls.implicit => ", TLS from the start",
            Some(_) => ", STARTTLS",
            None => ", no TLS",
        };
        let auth = match listener.auth {
            Auth::Off => "",
            Auth::Optional => ", and from anywhere with credentials",
            Auth::Required => ", with credentials only",
        };
        let account = &listener.account;
        note(format!("takes mail on {} from {networks}{tls}{auth}, as account {account}", listener.address));
    }
    note(format!("control socket {}{}", config.control.socket.display(), operators(&config.control)));
    if let Some(metrics) = config.control.metrics {
        note(format!("metrics at http://{metrics}/metrics"));
    }
    match config.dns.servers.as_slice() {
        [] => note("asks the system's name servers".into()),
        servers => note(format!("asks {}", servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
    }
    note(format!("takes mail while memory is below {} MiB", config.memory >> 20));
    for route in &config.routes {
        let hosts = route.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(", ");
        note(format!("mail for {} goes to {hosts}", route.domain));
    }
    let retry = &config.delivery.retry;
    note(format!(
        "delivers to port {}, up to {} connections per IP and site, tries again after {} growing to {}, gives up after {}",
        config.delivery.port,
        config.delivery.connections,
        period(retry.first),
        period(retry.max),
        period(config.delivery.max_age)
    ));
    found.extend(warnings(config).into_iter().map(Finding::Warning));
    found
}

/// As it is written in the file: the largest unit that fits exactly.
fn period(period: Duration) -> String {
    let ms = period.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = units.into_iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.listeners.is_empty() {
        warnings.push("no [[listener]]: nobody can submit mail".into());
    }
    if !config.hostname.contains('.') {
        warnings.push(format!("hostname \"{}\" is not fully qualified: receivers distrust it", config.hostname));
    }
    for listener in &config.listeners {
        if listener.allow.iter().any(|network| network.to_string().ends_with("/0")) {
            warnings.push(format!("listener {} takes mail from everybody: an open relay", listener.address));
        }
        if listener.allow.is_empty() {
            warnings.push(format!("listener {} allows nobody", listener.address));
        }
    }
    if config.control.metrics.is_some_and(|address| !address.ip().is_loopback()) {
        warnings.push("[control] metrics is not on loopback: anybody who reaches it can read it".into());
    }
    if config.delivery.allow_private {
        warnings.push("[delivery] allow_private: an MX record can point mail at this host's own network".into());
    }
    if let Some(limit) = getrlimit(Resource::Memlock).maximum {
        let need = privileges::MEMLOCK_PER_SHARD * u64::from(config.shards);
        if limit < need {
            warnings.push(format!(
                "memlock limit {} KiB is below {} KiB: start as root or raise it",
                limit >> 10,
                need >> 10
            ));
        }
    }
    warnings
}

/// Who may use the control socket besides root and the server's own user.
fn operators(control: &ControlConfig) -> String {
    let list = |what, numbers: &[u32]| {
        let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
        if numbers.is_empty() { String::new() } else { format!(", also for {what} {}", numbers.join(", ")) }
    };
    format!("{}{}", list("uid", &control.allow_uids), list("primary gid", &control.allow_gids))
}
