//! Warm-up through the real server: what leaves by an IP that warms up, and where the rest goes. Plans of a few recipients a
//! day, all of which may go within a second.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::{dns::Zone, model::Model};
use serde_json::Value;
use std::collections::BTreeMap;

/// An IP that warms up, on shard 0: five recipients today.
const COLD: &str = r#"
[[pool]]
name = "mine"
kind = "dedicated"
plan = [5, 10]
spread = "1s"
OVERFLOW
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "mine"
shard = 0
"#;

/// A shared IP on shard 1.
pub const SHARED: &str = r#"
[[ip]]
address = "127.0.10.2"
helo = "out2.sender.test"
pool = "ses-shared-pool"
shard = 1
"#;

/// Another IP of the same account on shard 1, that is warm.
pub const WARM: &str = r#"
[[pool]]
name = "proven"
kind = "dedicated"
[[ip]]
address = "127.0.10.3"
helo = "out3.sender.test"
pool = "proven"
shard = 1
warm = true
reason = "moved here from another host"
"#;

pub fn fleet(overflow: &str, more: &[&str]) -> String {
    let overflow = if overflow.is_empty() { String::new() } else { format!("overflow = \"{overflow}\"") };
    format!("default_pool = \"mine\"\n{}{}", COLD.replace("OVERFLOW", &overflow), more.concat())
}

pub fn world(fleet: &str) -> World {
    let zone = |zone: Zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)).mx("sender.test", 10, "mx.one.test")
    };
    let mut world = World::new(vec![Model::named("accept")], zone);
    world.configure(&[]);
    world.start();
    world.apply(fleet);
    world
}

pub fn send(world: &World, messages: usize) {
    let mut client = world.connect();
    for _ in 0..messages {
        let reply = client.submit("a@sender.test", &["b@one.test"], MESSAGE);
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

/// Recipients that the receiver has had, by source address.
pub fn sources(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for delivery in world.sinks[0].deliveries() {
        *counts.entry(delivery.source.to_string()).or_default() += delivery.recipients.len();
    }
    counts
}

pub fn counts(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
    all.iter().map(|(ip, n)| ((*ip).to_owned(), *n)).collect()
}

fn queue(world: &World) -> Value {
    world.json(&["queue", "--json"])
}

#[test]
fn what_exceeds_the_day_waits_with_its_reason_and_is_told_once() {
    let mut world = world(&fleet("defer", &[]));
    send(&world, 8);
    world.deliveries(0, 5);
    let told = |world: &World| {
        let events = world.events();
        events.iter().filter(|event| event["eventType"] == "DeliveryDelay").cloned().collect::<Vec<_>>()
    };
    world.until("three to wait", |world| told(world).len() == 3);
    for event in told(&world) {
        assert_eq!(event["delayType"], "SendingDeferral", "{event}");
        assert_eq!(event["outgoingIp"], "127.0.10.1");
    }
    assert!(world.events().iter().all(|event| event["eventType"] != "Attempt"), "nothing was tried");
    let rows = queue(&world);
    assert_eq!(rows["queued"], 3, "{rows}");
    assert_eq!(rows["rows"][0]["reason"], "waits for the warm-up allowance of 127.0.10.1", "{rows}");
    assert_eq!(rows["rows"][0]["attempts"], 0);
    assert!(rows["rows"][0]["nextTry"].as_u64().is_some_and(|at| at > 0), "{rows}");
    world.kill();
    world.start();
    world.until("the three to be there again", |world| queue(world)["queued"] == 3);
    world.until("them to wait", |world| {
        queue(world)["rows"][0]["reason"].as_str().is_some_and(|r| r.starts_with("waits"))
    });
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5)]));
}

#[test]
fn the_first_ips_of_an_account_overflow_to_the_shared_pool() {
    let mut world = world(&fleet("", &[SHARED]));
    send(&world, 8);
    world.deliveries(0, 8);
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.2", 3)]));
    world.drained();
    let used = |world: &World, ip: &str| {
        let events = world.events();
        events.iter().filter(|event| event["eventType"] == "Delivery" && event["outgoingIp"] == ip).count()
    };
    world.until("the events", |world| used(world, "127.0.10.1") == 5 && used(world, "127.0.10.2") == 3);
}

