//! `mailrail spool check | repair | export`: what a damaged spool still gives, and that nothing intact is left out.

use crate::world::{FLEET, MESSAGE, World, fleet_of_one, host};
use mailrail_bench::model::{Failure, Model, Stage};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Everything is put off, for long: what is accepted stays in the spool. Bounces go to the second receiver.
fn world() -> World {
    let later = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 later".into() };
    let busy = Model { failures: vec![later], ..Model::named("busy") };
    let mut world = World::new(vec![busy, Model::named("accept")], |zone| {
        let zone = zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)).mx("two.test", 10, "mx.one.test");
        zone.mx("sender.test", 10, "mx.sender.test").a("mx.sender.test", host(1))
    });
    world.configure(&[
        ("[delivery.retry]", "first = \"1h\"\nmax = \"2h\""),
        ("[delivery.site_backoff]", "first = \"1h\"\nmax = \"2h\""),
        ("[spool]", "segment_size = \"1MiB\""),
    ]);
    world.start();
    world.apply(FLEET);
    world
}

/// So many messages, answered 250; their ids. The bodies tell them apart.
fn submitted(world: &World, n: usize) -> Vec<String> {
    (0..n).map(|n| world.submit(&[&format!("b{n}@one.test")], &format!("{MESSAGE}This is number {n}.\r\n"))).collect()
}

/// All segment files, with what they hold.
fn segments(world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for shard in ["shard-000", "shard-001"] {
        for entry in fs::read_dir(world.path("data/spool").join(shard)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "seg") {
                found.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    found
}

/// Changes the byte `ahead` of this text, wherever it stands in a spool.
fn spoil(world: &World, text: &str, ahead: usize) -> PathBuf {
    for (path, mut bytes) in segments(world) {
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at + ahead] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("no segment has {text:?}");
}

/// The document that a command prints, and its exit code.
fn report(world: &World, args: &[&str]) -> (Value, Option<i32>) {
    let output = world.cli(args);
    let document = serde_json::from_slice(&output.stdout);
    (document.unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stderr))), output.status.code())
}

