//! The resolver against a DNS of its own on loopback.

use super::{dns::Found, site::*, *};
use crate::{
    control::tests::config,
    link::{self, MxHost, ShardLink},
};
use hickory_resolver::proto::rr::RecordType;
use mailrail_bench::dns::{DnsServer, Zone};
use std::{net::IpAddr, path::Path, time::Duration};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn a(n: u8) -> std::net::Ipv4Addr {
    [192, 0, 2, n].into()
}

fn sites(dns: &DnsServer, more: &str) -> Sites {
    let text = format!("[dns]\nservers = [\"{}\"]\ntimeout = \"300ms\"\n{more}", dns.addr());
    let mut sites = Sites::new(config(Path::new("/nonexistent"), &text)).unwrap();
    // The host that runs the tests may have any of their addresses.
    sites.is_own = |_| false;
    sites
}

async fn resolve(zone: Zone, more: &str, domain: &str) -> SiteAnswer {
    let dns = DnsServer::start(zone).unwrap();
    sites(&dns, more).resolve(domain).await
}

fn hosts(answer: SiteAnswer) -> (Vec<MxHost>, Duration, bool) {
    match answer {
        SiteAnswer::Hosts { hosts, ttl, routed } => (hosts.to_vec(), ttl, routed),
        other => panic!("{other:?}"),
    }
}

fn host(preference: u16, name: &str, addresses: &[&str]) -> MxHost {
    MxHost { preference, name: name.into(), addresses: addresses.iter().map(|text| ip(text)).collect(), port: 25 }
}

