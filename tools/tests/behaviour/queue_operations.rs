//! What operators do to queued mail, through the real server: suspended, resumed, tried now, rerouted, bounced, cancelled, and
//! explained.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::{Failure, Model, Stage};
use serde_json::Value;

/// As in other tests, with a pool that no mail goes by unless it is told to.
const FLEET: &str = r#"
default_pool = "main"
[[pool]]
name = "main"
[[pool]]
name = "other"
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "main"
shard = 0
[[ip]]
address = "127.0.10.2"
helo = "out2.sender.test"
pool = "main"
shard = 1
[[ip]]
address = "127.0.10.3"
helo = "out3.sender.test"
pool = "other"
shard = 1
"#;

/// One receiver takes all, another one defers all. Retries come much later than any test lasts.
fn world() -> World {
    let later = Failure { at: Stage::Rcpt, ratio: 1.0, reply: "451 4.2.0 come back later".into() };
    let late = Model { failures: vec![later], ..Model::named("late") };
    let mut world = World::new(vec![Model::named("accept"), late], |zone| {
        zone.mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(0))
            .mx("uno.test", 10, "mx.one.test")
            .mx("sender.test", 10, "mx.one.test")
            .mx("late.test", 10, "mx.late.test")
            .a("mx.late.test", host(1))
    });
    world.configure(&[("[delivery.retry]", "first = \"10m\"\nmax = \"10m\"")]);
    world.start();
    world.apply(FLEET);
    world
}

fn explained(world: &World, subject: &str) -> Value {
    world.json(&["explain", subject, "--json"])
}

/// Waits until mail of the subject is held for this cause, after so many tries.
fn until_held(world: &mut World, subject: &str, cause: &str, attempts: u64) -> Value {
    let mut row = Value::Null;
    world.until(&format!("{subject} to be {cause}"), |world| {
        row = explained(world, subject)["rows"][0].clone();
        row["cause"] == cause && row["attempts"] == attempts
    });
    row
}