#[test]
fn after_a_kill_an_export_has_all_that_was_answered_250() {
    let mut world = world();
    let ids = submitted(&world, 30);
    let refused = world.cli(&["spool", "check"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("in use by another process"), "{said}");
    world.kill();
    let (check, code) = report(&world, &["spool", "check", "--json"]);
    assert_eq!((&check["sound"], code), (&Value::Bool(true), Some(0)), "{check}");
    assert_eq!(check["domains"][0]["domain"], "one.test", "{check}");
    assert_eq!(check["domains"][0]["recipients"], 30, "{check}");

    let (counts, code) = report(&world, &["spool", "export", "mail", "--json"]);
    assert_eq!((&counts["messages"], &counts["partial"], code), (&30.into(), &0.into(), Some(0)), "{counts}");
    for (n, id) in ids.iter().enumerate() {
        let content = fs::read_to_string(world.path("mail").join(format!("{id}.eml"))).unwrap();
        assert!(content.ends_with(&format!("Hello.\r\nThis is number {n}.\r\n")), "{content}");
        let envelope = fs::read(world.path("mail").join(format!("{id}.json"))).unwrap();
        let envelope: Value = serde_json::from_slice(&envelope).unwrap();
        assert_eq!(envelope["sender"], "a@sender.test", "{envelope}");
        assert_eq!(envelope["states"][0]["recipient"], format!("b{n}@one.test"), "{envelope}");
        assert_eq!(envelope["states"][0]["state"], "queued", "{envelope}");
    }
    let again = world.cli(&["spool", "export", "mail"]);
    assert_eq!(again.status.code(), Some(2), "nothing is written over");
    world.start();
    assert_eq!(world.json(&["status", "--json"])["queued"], 30, "looking changed nothing");
}

/// Its parts are in both spools, under one id.
#[test]
fn of_a_message_that_moved_in_part_both_parts_are_exported() {
    let mut world = world();
    let other =
        "[[pool]]\nname = \"other\"\n[[ip]]\naddress = \"127.0.10.3\"\nhelo = \"out3.sender.test\"\npool = \"other\"\n";
    world.apply(&format!("default_pool = \"main\"\n{}{other}shard = 1\n", fleet_of_one()));
    let id = world.submit(&["b@one.test", "b@two.test"], MESSAGE);
    let order = world.cli(&["queue", "reroute", "--domain", "one.test", "--to", "other", "--yes"]);
    assert!(order.status.success(), "{}", String::from_utf8_lossy(&order.stderr));
    world.stop();
    let (counts, code) = report(&world, &["spool", "export", "mail", "--json"]);
    assert_eq!((&counts["messages"], code), (&2.into(), Some(0)), "{counts}");
    let recipients = |name: &str| -> Value {
        serde_json::from_slice::<Value>(&fs::read(world.path("mail").join(name)).unwrap()).unwrap()["states"].take()
    };
    let queued: BTreeSet<_> = [format!("{id}.json"), format!("{id}.2.json")]
        .iter()
        .flat_map(|name| recipients(name).as_array().unwrap().clone())
        .filter(|state| state["state"] == "queued")
        .map(|state| state["recipient"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(queued, ["b@one.test", "b@two.test"].map(str::to_owned).into());
    for name in [format!("{id}.eml"), format!("{id}.2.eml")] {
        assert!(fs::read_to_string(world.path("mail").join(name)).unwrap().ends_with("Hello.\r\n"));
    }
}

#[test]
fn a_flipped_bit_is_named_with_its_message_and_the_rest_is_kept() {
    let mut world = world();
    let ids = submitted(&world, 20);
    world.stop();
    let spoilt = spoil(&world, "This is number 7.", 3);
    let (check, code) = report(&world, &["spool", "check", "--json"]);
    assert_eq!((&check["sound"], code), (&Value::Bool(false), Some(1)), "{check}");
    let damage: Vec<&Value> =
        check["shards"].as_array().unwrap().iter().flat_map(|s| s["damage"].as_array().unwrap()).collect();
    let [place] = damage.as_slice() else { panic!("{check}") };
    assert_eq!(place["lost"][0]["message"], ids[7].as_str(), "{place}");
    assert_eq!(place["lost"][0]["recipients"][0], "b7@one.test", "{place}");
    assert_eq!(place["lost"][0]["means"], "lost", "{place}");

    let before = fs::read(&spoilt).unwrap();
    let (lines, code) = report(&world, &["spool", "repair", "--json"]);
    assert_eq!((lines.as_array().map(Vec::len), code), (Some(1), Some(0)), "{lines}");
    assert_eq!(fs::read(lines[0]["aside"].as_str().unwrap()).unwrap(), before, "kept as it was");
    let (check, code) = report(&world, &["spool", "check", "--json"]);
    assert_eq!((&check["sound"], code), (&Value::Bool(true), Some(0)), "{check}");
    world.start();
    assert_eq!(world.json(&["status", "--json"])["queued"], 19);
    assert!(!world.log().contains("spool damage"), "repaired");
}

#[test]
fn a_cut_off_segment_stops_a_start_until_it_is_repaired() {
    let mut world = world();
    let ids = submitted(&world, 20);
    world.stop();
    let (path, bytes) = segments(&world)
        .into_iter()
        .find(|(_, bytes)| bytes.windows(15).any(|window| window == b"This is number "))
        .unwrap();
    let cut = bytes.windows(15).rposition(|window| window == b"This is number ").unwrap();
    fs::write(&path, &bytes[..cut]).unwrap();
    let output = world.cli(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("mailrail spool repair"), "{said}");
    assert!(world.cli(&["spool", "repair"]).status.success());
    world.start();
    let queued = world.json(&["status", "--json"])["queued"].as_u64().unwrap();
    assert_eq!(queued, ids.len() as u64 - 1, "one record was cut through");
}

/// A head that somebody wrote by hand, with records of their own: neither server nor tools believe it.
#[test]
fn a_forged_head_brings_nothing_in() {
    let mut world = world();
    submitted(&world, 10);
    world.stop();
    let (path, mut bytes) = segments(&world)
        .into_iter()
        .find(|(_, bytes)| bytes.windows(15).any(|window| window == b"This is number "))
        .unwrap();
    let foot = bytes.len() - 512;
    for at in [0, foot] {
        // Another stamp, as if all that is in it were somebody else's.
        bytes[at + 24..at + 32].copy_from_slice(b"forgery!");
    }
    fs::write(&path, &bytes).unwrap();
    let (check, code) = report(&world, &["spool", "check", "--json"]);
    assert_eq!((&check["sound"], code), (&Value::Bool(false), Some(1)), "{check}");
    // Somebody broke both heads: what stands in the file is offered, though nothing of it counts.
    let (counts, _) = report(&world, &["spool", "export", "forged", "--json"]);
    let (queued, unsure) = (counts["messages"].as_u64().unwrap(), counts["unsure"].as_u64().unwrap());
    assert!(unsure > 0 && queued + unsure == 10, "{counts}");
    assert_eq!(fs::read_dir(world.path("forged/unsure")).unwrap().count() as u64, 2 * unsure);
    let (lines, _) = report(&world, &["spool", "repair", "--json"]);
    assert!(lines[0]["done"].as_str().is_some_and(|done| done.contains("taken out")), "{lines}");
    assert!(!path.exists() && fs::read(lines[0]["aside"].as_str().unwrap()).unwrap() == bytes);
    world.start();
}

#[test]
fn a_message_that_lost_a_piece_is_bounced_and_never_sent_in_part() {
    let mut world = world();
    let large =
        format!("{MESSAGE}{}the middle\r\n{}", "0123456789abcdef\r\n".repeat(9_000), "fedcba\r\n".repeat(9_000));
    let id = world.submit(&["b@one.test"], &large);
    submitted(&world, 5);
    world.stop();
    spoil(&world, "the middle", 0);
    let (check, code) = report(&world, &["spool", "check", "--json"]);
    assert_eq!(code, Some(1), "{check}");
    assert!(check.to_string().contains(&id) && check.to_string().contains("not whole"), "{check}");
    let output = world.cli(&["spool", "export", "mail"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let names: BTreeSet<_> = fs::read_dir(world.path("mail"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains(&format!("{id}.partial.eml")) && names.len() == 12, "{names:?}");
    world.start();
    let bounce = world.event("Bounce", "b@one.test");
    assert!(bounce.to_string().contains("lost on the disk"), "{bounce}");
    let dsn = world.deliveries(1, 1);
    assert!(dsn[0].text().contains("b@one.test"), "the sender hears of it");
    assert_eq!(world.sinks[0].recipients(), 0);
}
