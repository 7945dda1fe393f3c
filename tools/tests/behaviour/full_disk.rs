//! A full spool or disk, and a disk that fails: new mail is put off with 452, deliveries go on, and it recovers by itself.

use crate::{
    mounts::Mounted,
    world::{Client, MESSAGE, World, host},
};
use mailrail_bench::model::{Failure, Model, Stage};
use std::thread;

#[test]
fn new_mail_is_put_off_and_taken_again_once_there_is_room() {
    let later = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 later".into() };
    let models = vec![Model { failures: vec![later], ..Model::named("busy") }, Model::named("accept")];
    let mut world = World::new(models, |zone| zone.ttl(1).mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    world.configure(&[("", "shards = 1"), ("[spool]", "segment_size = \"1MiB\"\nmax_bytes = \"4MiB\"")]);
    world.start();
    world.apply(
        "[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.sender.test\"\npool = \"main\"\n",
    );
    let content = format!("{MESSAGE}{}", "0123456789abcdef\r\n".repeat(5_000));
    let mut accepted = 0;
    let mut client = world.connect();
    let refusal = loop {
        let reply = client.submit("a@sender.test", &["b@one.test"], &content);
        if !reply.starts_with("250") {
            break reply;
        }
        accepted += 1;
        assert!(accepted < 200, "4 MiB cannot hold so much");
    };
    assert!(refusal.starts_with("452 4.3.1"), "{refusal}");
    assert!(accepted > 10, "{accepted}");
    world.dns.update(|zone| {
        zone.remove("mx.one.test");
        *zone = std::mem::take(zone).a("mx.one.test", host(1));
    });
    world.deliveries(1, accepted);
    world.drained();
    world.until("room for new mail", |world| {
        world.connect().submit("a@sender.test", &["b@one.test"], &content).starts_with("250")
    });
}

const FLEET: &str =
    "[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.sender.test\"\npool = \"main\"\n";

/// The first receiver puts everything off, the second takes all; `one.test` is moved from one to the other.
fn world() -> World {
    let later = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 later".into() };
    let models = vec![Model { failures: vec![later], ..Model::named("busy") }, Model::named("accept")];
    let world = World::new(models, |zone| zone.ttl(1).mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    world.configure(&[
        ("", "shards = 1\ndata_dir = \"disk\""),
        ("[control]", "socket = \"control.sock\""),
        ("[spool]", "segment_size = \"1MiB\"\nmax_bytes = \"1GiB\""),
    ]);
    world
}

fn recover(world: &World) {
    world.dns.update(|zone| {
        zone.remove("mx.one.test");
        *zone = std::mem::take(zone).a("mx.one.test", host(1));
    });
}

/// Submits messages of 90 KB until one is refused: how many were answered 250, and the refusal.
fn until_refused(world: &World) -> (usize, String) {
    let content = format!("{MESSAGE}{}", "0123456789abcdef\r\n".repeat(5_000));
    let mut client = world.connect();
    for accepted in 0..400 {
        let reply = client.submit("a@sender.test", &["b@one.test"], &content);
        if !reply.starts_with("250") {
            return (accepted, reply);
        }
    }
    panic!("so much cannot fit");
}

#[test]
fn on_a_full_file_system_mail_waits_outside_deliveries_go_on_and_all_catches_up() {
    let mut world = world();
    let Some(disk) = Mounted::small(&mut world, 24) else { return };
    world.start();
    world.apply(FLEET);
    disk.fill();
    let (accepted, refusal) = until_refused(&world);
    assert!(refusal.starts_with("452 4.3.1"), "{refusal}");
    // Neither the event log nor the control store can be written: both say so, and nobody stops.
    world.until("the event log to complain", |world| {
        let status = world.json(&["status", "--json"]);
        status["eventLog"]["error"].as_str().is_some_and(|error| error.contains("No space left"))
    });
    let shown = String::from_utf8(world.cli(&["status"]).stdout).unwrap();
    assert!(shown.contains("No space left"), "{shown}");
    let pools: String = (0..4000).map(|n| format!("[[pool]]\nname = \"more-{n}\"\n")).collect();
    let more = format!("{FLEET}{pools}");
    std::fs::write(world.path("more.toml"), &more).unwrap();
    // What a segment that could not be made has given back.
    disk.fill();
    let output = world.cli(&["apply", "more.toml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nothing was changed"), "{said}");
    assert!(!String::from_utf8_lossy(&world.cli(&["export"]).stdout).contains("more-"));

    recover(&world);
    world.deliveries(1, accepted);
    world.drained();
    disk.free();
    world.until("the event log to be well", |world| world.json(&["status", "--json"])["eventLog"]["error"].is_null());
    world.until("every event", |world| {
        let delivered = world.events().iter().filter(|event| event["eventType"] == "Delivery").count();
        delivered >= accepted
    });
    world.apply(&more);
    world.until("room for new mail", |world| {
        world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250")
    });
    assert_eq!(world.log().matches("starting").count(), 1, "without help");
    world.stop();
    drop(world);
}

/// A quota says "Disk quota exceeded" (EDQUOT) where a full disk says "No space left": the same comes of it. A file system that
/// copies on write may refuse even what was allocated: then the process ends as for a failing disk, and nothing is lost.
#[test]
fn over_its_quota_mail_waits_outside_and_is_taken_again_when_the_quota_goes() {
    let mut world = world();
    let Some(mut disk) = Mounted::with_quota(&mut world, 32) else { return };
    world.start();
    world.apply(FLEET);
    let (accepted, refusal) = until_refused(&world);
    assert!(!refusal.starts_with('2'), "{refusal}");
    world.until("the quota to be named", |world| world.log().contains("quota exceeded"));
    disk.without_quota();
    recover(&world);
    world.until("all of it to arrive", |world| {
        if let Some(code) = world.has_ended() {
            assert_eq!(code, 1, "{}", world.log());
            world.start();
        }
        world.sinks[1].recipients() >= accepted as u64
    });
    world.drained();
    world.until("room for new mail", |world| {
        world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250")
    });
    world.stop();
    drop(world);
}

/// The disk fails under load: nothing is answered 250 for what did not reach it, then or later, and no sync is tried again.
#[test]
fn a_sync_that_fails_is_never_taken_for_one_that_succeeded() {
    let mut world = world();
    let Some(mut disk) = Mounted::breakable(&mut world) else { return };
    world.start();
    world.apply(FLEET);
    let listener = world.listener(0);
    let submitters: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(listener);
                let mut accepted = 0;
                loop {
                    let reply = client.submit("a@sender.test", &["b@one.test"], MESSAGE);
                    if !reply.starts_with("250") {
                        return (accepted, reply);
                    }
                    accepted += 1;
                }
            })
        })
        .collect();
    world.until("some mail", |world| world.json(&["status", "--json"])["queued"].as_u64() > Some(50));
    if !disk.break_down() {
        return;
    }
    let mut accepted = 0;
    for submitter in submitters {
        let (more, refusal) = submitter.join().unwrap();
        assert!(refusal.is_empty() || refusal.starts_with('4'), "{refusal}");
        accepted += more;
    }
    assert_eq!(world.ended(), Some(1), "who supervises it starts it again");
    assert!(world.log().contains("spool failed"), "{}", world.log());
    disk.mount_again();
    recover(&world);
    world.start();
    world.drained();
    let copies = world.sinks[1].recipients() as usize;
    assert!(copies >= accepted && accepted > 20, "{copies} of {accepted} that were answered 250\n{}", world.log());
    assert!(!world.log().contains("spool damage"), "{}", world.log());
    assert!(world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250"));
    world.stop();
    drop(world);
}
