//! The world of the demo: senders with keys, a dozen recipient domains in a DNS of its own, and receivers that differ.

use crate::cmd::Failure;
use mailrail_bench::{
    dns::{DnsServer, Zone},
    load::RecipientDomain,
    model::{Greylist, Latency, Model, Models, Starttls},
    sink::{Sink, SinkConfig, Store, dkim::DkimKeys},
    tls::TlsIdentity,
};
use mailrail_engine::sign::SigningKey;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

/// Leased IPs: any address of 127.0.0.0/8 can be bound on Linux.
pub(super) const LEASES: [Ipv4Addr; 4] = [lease(1), lease(2), lease(3), lease(4)];
/// Senders: the first domain signs with RSA-2048, the second with Ed25519, the third with both.
pub(super) const SENDERS: [&str; 3] = ["news@acme.example", "shop@blue.example", "info@both.example"];
/// A host that nobody answers on.
const DEAD: Ipv4Addr = Ipv4Addr::new(127, 0, 20, 250);

const fn lease(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 10, n)
}

/// A receiver: its host, what it does, the domains it serves.
struct Receiver {
    model: Model,
    domains: &'static [&'static str],
    /// Share of all recipients.
    weight: f64,
    /// Share of recipients that it does not know.
    unknown: f64,
}

fn receivers() -> Vec<Receiver> {
    let model = |name: &str| Model { starttls: Starttls::None, ..Model::named(name) };
    let plain = |model, domains, weight| Receiver { model, domains, weight, unknown: 0.0 };
    vec![
        plain(model("accept"), &["amber.test", "birch.test", "cedar.test", "postmaster.test"], 4.0),
        plain(model("dead primary MX"), &["dune.test"], 1.0),
        plain(Model { greylist: Some(Greylist { retry_after_ms: 800 }), ..model("greylist") }, &["elm.test"], 1.0),
        plain(Model { close_after: Some(20), ..model("421 after 20") }, &["fern.test"], 1.0),
        plain(Model { connections_per_ip: Some(2), ..model("2 connections") }, &["grove.test"], 1.0),
        plain(
            Model { latency: Latency { greeting_ms: 50, reply_ms: 5, dot_ms: 40 }, ..model("slow") },
            &["heath.test"],
            0.5,
        ),
        Receiver {
            model: Model { unknown_users: vec!["unknown*".into()], ..model("unknown users") },
            domains: &["iris.test"],
            weight: 1.0,
            unknown: 0.3,
        },
        plain(Model { starttls: Starttls::Offered, ..model("STARTTLS") }, &["juniper.test"], 1.0),
    ]
}

/// Domains that take no mail: a null MX and one that does not exist.
const NOWHERE: [&str; 2] = ["null.test", "missing.test"];

/// See the module; everything ends when it is dropped.
pub(super) struct World {
    pub(super) dns: DnsServer,
    pub(super) sink: Sink,
    /// Remote port of all receivers.
    pub(super) port: u16,
    keys: Vec<(String, String, String)>,
}

impl World {
    /// Starts DNS and receivers.
    pub(super) fn start() -> Result<Self, Failure> {
        let keys = make_keys()?;
        let dns = DnsServer::start(Zone::new()).map_err(|why| failed("DNS", &why))?;
        let (sink, port) = start_sink(dns.addr())?;
        dns.replace(zone(&keys)?);
        Ok(Self { dns, sink, port, keys })
    }

    /// What the load is sent to.
    pub(super) fn recipients() -> Vec<RecipientDomain> {
        let of = |receiver: &Receiver| {
            let Receiver { domains, weight, unknown, .. } = *receiver;
            let share = weight / domains.len() as f64;
            domains.iter().map(move |domain| RecipientDomain { weight: share, unknown, ..RecipientDomain::new(domain) })
        };
        let receivers = receivers();
        let nowhere = NOWHERE.iter().map(|domain| RecipientDomain { weight: 0.1, ..RecipientDomain::new(domain) });
        receivers.iter().flat_map(of).chain(nowhere).collect()
    }

    /// Name and domains of each receiver, in order.
    pub(super) fn names() -> Vec<(String, String)> {
        receivers().into_iter().map(|receiver| (receiver.model.name, receiver.domains.join(" "))).collect()
    }

    /// Writes the server's configuration; returns its path.
    pub(super) fn configure(&self, directory: &Path) -> Result<std::path::PathBuf, Failure> {
        let path = directory.join("mailrail.toml");
        let (dns, port) = (self.dns.addr(), self.port);
        let text = format!(
            "hostname = \"mta.acme.example\"\ndata_dir = \"data\"\n\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\nallow = [\"127.0.0.0/8\"]\n\n\
             [dns]\nservers = [\"{dns}\"]\n\n\
             [delivery]\nport = {port}\nallow_private = true\nmax_age = \"30m\"\n\n\
             [delivery.retry]\nfirst = \"1s\"\nmax = \"5s\"\n\n\
             [delivery.site_backoff]\nfirst = \"250ms\"\nmax = \"2s\"\n\n\
             [spool]\nsegment_size = \"32MiB\"\n"
        );
        fs::write(&path, text).map_err(|why| failed("configuration", &why))?;
        Ok(path)
    }

