//! The world of the demo and of torture: senders with keys, a dozen recipient domains in a DNS of its own, and receivers that differ.

use crate::cmd::Failure;
use mailrail_bench::{
    dns::{DnsServer, Zone},
    load::RecipientDomain,
    model::{Failure as Refusal, Fault, FaultKind, Greylist, Latency, Model, Models, Stage, Starttls},
    sink::{Delivery, Observer, Sink, SinkConfig, Store, dkim::DkimKeys},
    tls::TlsIdentity,
};
use mailrail_engine::sign::SigningKey;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

/// Leased IPs: any address of 127.0.0.0/8 can be bound on Linux.
pub(in crate::cmd) const LEASES: [Ipv4Addr; 4] = [lease(1), lease(2), lease(3), lease(4)];
/// Senders: the first domain signs with RSA-2048, the second with Ed25519, the third with both.
pub(in crate::cmd) const SENDERS: [&str; 3] = ["news@acme.example", "shop@blue.example", "info@both.example"];
const SENDERS_DOMAINS: [&str; 3] = ["acme.example", "blue.example", "both.example"];
/// Model of the receiver that gets the DSNs of a rough world.
pub(in crate::cmd) const SENDERS_MODEL: &str = "the senders' own";
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

fn model(name: &str) -> Model {
    Model { starttls: Starttls::None, ..Model::named(name) }
}

fn plain(model: Model, domains: &'static [&'static str], weight: f64) -> Receiver {
    Receiver { model, domains, weight, unknown: 0.0 }
}

