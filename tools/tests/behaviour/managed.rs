//! Managed pools through the real server: what leaves by an IP is counted at each provider apart, and earned by the day.

use crate::{
    warming::{SHARED, counts, sources},
    world::{MESSAGE, World, host},
};
use mailrail_bench::{dns::Zone, model::Model};
use serde_json::Value;

/// A managed pool with an IP on shard 0, whose ladder at the provider begins at five recipients a day.
const FLEET: &str = r#"
default_pool = "mine"
[[pool]]
name = "mine"
kind = "managed"
spread = "1s"
OVERFLOW
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "mine"
shard = 0
[[provider]]
name = "big"
mx = ["big.test"]
[provider.ladder]
start = 5
factor = 2.0
warm = 1000
"#;

fn fleet(overflow: &str, more: &str) -> String {
    let overflow = if overflow.is_empty() { String::new() } else { format!("overflow = \"{overflow}\"") };
    format!("{}{more}", FLEET.replace("OVERFLOW", &overflow))
}

fn world(fleet: &str) -> World {
    let zone = |zone: Zone| {
        zone.mx("one.test", 10, "mx.big.test")
            .a("mx.big.test", host(0))
            .mx("small.test", 10, "mx.small.test")
            .a("mx.small.test", host(0))
    };
    let mut world = World::new(vec![Model::named("accept")], zone);
    world.configure(&[]);
    world.start();
    world.apply(fleet);
    world
}

fn send(world: &World, to: &str, messages: usize) {
    let mut client = world.connect();
    for n in 0..messages {
        let reply = client.submit("a@sender.test", &[&format!("b{n}@{to}")], MESSAGE);
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

fn ladder(world: &World) -> Value {
    world.json(&["provider", "show", "big", "--json"])["ips"][0]["ladder"].clone()
}

#[test]
fn a_full_ladder_holds_mail_to_its_provider_and_no_other_through_a_crash() {
    let mut world = world(&fleet("defer", ""));
    send(&world, "one.test", 8);
    world.deliveries(0, 5);
    send(&world, "small.test", 4);
    world.deliveries(0, 9);
    world.until("three to wait", |world| ladder(world)["waiting"] == 3);
    let standing = ladder(&world);
    assert_eq!(
        (&standing["cap"], &standing["sent"], &standing["step"]),
        (&5.into(), &5.into(), &0.into()),
        "{standing}"
    );
    assert!(standing["opens"].as_u64().is_some(), "{standing}");
    let why = world.json(&["explain", "one.test", "--json"])["rows"][0].clone();
    let text = why["text"].as_str().unwrap();
    assert!(text.contains("ladder of 127.0.10.1 at big: 5 of 5 recipients of today, at step 0, are sent"), "{why}");
    assert_eq!((&why["cause"], &why["recipients"]), (&"warm-up".into(), &3.into()));
    assert!(why["nextTry"].as_u64().is_some(), "{why}");
    let others = world.json(&["provider", "show", "other", "--json"]);
    assert_eq!(
        (&others["ips"][0]["ladder"]["sent"], &others["ips"][0]["ladder"]["cap"]),
        (&4.into(), &50.into()),
        "{others}"
    );
    let shown = String::from_utf8_lossy(&world.cli(&["provider", "show", "big"]).stdout).into_owned();
    assert!(shown.contains("LADDER"), "{shown}");
    world.kill();
    world.start();
    world.until("the three to wait again", |world| ladder(world)["waiting"] == 3);
    assert_eq!(ladder(&world)["sent"], 5, "a crash gives nothing back");
    assert_eq!(world.sinks[0].recipients(), 9);
}

#[test]
fn early_excess_goes_by_the_shared_pool() {
    // A shared pool of any name.
    let other = format!("[[pool]]\nname = \"everyone\"\n{}", SHARED.replace("ses-shared-pool", "everyone"));
    for shared in [SHARED.to_owned(), other] {
        let world = world(&fleet("", &shared));
        send(&world, "one.test", 8);
        world.deliveries(0, 8);
        assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.2", 3)]), "{shared}");
    }
}

#[test]
fn a_ladder_goes_with_its_lease_to_another_shard() {
    let mut world = world(&fleet("defer", ""));
    send(&world, "one.test", 3);
    world.deliveries(0, 3);
    world.apply(&fleet("defer", "").replace("shard = 0", "shard = 1"));
    send(&world, "one.test", 4);
    world.deliveries(0, 5);
    world.until("two to wait there", |world| {
        let row = world.json(&["provider", "show", "big", "--json"]);
        row["ips"][0]["shard"] == 1 && row["ips"][0]["ladder"]["waiting"] == 2
    });
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5)]));
}

#[test]
fn a_dedicated_pool_made_managed_begins_where_its_plan_was() {
    let dedicated = fleet("defer", "").replace("\"managed\"", "\"dedicated\"\nplan = [20, 40]");
    let mut world = world(&dedicated);
    send(&world, "one.test", 2);
    world.deliveries(0, 2);
    world.apply(&fleet("defer", ""));
    send(&world, "one.test", 1);
    world.deliveries(0, 3);
    world.until("the ladder", |world| ladder(world)["cap"] == 20);
    assert_eq!(ladder(&world)["step"], 2);
}
