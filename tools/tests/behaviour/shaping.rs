//! Shaping per provider through the real server: limits of a provider hold over all of its sites, its replies slow mail down
//! or hold it, and an operator can do and undo the same.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::{
    dns::Zone,
    model::{Failure, Model, RateLimit, Stage},
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// One leased IP, so that what holds for one is what holds.
const IP: &str = r#"
[[pool]]
name = "main"
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "main"
shard = 0
"#;

/// Two sites of one provider, on one receiver.
fn zone(zone: Zone) -> Zone {
    zone.mx("one.test", 10, "mx1.big.test")
        .a("mx1.big.test", host(0))
        .mx("two.test", 10, "mx2.big.test")
        .a("mx2.big.test", host(0))
}

fn world(model: Model, provider: &str) -> World {
    let mut world = World::new(vec![model], zone);
    world.configure(&[]);
    world.start();
    world.apply(&fleet(provider));
    world
}

fn fleet(provider: &str) -> String {
    format!("{IP}[[provider]]\nname = \"big\"\nmx = [\"big.test\"]\n{provider}\n")
}

fn send(world: &World, to: &str, messages: usize) {
    let mut client = world.connect();
    for n in 0..messages {
        let reply = client.submit("a@sender.test", &[&format!("b{n}@{to}")], MESSAGE);
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

fn big(world: &World) -> Value {
    world.json(&["provider", "show", "big", "--json"])
}

fn attempts(world: &World) -> usize {
    world.events().iter().filter(|event| event["eventType"] == "Attempt").count()
}

fn done(world: &World, args: &[&str]) -> String {
    let output = world.cli(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn no_more_goes_than_the_rate_lets_over_all_sites_of_a_provider() {
    let world = world(Model::named("accept"), "rate = \"5/s\"\nburst = 2");
    let begun = Instant::now();
    send(&world, "one.test", 6);
    send(&world, "two.test", 6);
    world.deliveries(0, 12);
    // Two at once, ten more at five a second.
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let row = big(&world);
    assert_eq!((&row["rate"], &row["burst"], &row["own"]), (&"5/s".into(), &2.into(), &true.into()), "{row}");
    assert_eq!(row["ips"][0]["ip"], "127.0.10.1", "{row}");
    assert_eq!(row["ips"][0]["state"], "open", "{row}");
}

#[test]
fn connections_of_a_provider_are_shared_by_its_sites_and_none_starves() {
    let model = Model { connections_per_ip: Some(1), ..Model::named("one-connection") };
    let mut world = world(model, "connections = 1\nmessages_per_connection = 5");
    for _ in 0..3 {
        send(&world, "one.test", 7);
        send(&world, "two.test", 7);
    }
    world.deliveries(0, 42);
    world.drained();
    let status = world.json(&["status", "--json"]);
    let failures: u64 = status["shards"].as_array().unwrap().iter().filter_map(|s| s["connectFailures"].as_u64()).sum();
    assert_eq!(failures, 0, "a second connection was tried: {status}");
    assert_eq!((attempts(&world), world.sinks[0].recipients()), (0, 42));
}

#[test]
fn a_message_for_many_goes_in_parts_of_what_the_provider_takes() {
    let mut world = world(Model::named("accept"), "recipients_per_message = 3");
    let to: Vec<String> = (0..8).map(|n| format!("b{n}@one.test")).collect();
    world.submit(&to.iter().map(String::as_str).collect::<Vec<_>>(), MESSAGE);
    let deliveries = world.deliveries(0, 8);
    let mut parts: Vec<usize> = deliveries.iter().map(|delivery| delivery.recipients.len()).collect();
    parts.sort_unstable();
    assert_eq!(parts, [2, 3, 3]);
    let mut all: Vec<&String> = deliveries.iter().flat_map(|delivery| &delivery.recipients).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "each once");
    world.drained();
}

#[test]
fn a_reply_that_blocks_suspends_the_provider_until_it_is_lifted() {
    let refuse = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.7.1 Your IP has been blocked, {ip}".into() };
    let model = Model { failures: vec![refuse], ..Model::named("blocks") };
    let rule = "[[provider.reply]]\ntext = [\"has been BLOCKED\"]\nthen = \"suspend\"\nfor = \"1h\"";
    let mut world = world(model, rule);
    send(&world, "one.test", 1);
    world.until("the provider to be suspended", |world| big(world)["ips"][0]["state"] == "suspended");
    let row = big(&world);
    let standing = &row["ips"][0];
    assert!(standing["reason"].as_str().unwrap().contains("has been blocked, 127.0.10.1"), "{standing}");
    assert!(standing["suspendedUntil"].as_u64().unwrap() > standing["reasonAt"].as_u64().unwrap() + 3_500_000);
    // Of the other site nothing is even tried.
    send(&world, "two.test", 2);
    world.until("its mail to wait", |world| big(world)["queued"] == 3);
    world.until("its row to say until when", |world| {
        let rows = world.json(&["queue", "--json", "--domain", "two.test"]);
        rows["rows"][0]["nextTry"]
            .as_u64()
            .is_some_and(|at| at > row["ips"][0]["reasonAt"].as_u64().unwrap() + 3_000_000)
    });
    assert_eq!(attempts(&world), 1);
    assert!(done(&world, &["provider", "list"]).contains("suspended (1)"));
    assert!(done(&world, &["provider", "lift", "big"]).contains("1 leased IP"));
    world.until("a try of the others", |world| attempts(world) >= 2);
    world.until("it to be suspended again", |world| big(world)["ips"][0]["state"] == "suspended");
}

#[test]
fn replies_about_the_rate_slow_mail_down_and_all_of_it_arrives() {
    let limit = RateLimit { recipients: 4, window_ms: 1500, reply: "451 4.7.28 Rate limit exceeded, slow down".into() };
    let mut world = world(Model { rate_limit: Some(limit), ..Model::named("rate") }, "recover = \"2s\"");
    send(&world, "one.test", 10);
    world.until("it to be slowed", |world| {
        let row = big(world);
        row["ips"][0]["slower"].as_u64() > Some(0) && row["ips"][0]["rate"].is_string()
    });
    world.deliveries(0, 10);
    world.drained();
    world.until("it to recover", |world| big(world)["ips"][0]["state"] == "open");
    assert!(big(&world)["ips"][0]["rate"].is_null(), "there was none before");
}

#[test]
fn an_operator_suspends_and_lifts() {
    let mut world = world(Model::named("accept"), "");
    let told = done(&world, &["provider", "suspend", "big", "--for", "1h", "--ip", "127.0.10.1", "--reason", "test"]);
    assert!(told.contains("By 1 leased IP"), "{told}");
    send(&world, "one.test", 3);
    world.until("it to wait", |world| big(world)["queued"] == 3);
    let row = big(&world);
    assert_eq!((&row["ips"][0]["byOperator"], &row["ips"][0]["state"]), (&true.into(), &"suspended".into()), "{row}");
    assert!(row["ips"][0]["reason"].as_str().unwrap().ends_with("test"), "{row}");
    assert_eq!(world.sinks[0].recipients(), 0);
    done(&world, &["provider", "lift", "big"]);
    world.deliveries(0, 3);
    world.drained();
    for (args, part) in [
        (&["provider", "show", "nobody"][..], "no provider nobody"),
        (&["provider", "suspend", "big", "--for", "soon"], "for:"),
        (&["provider", "suspend", "big", "--for", "1h", "--ip", "192.0.2.1"], "not leased"),
    ] {
        let output = world.cli(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(part), "{args:?}: {error}");
    }
}

#[test]
fn a_provider_is_changed_live_exported_and_refused_when_it_is_wrong() {
    let mut world = world(Model::named("accept"), "rate = \"1/d\"\nburst = 1");
    send(&world, "one.test", 4);
    world.deliveries(0, 1);
    world.apply(&fleet("rate = \"1000/s\"\n[provider.ladder]\nfactor = 1.5"));
    world.deliveries(0, 4);
    world.drained();
    let exported = done(&world, &["export"]);
    assert!(exported.contains("rate = \"1000/s\"") && exported.contains("factor = 1.5"), "{exported}");
    std::fs::write(world.path("again.toml"), &exported).unwrap();
    let again = done(&world, &["apply", "again.toml"]);
    assert!(again.contains("Nothing to change"), "{again}");
    std::fs::write(world.path("wrong.toml"), fleet("rate = \"fast\"")).unwrap();
    let output = world.cli(&["apply", "wrong.toml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("wrong.toml:") && error.contains("messages in a time"),
        "{error}"
    );
}