fn receivers() -> Vec<Receiver> {
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

/// Those of a world where nothing can be relied on, and the senders' own receiver, which gets their DSNs.
fn rough_receivers() -> Vec<Receiver> {
    let taken = Fault { kind: FaultKind::TakeAndDrop, at: Stage::Dot, ratio: 0.03, times: None };
    let dropped = Fault { kind: FaultKind::Drop, at: Stage::Dot, ratio: 0.05, times: None };
    let busy = Refusal { at: Stage::Rcpt, ratio: 0.2, reply: "452 4.2.2 Mailbox is busy".into() };
    // Rare: a provider that is suspended for it is suspended for longer each time that it comes back soon.
    let moody = Refusal { at: Stage::Mail, ratio: 0.005, reply: "421 4.7.28 Unusual rate of mail".into() };
    // Always: what is taken once and refused the next time would be both delivered and bounced.
    let refuses = Refusal { at: Stage::Dot, ratio: 1.0, reply: "554 5.7.1 Message refused by policy".into() };
    let mut all = receivers();
    all.extend([
        plain(Model { faults: vec![taken], ..model("takes and drops") }, &["kestrel.test"], 0.5),
        plain(Model { faults: vec![dropped], failures: vec![moody], ..model("drops") }, &["lark.test"], 0.5),
        plain(Model { failures: vec![busy], ..model("busy") }, &["magpie.test"], 1.0),
        plain(Model { failures: vec![refuses], ..model("refuses") }, &["nuthatch.test"], 0.2),
        plain(model(SENDERS_MODEL), &SENDERS_DOMAINS, 0.0),
    ]);
    all
}

/// Domains that take no mail: a null MX and one that does not exist.
const NOWHERE: [&str; 2] = ["null.test", "missing.test"];

/// See the module; everything ends when it is dropped.
pub(in crate::cmd) struct World {
    pub(in crate::cmd) dns: DnsServer,
    pub(in crate::cmd) sink: Sink,
    /// Remote port of all receivers.
    pub(in crate::cmd) port: u16,
    receivers: Vec<Receiver>,
    keys: Vec<(String, String, String)>,
}

impl World {
    /// Starts DNS and receivers.
    pub(in crate::cmd) fn start() -> Result<Self, Failure> {
        Self::with(receivers(), SinkConfig::default())
    }

    /// A rough one; the sink watches these source IPs, and tells of every DSN.
    pub(in crate::cmd) fn rough(
        watched: Vec<IpAddr>,
        tell: Arc<dyn Fn(&Delivery) + Send + Sync>,
    ) -> Result<Self, Failure> {
        let observer = Some(Observer { model: SENDERS_MODEL.into(), tell });
        Self::with(rough_receivers(), SinkConfig { observer, watched, ..SinkConfig::default() })
    }

    fn with(receivers: Vec<Receiver>, sink: SinkConfig) -> Result<Self, Failure> {
        let keys = make_keys()?;
        let dns = DnsServer::start(Zone::new()).map_err(|why| failed("DNS", &why))?;
        let (sink, port) = start_sink(dns.addr(), &receivers, &sink)?;
        dns.replace(zone(&keys, &receivers)?);
        Ok(Self { dns, sink, port, receivers, keys })
    }

    /// The domains of a rough world whose mail may be put off or ended at will: that of no sender.
    pub(in crate::cmd) fn domains(&self) -> Vec<&'static str> {
        let receivers = self.receivers.iter().filter(|receiver| receiver.weight > 0.0);
        receivers.flat_map(|receiver| receiver.domains).copied().collect()
    }

    /// What the load is sent to.
    pub(in crate::cmd) fn recipients(&self) -> Vec<RecipientDomain> {
        let of = |receiver: &Receiver| {
            let Receiver { domains, weight, unknown, .. } = *receiver;
            let share = weight / domains.len() as f64;
            domains.iter().map(move |domain| RecipientDomain { weight: share, unknown, ..RecipientDomain::new(domain) })
        };
        let nowhere = NOWHERE.iter().map(|domain| RecipientDomain { weight: 0.1, ..RecipientDomain::new(domain) });
        self.receivers.iter().filter(|receiver| receiver.weight > 0.0).flat_map(of).chain(nowhere).collect()
    }

    /// Name and domains of each receiver, in order.
    pub(in crate::cmd) fn names(&self) -> Vec<(String, String)> {
        self.receivers.iter().map(|receiver| (receiver.model.name.clone(), receiver.domains.join(" "))).collect()
    }

    /// Writes the server's configuration, with a listener at that port (0: any), so many shards (0: the default) and `more`
    /// tables; returns its path.
    pub(in crate::cmd) fn configure(
        &self,
        directory: &Path,
        listener: u16,
        shards: u16,
        more: &str,
    ) -> Result<std::path::PathBuf, Failure> {
        let path = directory.join("mailrail.toml");
        let (dns, port) = (self.dns.addr(), self.port);
        let shards = if shards == 0 { String::new() } else { format!("shards = {shards}\n") };
        let text = format!(
            "hostname = \"mta.acme.example\"\n{shards}data_dir = \"data\"\n\n\
             [[listener]]\naddress = \"127.0.0.1:{listener}\"\nallow = [\"127.0.0.0/8\"]\n\n\
             [dns]\nservers = [\"{dns}\"]\n\n\
             [delivery]\nport = {port}\nallow_private = true\nmax_age = \"30m\"\n\n\
             [delivery.retry]\nfirst = \"1s\"\nmax = \"5s\"\n\n\
             [delivery.site_backoff]\nfirst = \"250ms\"\nmax = \"2s\"\n\n\
             [spool]\nsegment_size = \"32MiB\"\n{more}"
        );
        fs::write(&path, text).map_err(|why| failed("configuration", &why))?;
        Ok(path)
    }

    /// The fleet file: leased IPs and keys.
    pub(in crate::cmd) fn fleet(&self) -> String {
        let mut text = String::from("[[pool]]\nname = \"main\"\n");
        let lease = |(n, address): (u32, Ipv4Addr)| {
            format!("\n[[ip]]\naddress = \"{address}\"\nhelo = \"out{n}.acme.example\"\npool = \"main\"\n")
        };
        text.extend((1..).zip(LEASES).map(lease));
        text += &self.signing();
        text
    }

    /// `[[dkim]]` of the fleet file.
    pub(in crate::cmd) fn signing(&self) -> String {
        let mut text = String::new();
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

fn zone(keys: &[(String, String, String)], receivers: &[Receiver]) -> Result<Zone, Failure> {
    let mut zone = Zone::new().ttl(300);
    for (n, receiver) in receivers.iter().enumerate() {
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
    // Where DSNs go: the senders' own domains, if they have no receiver of their own.
    let own = |domain: &&str| receivers.iter().any(|receiver| receiver.domains.contains(domain));
    for domain in SENDERS_DOMAINS.iter().filter(|domain| !own(domain)) {
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
fn start_sink(dns: SocketAddr, receivers: &[Receiver], sink: &SinkConfig) -> Result<(Sink, u16), Failure> {
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
            ..sink.clone()
        };
        for (n, receiver) in receivers.iter().enumerate() {
            for domain in receiver.domains {
                config.models = config.models.domain(domain, receiver.model.clone());
            }
            config = config.listen_as((IpAddr::V4(address(n)), port), receiver.model.clone());
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
        let domains = world.recipients();
        assert!(domains.len() >= 12, "{domains:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = world.configure(directory.path(), 0, 0, "").unwrap();
        mailrail_engine::config::Config::load(&path).unwrap();
        assert_eq!(world.fleet().matches("[[ip]]").count(), 4);
    }
}