#[test]
fn a_message_of_many_recipients_is_split_by_what_fits() {
    let world = world(&fleet("", &[SHARED]));
    let to: Vec<String> = (0..12).map(|n| format!("b{n}@one.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.submit(&to, MESSAGE);
    world.deliveries(0, 12);
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.2", 7)]));
}

#[test]
fn an_account_with_a_warm_ip_never_uses_the_shared_pool() {
    let world = world(&fleet("", &[SHARED, WARM]));
    send(&world, 9);
    world.deliveries(0, 9);
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.3", 4)]));
}

#[test]
fn a_pool_may_refuse_what_exceeds_its_plan_and_what_was_taken_is_kept() {
    let world = world(&fleet("reject", &[SHARED]));
    send(&world, 5);
    world.deliveries(0, 5);
    // Any shard may have the connection: the owner of the IP has told it by the second reply at the latest.
    let mut world = world;
    world.until("a refusal", |world| {
        let reply = world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE);
        assert!(reply.starts_with("250 ") || reply.starts_with("454 4.7.0 "), "{reply}");
        reply.starts_with("454 ")
    });
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5)]));
}

#[test]
fn crashes_never_let_an_ip_exceed_its_day() {
    let text = fleet("defer", &[]).replace("[5, 10]", "[30, 60]");
    let mut world = world(&text);
    for round in 0..4 {
        send(&world, 12);
        // In the midst of it.
        world.until("some more to be delivered", |world| {
            world.sinks[0].recipients() > round * 5
                || queue(world)["rows"][0]["reason"].as_str().is_some_and(|r| r.starts_with("waits"))
        });
        world.kill();
        world.start();
    }
    world.until("the rest to wait", |world| {
        let rows = queue(world);
        rows["rows"].as_array().is_some_and(|rows| {
            !rows.is_empty() && rows.iter().all(|row| row["reason"].as_str().is_some_and(|r| r.starts_with("waits")))
        })
    });
    let sent = sources(&world)["127.0.10.1"];
    assert!(sent <= 30, "{sent} recipients on a day of 30");
}

#[test]
fn a_lease_takes_its_ledger_along_to_another_shard_and_its_mail() {
    let mut world = world(&fleet("defer", &[]));
    send(&world, 3);
    world.deliveries(0, 3);
    let elsewhere = fleet("defer", &[]).replace("shard = 0", "shard = 1");
    world.apply(&elsewhere);
    send(&world, 4);
    world.deliveries(0, 5);
    world.apply(&fleet("defer", &[]));
    world.apply(&elsewhere);
    world.until("two to wait", |world| queue(world)["queued"] == 2);
    send(&world, 2);
    world.until("four to wait on the new shard", |world| {
        let rows = queue(world);
        rows["queued"] == 4 && rows["rows"].as_array().is_some_and(|rows| rows.iter().all(|row| row["shard"] == 1))
    });
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5)]));
    let done = world.cli(&["ip", "warmup", "127.0.10.1", "--complete"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    world.deliveries(0, 9);
    world.drained();
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 9)]), "each once");
}

#[test]
fn notifications_of_the_host_do_not_go_by_an_ip_that_warms_up() {
    let mut world = world(&fleet("", &[SHARED]));
    world.submit(&["b@nxdomain.test"], MESSAGE);
    world.event("Bounce", "b@nxdomain.test");
    world.deliveries(0, 1);
    assert_eq!(sources(&world), counts(&[("127.0.10.2", 1)]));
}

#[test]
fn overflow_is_counted_by_pool() {
    let mut world = world(&fleet("", &[SHARED]));
    send(&world, 8);
    world.deliveries(0, 8);
    let labels = "account=\"default\",from_pool=\"mine\",to_pool=\"ses-shared-pool\",reason=\"warmup\"";
    world.until("three to be counted", |world| {
        let (_, _, text) = crate::leasing::http(world, "GET", "/metrics", "");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("mailrail_overflow_recipients_total{") && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>() == 3
    });
}