fn done(world: &World, args: &[&str]) {
    let output = world.cli(args);
    assert!(output.status.success(), "{args:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), world.log());
}

#[test]
fn what_is_suspended_waits_through_a_restart_until_it_is_resumed() {
    let mut world = world();
    done(&world, &["queue", "suspend", "--domain", "One.test", "--reason", "their disk is full"]);
    let id = world.submit(&["a@one.test", "b@uno.test"], MESSAGE);
    let copies = world.deliveries(0, 1);
    assert_eq!(copies[0].recipients, ["b@uno.test"], "of the same site and message, and not suspended");
    let row = until_held(&mut world, &id, "suspended", 0);
    assert!(row["text"].as_str().is_some_and(|text| text.contains("their disk is full")), "{row}");
    assert_eq!(row["addresses"], serde_json::json!(["a@one.test"]));
    world.stop();
    world.start();
    until_held(&mut world, "one.test", "suspended", 0);
    let listed = world.json(&["queue", "--messages", "--json"]);
    let row = &listed["rows"][0];
    assert!(row["reason"].as_str().is_some_and(|text| text.contains("suspended")), "{row}");
    assert_eq!((&row["held"], &row["nextTry"]), (&true.into(), &serde_json::Value::Null), "no time will let it go");
    let wrong = world.cli(&["queue", "resume", "--domain", "uno.test"]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("domain One.test"));
    done(&world, &["queue", "resume", "--domain", "One.test"]);
    world.deliveries(0, 2);
    world.drained();
    assert_eq!(world.json(&["queue", "suspensions", "--json"])["suspensions"], serde_json::json!([]));
}

#[test]
fn mail_for_a_leased_ip_or_site_can_be_suspended_as_a_whole() {
    let mut world = world();
    done(&world, &["queue", "suspend", "--ip", "127.0.10.1"]);
    done(&world, &["queue", "suspend", "--ip", "127.0.10.2"]);
    for _ in 0..40 {
        world.submit(&["a@one.test"], MESSAGE);
    }
    world.until("all to be held", |world| {
        let rows = explained(world, "one.test");
        let held = |row: &Value| row["cause"] == "suspended";
        rows["queued"] == 40 && rows["rows"].as_array().is_some_and(|rows| rows.iter().all(held))
    });
    assert_eq!(world.sinks[0].recipients(), 0);
    done(&world, &["queue", "resume", "--all"]);
    world.deliveries(0, 40);
    world.drained();
}

#[test]
fn deferred_mail_is_tried_now() {
    let mut world = world();
    let id = world.submit(&["a@late.test"], MESSAGE);
    let row = until_held(&mut world, &id, "deferred", 1);
    assert!(row["text"].as_str().is_some_and(|text| text.contains("come back later")), "{row}");
    let order = world.json(&["queue", "retry", "--site", "mx.late.test", "--json"]);
    assert_eq!((&order["finished"], &order["done"]), (&true.into(), &1.into()), "{order}");
    until_held(&mut world, &id, "deferred", 2);
    let ip = explained(&world, &id)["rows"][0]["ip"].as_str().unwrap_or_default().to_owned();
    let told = String::from_utf8(world.cli(&["explain", &ip]).stdout).unwrap();
    assert!(told.contains("It is shared") && told.contains("a@late.test") && told.contains("next try"), "{told}");
}

#[test]
fn what_is_bounced_has_its_dsn_and_what_is_cancelled_has_none() {
    let mut world = world();
    let bounced = world.submit(&["a@late.test", "b@late.test"], MESSAGE);
    let cancelled = world.submit(&["c@late.test"], MESSAGE);
    until_held(&mut world, &bounced, "deferred", 1);
    until_held(&mut world, &cancelled, "deferred", 1);
    let dry = world.json(&["queue", "bounce", "--recipient", "A@late.test", "--dry-run", "--json"]);
    assert_eq!((&dry["messages"], &dry["recipients"]), (&1.into(), &1.into()), "{dry}");
    let careful = world.cli(&["queue", "bounce", "--recipient", "A@late.test"]);
    assert_eq!(careful.status.code(), Some(2), "it asks for --yes");
    done(&world, &["queue", "bounce", "--recipient", "A@late.test", "--reason", "wrong list", "--yes"]);
    let event = world.event("Bounce", "a@late.test");
    assert!(event["diagnosticCode"].as_str().is_some_and(|code| code.contains("wrong list")), "{event}");
    assert_eq!(event["bounceType"], "Undetermined");
    let dsn = &world.deliveries(0, 1)[0];
    assert_eq!((dsn.sender.as_str(), dsn.recipients[0].as_str()), ("", "a@sender.test"));
    done(&world, &["queue", "cancel", "--message", &cancelled, "--yes"]);
    assert_eq!(world.event("Cancel", "c@late.test")["messageId"], cancelled.as_str());
    done(&world, &["queue", "cancel", "--all", "--yes"]);
    world.event("Cancel", "b@late.test");
    world.drained();
    assert_eq!(world.sinks[0].recipients(), 1, "one DSN, for the one that was bounced");
    let empty = explained(&world, &cancelled);
    assert!(empty["notes"][0].as_str().is_some_and(|note| note.contains("mailrail trace")), "{empty}");
}

#[test]
fn mail_goes_by_another_pool_for_good() {
    let mut world = world();
    let id = world.submit(&["a@late.test"], MESSAGE);
    until_held(&mut world, &id, "deferred", 1);
    done(&world, &["queue", "reroute", "--pool", "main", "--to", "other", "--yes"]);
    let row = until_held(&mut world, &id, "deferred", 1);
    assert_eq!(row["ip"], "127.0.10.3", "{row}");
    world.stop();
    world.start();
    let listed = world.json(&["queue", "--message", &id, "--json"]);
    assert_eq!(
        (&listed["rows"][0]["ip"], &listed["rows"][0]["pool"]),
        (&"127.0.10.3".into(), &"other".into()),
        "{listed}"
    );
    let wrong = world.cli(&["queue", "reroute", "--all", "--to", "none", "--yes"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there is no pool none"));
}

#[test]
fn a_paused_account_holds_its_queue() {
    let mut world = world();
    let id = world.submit(&["a@late.test"], MESSAGE);
    until_held(&mut world, &id, "deferred", 1);
    done(&world, &["account", "pause", "default"]);
    let row = until_held(&mut world, &id, "suspended", 1);
    assert!(row["text"].as_str().is_some_and(|text| text.contains("account default is paused")), "{row}");
    done(&world, &["queue", "retry", "--all"]);
    until_held(&mut world, &id, "suspended", 1);
    done(&world, &["account", "resume", "default"]);
    until_held(&mut world, &id, "deferred", 2);
}
