//! Where mail goes: MX by preference, the next host when one is dead, address fallback, routes, and domains that take none.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::{dns::Zone, model::Model};
use std::net::Ipv6Addr;

fn accepting(n: usize, zone: impl Fn(Zone) -> Zone) -> World {
    World::new((0..n).map(|_| Model::named("accept")).collect(), zone).started()
}

#[test]
fn the_lowest_preference_is_tried_first_and_the_next_when_it_is_dead() {
    let world = accepting(2, |zone| {
        zone.mx("one.test", 20, "mx2.test")
            .mx("one.test", 10, "mx1.test")
            .a("mx1.test", host(0))
            .a("mx2.test", host(1))
            .mx("dead.test", 10, "nobody.test")
            .mx("dead.test", 20, "mx2.test")
            .a("nobody.test", host(77))
    });
    for _ in 0..5 {
        world.submit(&["b@one.test"], MESSAGE);
    }
    world.deliveries(0, 5);
    assert_eq!(world.sinks[1].recipients(), 0);
    world.submit(&["b@dead.test"], MESSAGE);
    world.deliveries(1, 1);
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    let world = accepting(1, |zone| zone.a("plain.test", host(0)));
    world.submit(&["b@plain.test"], MESSAGE);
    world.deliveries(0, 1);
}

#[test]
fn ipv6_hosts_are_reached_from_ipv6_leases() {
    let mut world =
        accepting(0, |zone| zone.mx("six.test", 10, "mx.six.test").aaaa("mx.six.test", Ipv6Addr::LOCALHOST));
    let sink =
        mailrail_bench::sink::Sink::start(mailrail_bench::sink::SinkConfig::default().listen((Ipv6Addr::LOCALHOST, 0)));
    let Ok(sink) = sink else { return eprintln!("this host has no IPv6 loopback: nothing to test") };
    world.stop();
    world.port = sink.addr().port();
    world.configure(&[]);
    world.start();
    world.apply("[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"::1\"\nhelo = \"out6.sender.test\"\npool = \"main\"\n");
    world.submit(&["b@six.test"], MESSAGE);
    assert!(sink.wait_for_recipients(1, crate::world::PATIENCE), "{}", world.log());
}

#[test]
fn domains_that_take_no_mail_bounce_at_once_with_the_right_code() {
    let mut world = accepting(1, |zone| {
        zone.null_mx("null.test").mx("sender.test", 10, "mx.sender.test").a("mx.sender.test", host(0)).mx(
            "lost.test",
            10,
            "nowhere.test",
        )
    });
    for (recipient, status) in [("b@null.test", "5.1.10"), ("b@nxdomain.test", "5.1.2"), ("b@lost.test", "5.4.4")] {
        world.submit(&[recipient], MESSAGE);
        let bounce = world.event("Bounce", recipient);
        assert_eq!(bounce["status"], status, "{bounce}");
    }
    // The sender is told of each.
    assert_eq!(world.deliveries(0, 3).len(), 3);
    world.drained();
}

#[test]
fn a_domain_that_cannot_be_resolved_now_waits() {
    let mut world = accepting(1, |zone| zone.servfail("ill.test"));
    world.submit(&["b@ill.test"], MESSAGE);
    world.until("the failed question", |world| world.log().contains("MX of ill.test"));
    assert_eq!(world.json(&["status", "--json"])["queued"], 1);
    world.dns.update(|zone| {
        let healthy = std::mem::take(zone);
        *zone = healthy.mx("well.test", 10, "mx.well.test");
    });
    let rows = world.json(&["queue", "--json"]);
    assert_eq!(rows["rows"][0]["site"], "ill.test", "{rows}");
}

#[test]
fn private_hosts_are_refused_unless_allowed() {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("inside.test", 10, "mx.inside.test").a("mx.inside.test", host(0))
    });
    world.configure(&[("[delivery]", "allow_private = false")]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@inside.test", "b@[127.0.0.1]"], MESSAGE);
    for recipient in ["b@inside.test", "b@[127.0.0.1]"] {
        let bounce = world.event("Bounce", recipient);
        assert_eq!(bounce["status"], "5.4.4", "{bounce}");
    }
    assert_eq!(world.sinks[0].recipients(), 0);
}

#[test]
fn a_route_takes_the_place_of_the_dns() {
    let mut world = World::new(vec![Model::named("accept"), Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(1))
    });
    let smart = world.sinks[0].addr();
    world.configure(&[(
        "[[route]]",
        &format!("domain = \"*.corp.test\"\nhosts = [\"127.0.1.99:{0}\", \"{smart}\"]", smart.port()),
    )]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@a.corp.test", "b@one.test"], MESSAGE);
    assert_eq!(world.deliveries(0, 1)[0].recipients, ["b@a.corp.test"]);
    assert_eq!(world.deliveries(1, 1)[0].recipients, ["b@one.test"]);
}