    /// The fleet file: leased IPs and keys.
    pub(super) fn fleet(&self) -> String {
        let mut text = String::from("[[pool]]\nname = \"main\"\n");
        for (n, address) in (1..).zip(LEASES) {
            text += &format!("\n[[ip]]\naddress = \"{address}\"\nhelo = \"out{n}.acme.example\"\npool = \"main\"\n");
        }
        for (domain, selector, pem) in &self.keys {
            text += &format!(
                "\n[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey_pem = '''\n{}'''\n",
                pem.replace("\r\n", "\n")
            );
        }
        text
    }
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::Operation(format!("demo: {what}: {why}"))
}

/// Domain, selector and PEM of each key.
fn make_keys() -> Result<Vec<(String, String, String)>, Failure> {
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let rsa = rsa.map_err(|why| failed("RSA key", &why))?.serialize_pem();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|why| failed("Ed25519 key", &why))?;
    let ed25519 = ed25519.serialize_pem();
    let key = |domain: &str, selector: &str, pem: &str| (domain.to_owned(), selector.to_owned(), pem.to_owned());
    Ok(vec![
        key("acme.example", "rsa", &rsa),
        key("blue.example", "ed", &ed25519),
        key("both.example", "rsa", &rsa),
        key("both.example", "ed", &ed25519),
    ])
}

fn zone(keys: &[(String, String, String)]) -> Result<Zone, Failure> {
    let mut zone = Zone::new().ttl(300);
    for (n, receiver) in receivers().iter().enumerate() {
        for domain in receiver.domains {
            zone = match *domain {
                // Two MX sets that are one site, and one with a dead primary.
                "amber.test" | "birch.test" | "cedar.test" => {
                    zone.mx(domain, 10, "mx1.box.test").mx(domain, 10, "mx2.box.test")
                }
                "dune.test" => zone.mx(domain, 10, "dead.dune.test").mx(domain, 20, "mx.dune.test"),
                _ => zone.mx(domain, 10, &format!("mx.{domain}")),
            };
            zone = zone.a(&format!("mx.{domain}"), address(n));
        }
    }
    zone =
        zone.a("mx1.box.test", address(0)).a("mx2.box.test", address(0)).a("dead.dune.test", DEAD).null_mx(NOWHERE[0]);
    // Where DSNs go: the senders' own domains.
    for sender in SENDERS {
        let domain = sender.rsplit('@').next().unwrap_or(sender);
        zone = zone.mx(domain, 10, "mx.postmaster.test");
    }
    for (domain, selector, pem) in keys {
        let key = SigningKey::from_pem(pem.as_bytes()).map_err(|why| failed("key", &why))?;
        zone = zone.txt(&format!("{selector}._domainkey.{domain}"), &key.dns_record());
    }
    Ok(zone)
}

/// Address of the n-th receiver.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 20, n as u8 + 1)
}

/// One sink for all receivers, on one port that is free on each of their addresses.
fn start_sink(dns: SocketAddr) -> Result<(Sink, u16), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["mx.juniper.test".to_owned()]);
    let made = made.map_err(|why| failed("certificate", &why))?;
    let identity = TlsIdentity { cert_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() };
    let mut last = String::new();
    for _ in 0..50 {
        let free = std::net::TcpListener::bind((address(0), 0)).and_then(|socket| socket.local_addr());
        let port = free.map_err(|why| failed("receivers", &why))?.port();
        let mut config = SinkConfig {
            hostname: "mx.test".into(),
            store: Store::Counts,
            tls: Some(identity.clone()),
            dkim: Some(DkimKeys::Dns(dns)),
            models: Models::default(),
            ..SinkConfig::default()
        };
        for (n, receiver) in receivers().into_iter().enumerate() {
            for domain in receiver.domains {
                config.models = config.models.domain(domain, receiver.model.clone());
            }
            config = config.listen_as((IpAddr::V4(address(n)), port), receiver.model);
        }
        match Sink::start(config) {
            Ok(sink) => return Ok((sink, port)),
            Err(why) => last = why.to_string(),
        }
    }
    Err(failed("receivers", &last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_whole() {
        let world = World::start().unwrap();
        let domains = World::recipients();
        assert!(domains.len() >= 12, "{domains:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = world.configure(directory.path()).unwrap();
        mailrail_engine::config::Config::load(&path).unwrap();
        assert_eq!(world.fleet().matches("[[ip]]").count(), 4);
    }
}