#[tokio::test]
async fn mail_hosts_come_by_preference_with_all_their_addresses() {
    let zone = Zone::new()
        .mx("a.test", 20, "Back.a.test")
        .mx("a.test", 10, "two.a.test")
        .mx("a.test", 10, "one.a.test")
        .mx("a.test", 30, "one.a.test")
        .a("one.a.test", a(1))
        .aaaa("one.a.test", "2001:db8::1".parse().unwrap())
        .cname("two.a.test", "real.b.test")
        .a("real.b.test", a(2))
        .a("back.a.test", a(3));
    let (hosts, ttl, routed) = hosts(resolve(zone, "", "a.test").await);
    let expected = [
        host(10, "one.a.test", &["192.0.2.1", "2001:db8::1"]),
        host(10, "two.a.test", &["192.0.2.2"]),
        host(20, "back.a.test", &["192.0.2.3"]),
    ];
    assert_eq!(hosts, expected);
    assert!(!routed && ttl <= Duration::from_secs(60) && ttl > Duration::from_secs(5), "{ttl:?}");
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_host() {
    let (hosts, ..) = hosts(resolve(Zone::new().a("bare.test", a(9)), "", "bare.test").await);
    assert_eq!(hosts, [host(0, "bare.test", &["192.0.2.9"])]);
}

#[tokio::test]
async fn an_address_literal_needs_no_dns() {
    let zone = Zone::new();
    let (found, ..) = hosts(resolve(zone.clone(), "", "[192.0.2.1]").await);
    assert_eq!(found, [host(0, "[192.0.2.1]", &["192.0.2.1"])]);
    let (found, ..) = hosts(resolve(zone, "", "[IPv6:2001:db8::1]").await);
    assert_eq!(found, [host(0, "[IPv6:2001:db8::1]", &["2001:db8::1"])]);
}

#[tokio::test]
async fn what_cannot_be_delivered_says_why_and_for_how_long() {
    let zone = Zone::new()
        .ttl(86_400)
        .null_mx("null.test")
        .txt("text.test", "no mail here")
        .mx("lost.test", 10, "mx.lost.test")
        .mx("literal.test", 10, "192.0.2.1")
        .mx("inside.test", 10, "mx.inside.test")
        .a("mx.inside.test", [10, 0, 0, 1].into())
        .a("mx.inside.test", [127, 0, 0, 1].into())
        .a("local.test", [169, 254, 169, 254].into());
    let dns = DnsServer::start(zone).unwrap();
    let sites = sites(&dns, "");
    let cases = [
        ("null.test", "5.1.10", "takes no mail"),
        ("nowhere.test", "5.1.2", "does not exist"),
        ("text.test", "5.1.2", "neither MX nor address"),
        ("lost.test", "5.4.4", "have no addresses"),
        ("literal.test", "5.4.4", "name no host"),
        ("inside.test", "5.4.4", "only private or local"),
        ("local.test", "5.4.4", "only private or local"),
        ("[127.0.0.1]", "5.4.4", "only private or local"),
        ("[nonsense]", "5.1.3", "no address literal"),
    ];
    for (domain, code, words) in cases {
        match sites.resolve(domain).await {
            SiteAnswer::Never { status, text, ttl } => {
                assert_eq!((status, text.contains(words)), (code, true), "{domain}: {text}");
                assert!(ttl <= TTL_NEVER && ttl >= TTL.0, "{domain}: {ttl:?}");
            }
            other => panic!("{domain}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_known_now_is_asked_again_later() {
    let zone = Zone::new()
        .servfail("ill.test")
        .refused("shut.test")
        .timeout("silent.test")
        .mx("half.test", 10, "mx1.half.test")
        .mx("half.test", 20, "mx2.half.test")
        .servfail("mx1.half.test")
        .txt("mx2.half.test", "there, but without address");
    let dns = DnsServer::start(zone).unwrap();
    let sites = sites(&dns, "");
    for domain in ["ill.test", "shut.test", "silent.test", "half.test"] {
        match sites.resolve(domain).await {
            SiteAnswer::Later { text } => assert!(text.contains(domain), "{text}"),
            other => panic!("{domain}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_looked_up_stays_without_addresses() {
    let zone = Zone::new()
        .mx("some.test", 10, "ill.some.test")
        .mx("some.test", 20, "well.some.test")
        .servfail("ill.some.test")
        .a("well.some.test", a(1));
    let (hosts, ..) = hosts(resolve(zone, "", "some.test").await);
    assert_eq!(hosts, [host(10, "ill.some.test", &[]), host(20, "well.some.test", &["192.0.2.1"])]);
}

#[tokio::test]
async fn private_addresses_are_left_out_unless_allowed() {
    let zone = Zone::new()
        .mx("mixed.test", 10, "mx.mixed.test")
        .a("mx.mixed.test", [10, 1, 1, 1].into())
        .a("mx.mixed.test", a(1));
    let (found, ..) = hosts(resolve(zone.clone(), "", "mixed.test").await);
    assert_eq!(found[0].addresses, [ip("192.0.2.1")]);
    let (found, ..) = hosts(resolve(zone, "[delivery]\nallow_private = true\nport = 2525\n", "mixed.test").await);
    assert_eq!((found[0].addresses.len(), found[0].port), (2, 2525));
}

#[tokio::test]
async fn this_host_ends_the_list_of_better_ones() {
    let dns = DnsServer::start(Zone::new()).unwrap();
    let mut sites = sites(&dns, "");
    sites.is_own = |address| address == ip("192.0.2.7");
    let known = |preference, name: &str, address: &str| {
        (preference, name.to_owned(), Found::Some(vec![ip(address)], Duration::from_secs(60)))
    };
    let all = vec![
        known(10, "best", "192.0.2.1"),
        known(20, "equal", "192.0.2.2"),
        known(20, "self", "192.0.2.7"),
        known(30, "worse", "192.0.2.3"),
    ];
    let (found, ..) = hosts(sites.site("ours.test", all, TTL.1));
    assert_eq!(found, [host(10, "best", &["192.0.2.1"])]);
    let alone = vec![known(10, "self", "192.0.2.7"), known(20, "worse", "192.0.2.3")];
    match sites.site("ours.test", alone, TTL.1) {
        SiteAnswer::Never { status: "5.4.4", text, .. } => assert!(text.contains("this host is its best"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let mut zone = Zone::new().ttl(86_400);
    for n in 0..40 {
        zone = zone.mx("big.test", n, &format!("mx{n}.big.test"));
        zone = (0..20).fold(zone, |zone, m| zone.a(&format!("mx{n}.big.test"), [198, 51, n as u8, m].into()));
    }
    let (found, ttl, _) = hosts(resolve(zone, "", "big.test").await);
    assert!(found.len() == HOSTS && ttl <= TTL.1 && ttl > TTL.1 - Duration::from_secs(60), "{ttl:?}");
    assert!(found.iter().all(|host| host.addresses.len() == ADDRESSES));
    let brief = Zone::new().ttl(1).mx("brief.test", 1, "mx.brief.test").a("mx.brief.test", a(1));
    assert_eq!(hosts(resolve(brief, "", "brief.test").await).1, TTL.0);
}

#[tokio::test]
async fn routes_go_before_the_dns_and_are_taken_at_their_word() {
    let routes = "\
        [[route]]\ndomain = \"*\"\nhosts = [\"127.0.0.1:1\"]\n\
        [[route]]\ndomain = \"*.example.test\"\nhosts = [\"smart.test:2525\", \"lost.test\", \"192.0.2.4\"]\n\
        [[route]]\ndomain = \"*.deep.example.test\"\nhosts = [\"127.0.0.1:3\"]\n\
        [[route]]\ndomain = \"one.example.test\"\nhosts = [\"127.0.0.1:4\"]\n\
        [[route]]\ndomain = \"gone.test\"\nhosts = [\"lost.test\"]\n";
    let dns = DnsServer::start(Zone::new().a("smart.test", [10, 0, 0, 1].into())).unwrap();
    let sites = sites(&dns, routes);
    for (domain, port) in [
        ("anything.test", 1),
        ("example.test", 1),
        ("[192.0.2.1]", 1),
        ("a.example.test", 2525),
        ("deep.example.test", 2525),
        ("a.deep.example.test", 3),
        ("one.example.test", 4),
    ] {
        let (found, _, routed) = hosts(sites.resolve(domain).await);
        assert_eq!((found[0].port, routed), (port, true), "{domain}");
    }
    let (found, ..) = hosts(sites.resolve("a.example.test").await);
    let smart = MxHost { port: 2525, ..host(0, "smart.test", &["10.0.0.1"]) };
    assert_eq!(found, [smart, host(1, "lost.test", &[]), host(2, "192.0.2.4", &["192.0.2.4"])]);
    match sites.resolve("gone.test").await {
        SiteAnswer::Later { text } => assert!(text.contains("lost.test has no address"), "{text}"),
        other => panic!("a smart host that is missing must not bounce mail: {other:?}"),
    }
}

fn resolver(dns: &DnsServer) -> (Resolver, Vec<ShardLink>) {
    let (control, shards) = link::link(2);
    let text = format!("[dns]\nservers = [\"{}\"]\n", dns.addr());
    let post = Arc::new(Post::new(control.commands));
    let mut resolver = Resolver::new(config(Path::new("/nonexistent"), &text), post).unwrap();
    resolver.sites.is_own = |_| false;
    (resolver, shards)
}

async fn answer(shard: &mut ShardLink) -> (Box<str>, SiteAnswer) {
    match shard.commands.recv().await {
        Some(Command::Resolved { domain, answer }) => (domain, answer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn shards_that_ask_for_one_domain_share_one_question() {
    let zone = Zone::new().mx("one.test", 10, "mx.one.test").a("mx.one.test", a(1));
    let dns = DnsServer::start(zone).unwrap();
    let (resolver, mut shards) = resolver(&dns);
    let resolver = Arc::new(resolver);
    for shard in [0, 1, 1] {
        resolver.ask(shard, "one.test".into());
    }
    for shard in &mut shards {
        let (domain, answer) = answer(shard).await;
        assert_eq!((&*domain, hosts(answer).0.len()), ("one.test", 1));
        assert!(shard.commands.try_recv().is_err(), "one answer is enough");
    }
    assert_eq!(dns.queries_for("one.test", RecordType::MX), 1);
    let status = resolver.status();
    assert_eq!((status.questions, status.coalesced, status.running, status.waiting), (3, 2, 0, 0));
}

#[tokio::test]
async fn a_question_too_many_is_answered_later_at_once() {
    let dns = DnsServer::start(Zone::new().timeout("slow.test").a("quick.test", a(1))).unwrap();
    let (mut resolver, mut shards) = resolver(&dns);
    resolver.room = 1;
    let resolver = Arc::new(resolver);
    resolver.ask(0, "slow.test".into());
    resolver.ask(0, "quick.test".into());
    let (domain, answer) = answer(&mut shards[0]).await;
    assert_eq!(&*domain, "quick.test");
    assert!(matches!(answer, SiteAnswer::Later { .. }), "{answer:?}");
    assert_eq!((resolver.status().later, resolver.status().running + resolver.status().waiting), (1, 1));
}

/// However many domains have name servers that do not answer, the others are not made to wait for them.
#[tokio::test]
async fn slow_domains_make_room_for_others() {
    let silent = (0..RUNNING + 50).map(|n| format!("silent{n}.test"));
    let zone = silent.clone().fold(Zone::new().a("quick.test", a(1)), |zone, name| zone.timeout(&name));
    let dns = DnsServer::start(zone).unwrap();
    let (resolver, mut shards) = resolver(&dns);
    let resolver = Arc::new(resolver);
    for domain in silent {
        resolver.ask(0, domain.into());
    }
    resolver.ask(0, "quick.test".into());
    let (domain, answer) = answer(&mut shards[0]).await;
    assert_eq!(&*domain, "quick.test", "{answer:?}");
    assert!(matches!(answer, SiteAnswer::Hosts { .. }), "{answer:?}");
    assert_eq!(resolver.status().later, 0);
}

/// A loop ends in a reason.
#[tokio::test]
async fn names_that_point_in_a_circle_end() {
    let looping = Zone::new()
        .cname("loop.test", "pool.test")
        .cname("pool.test", "loop.test")
        .cname("self.test", "self.test")
        .mx("far.test", 10, "loop.test");
    for domain in ["loop.test", "self.test", "far.test"] {
        let answer = resolve(looping.clone(), "", domain).await;
        assert!(!matches!(answer, SiteAnswer::Hosts { .. }), "{domain}: {answer:?}");
    }
}

#[tokio::test]
async fn reverse_dns_fits_when_pointer_and_address_agree() {
    let zone = Zone::new()
        .ptr(ip("192.0.2.1"), "Out1.a.test")
        .a("out1.a.test", a(1))
        .ptr(ip("192.0.2.2"), "other.a.test")
        .ptr(ip("192.0.2.3"), "out3.a.test")
        .a("out3.a.test", a(9))
        .ptr(ip("192.0.2.4"), "out4.a.test")
        .ptr(ip("2001:db8::5"), "out5.a.test")
        .aaaa("out5.a.test", "2001:db8::5".parse().unwrap());
    let dns = DnsServer::start(zone).unwrap();
    let sites = sites(&dns, "");
    for (address, helo, wrong) in [
        ("192.0.2.1", "out1.a.test", None),
        ("192.0.2.2", "out2.a.test", Some("its PTR record names other.a.test, not out2.a.test")),
        ("192.0.2.3", "out3.a.test", Some("out3.a.test has other addresses than this one")),
        ("192.0.2.4", "out4.a.test", Some("out4.a.test has no address")),
        ("2001:db8::5", "out5.a.test", None),
        ("192.0.2.6", "out6.a.test", Some("it has no PTR record; receivers expect one that names out6.a.test")),
        ("127.0.0.9", "out7.a.test", None),
    ] {
        assert_eq!(sites.reverse(ip(address), helo).await.as_deref(), wrong, "{address}");
    }
}
