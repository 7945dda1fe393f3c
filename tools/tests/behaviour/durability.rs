//! 250 means durable: what was accepted survives SIGKILL, a clean stop, and a change of shards.

use crate::world::{FLEET, MESSAGE, World, fleet_of_one, host};
use mailrail_bench::model::{Failure, Model, Stage};

/// Messages of a lease that moves.
const MOVED: u64 = 300;

fn busy() -> Model {
    let later = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 later".into() };
    Model { failures: vec![later], ..Model::named("busy") }
}

/// Two receivers: the first always says later, the second takes all. `one.test` is moved from one to the other.
fn world() -> World {
    World::new(vec![busy(), Model::named("accept")], |zone| {
        zone.ttl(1).mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    })
    .started()
}

fn recover(world: &World) {
    world.dns.update(|zone| {
        zone.remove("mx.one.test");
        *zone = std::mem::take(zone).a("mx.one.test", host(1));
    });
}

#[test]
fn what_was_answered_250_survives_sigkill() {
    let mut world = world();
    let mut client = world.connect();
    for n in 0..40 {
        assert!(client.submit("a@sender.test", &[&format!("b{n}@one.test")], MESSAGE).starts_with("250"));
    }
    world.kill();
    recover(&world);
    world.start();
    world.deliveries(1, 40);
    world.drained();
    assert_eq!(world.sinks[1].recipients(), 40, "each once");
    let sends = world.events().iter().filter(|event| event["eventType"] == "Send").count();
    assert!(sends >= 40, "acceptance is told, though the server was killed before it could: {sends}");
}

#[test]
fn sigterm_gives_back_what_is_in_flight_and_exits_0() {
    let mut world = world();
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Attempt", "b@one.test");
    world.stop();
    assert!(!world.path("data/control.sock").exists(), "the socket is removed");
    recover(&world);
    world.start();
    let delivery = world.event("Delivery", "b@one.test");
    assert!(delivery["attempt"].as_u64() >= Some(2), "attempts are remembered: {delivery}");
}

#[test]
fn fewer_shards_take_over_the_mail_of_those_that_are_gone() {
    let mut world = world();
    for n in 0..20 {
        world.submit(&[&format!("b{n}@one.test")], MESSAGE);
    }
    let used =
        world.json(&["status", "--json"])["shards"].as_array().unwrap().iter().filter(|s| s["queued"] != 0).count();
    assert_eq!(used, 2, "both shards have mail");
    world.stop();
    recover(&world);
    world.configure(&[("", "shards = 1")]);
    world.start();
    world.deliveries(1, 20);
    world.drained();
    assert_eq!(world.sinks[1].recipients(), 20);
    let sends = world.events().iter().filter(|event| event["eventType"] == "Send").count();
    assert_eq!(sends, 20, "a message that moved is not told as accepted twice");
}

#[test]
fn mail_waits_for_a_leased_ip() {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[]);
    world.start();
    for n in 0..6 {
        world.submit(&[&format!("b{n}@one.test")], MESSAGE);
    }
    assert_eq!(world.json(&["status", "--json"])["queued"], 6);
    world.apply(FLEET);
    world.deliveries(0, 6);
    world.drained();
}

#[test]
fn mail_of_a_lease_that_is_taken_away_goes_by_another() {
    let mut world = world();
    for n in 0..10 {
        world.submit(&[&format!("b{n}@one.test")], MESSAGE);
    }
    for n in 0..10 {
        world.event("Attempt", &format!("b{n}@one.test"));
    }
    let only = FLEET
        .replace("[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.sender.test\"\npool = \"main\"\nshard = 0\n", "");
    assert!(only.len() < FLEET.len());
    world.apply(&only);
    recover(&world);
    let copies = world.deliveries(1, 10);
    assert!(copies.iter().all(|copy| copy.source.to_string() == "127.0.10.2"), "{copies:?}");
    world.drained();
    assert_eq!(world.sinks[1].recipients(), 10, "each once, though some moved to another shard");
}

/// Nothing of the lease's was in a lane of it yet: each was still to learn where it goes.
#[test]
fn mail_whose_lease_moves_before_its_domain_is_resolved_goes_by_the_new_owner() {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        let late = std::time::Duration::from_secs(3);
        zone.mx("one.test", 10, "mx.one.test").delay("one.test", late).a("mx.one.test", host(0))
    })
    .started();
    let only = fleet_of_one();
    world.apply(&only);
    for n in 0..4 {
        world.submit(&[&format!("b{n}@one.test")], MESSAGE);
    }
    world.apply(&only.replace("shard = 0", "shard = 1"));
    world.deliveries(0, 4);
    world.drained();
    assert_eq!(world.sinks[0].recipients(), 4, "each once");
}

/// A sync at the new owner does for many messages: one each, and a long queue would be on its way for hours.
#[test]
fn the_mail_of_a_lease_that_moves_to_another_shard_shares_syncs_there() {
    let mut world = world();
    let only = fleet_of_one();
    world.apply(&only);
    let mut client = world.connect();
    client.ask("EHLO client.test");
    for n in 0..MOVED {
        client.submit("a@sender.test", &[&format!("b{n}@one.test")], MESSAGE);
    }
    let of_second = |world: &World, what: &str| world.json(&["status", "--json"])["shards"][1][what].as_u64().unwrap();
    let before = of_second(&world, "syncs");
    world.apply(&only.replace("shard = 0", "shard = 1"));
    world.until("all of it is at the second shard", |world| of_second(world, "queued") == MOVED);
    let syncs = of_second(&world, "syncs") - before;
    assert!(syncs < MOVED / 4, "{syncs} syncs for {MOVED} messages");
    recover(&world);
    world.deliveries(1, MOVED as usize);
    world.drained();
    assert_eq!(world.sinks[1].recipients(), MOVED, "each once");
}

/// Connections that a killed server leaves behind linger for a minute; its successor must not wait for them.
#[test]
fn a_killed_server_starts_again_at_once_on_the_same_port() {
    let mut world = world();
    let listener = world.listener(0);
    world.stop();
    world.configure(&[("[[listener]]", &format!("address = \"{listener}\""))]);
    world.start();
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..5).map(|_| world.connect()).collect();
        clients.iter_mut().for_each(|client| assert!(client.ask("EHLO client.test").starts_with("250")));
        world.kill();
        world.start();
    }
    assert_eq!(world.listener(0), listener);
}
