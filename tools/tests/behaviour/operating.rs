//! What operators do: apply, export, status, queue, metrics, and the errors they get.

use crate::world::{FLEET, MESSAGE, World, host};
use mailrail_bench::model::{Failure, Model, Stage};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
};

fn world() -> World {
    World::new(vec![Model::named("accept")], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)))
        .started()
}

#[test]
fn an_apply_is_idempotent_and_its_export_changes_nothing() {
    let world = world();
    let again = world.json(&["apply", "fleet.toml", "--json"]);
    assert_eq!(again["changes"].as_array().map(Vec::len), Some(0), "{again}");
    let export = world.cli(&["export"]);
    fs::write(world.path("export.toml"), &export.stdout).unwrap();
    let back = world.json(&["apply", "export.toml", "--json"]);
    assert_eq!(back["changes"].as_array().map(Vec::len), Some(0), "{back}");
}

#[test]
fn a_dry_run_only_shows_and_a_mistake_changes_nothing() {
    let world = world();
    let before = world.json(&["export", "--json"]);
    let more = format!("{FLEET}[[ip]]\naddress = \"127.0.10.3\"\nhelo = \"out3.sender.test\"\npool = \"main\"\n");
    fs::write(world.path("more.toml"), &more).unwrap();
    let shown = world.json(&["apply", "more.toml", "--dry-run", "--json"]);
    assert_eq!(shown["changes"][0]["name"], "127.0.10.3", "{shown}");
    assert_eq!(world.json(&["export", "--json"]), before);
    let absent = more.replace("127.0.10.3", "192.0.2.99");
    fs::write(world.path("absent.toml"), absent).unwrap();
    let output = world.cli(&["apply", "absent.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("this host does not have the address"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert_eq!(world.json(&["export", "--json"]), before);
}

#[test]
fn a_new_lease_is_used_at_once_and_survives_a_restart() {
    let mut world = world();
    let only =
        "[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"127.0.10.9\"\nhelo = \"out9.sender.test\"\npool = \"main\"\n";
    world.apply(only);
    world.submit(&["b@one.test"], MESSAGE);
    assert_eq!(world.deliveries(0, 1)[0].source.to_string(), "127.0.10.9");
    world.stop();
    world.start();
    world.submit(&["b@one.test"], MESSAGE);
    assert_eq!(world.deliveries(0, 2)[1].helo, "out9.sender.test");
}

#[test]
fn the_queue_is_listed_by_site_and_ip_with_reason_and_next_try() {
    let later = Failure { at: Stage::Rcpt, ratio: 1.0, reply: "451 4.2.0 mailbox is being moved".into() };
    let mut world = World::new(vec![Model { failures: vec![later], ..Model::named("later") }], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[delivery.retry]", "first = \"1h\"\nmax = \"2h\"")]);
    world.start();
    world.apply(FLEET);
    let id = world.submit(&["b@one.test", "c@one.test"], MESSAGE);
    world.event("Attempt", "c@one.test");
    let queue = world.json(&["queue", "--json"]);
    let row = &queue["rows"][0];
    assert_eq!((&queue["queued"], &row["deferred"]), (&2.into(), &2.into()), "{queue}");
    assert!(row["site"].as_str().is_some_and(|site| site.starts_with("mx.one.test")), "{queue}");
    assert!(row["reason"].as_str().is_some_and(|reason| reason.contains("mailbox is being moved")), "{row}");
    assert!(row["nextTry"].is_u64(), "{row}");
    let single = world.json(&["queue", "--messages", "--json"]);
    assert_eq!(single["rows"][0]["message"], id.as_str(), "{single}");
    assert_eq!(single["rows"][0]["recipients"].as_array().map(Vec::len), Some(2), "{single}");
    let none = world.json(&["queue", "--domain", "other.test", "--json"]);
    assert_eq!(none["queued"], 0, "{none}");
    let table = String::from_utf8(world.cli(&["queue"]).stdout).unwrap();
    assert!(table.contains("mx.one.test") && table.contains("mailbox is being moved"), "{table}");
}

#[test]
fn the_control_socket_is_for_its_owner_and_speaks_http() {
    let world = world();
    let socket = world.path("data/control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /mailrail/v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("\"message\""), "{answer}");
    assert!(answer.contains("x-amzn-errortype: NotFoundException"), "{answer}");
}

#[test]
fn metrics_are_served_over_tcp() {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    // Any free port; that somebody takes it before the server does is one chance in thousands, and tried again.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.configure(&[("[control]", &format!("metrics = \"{free}\""))]);
    world.start();
    world.apply(FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world.drained();
    let mut stream = TcpStream::connect(free).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    for wanted in [
        "mailrail_accepted_recipients_total{shard=",
        "mailrail_accept_time_seconds_bucket{",
        "mailrail_ip_connections{ip=\"127.0.10.1\"",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let world = world();
    let second = World::new(vec![], |zone| zone);
    second.configure(&[("", &format!("data_dir = \"{}\"", world.path("data").display()))]);
    let output = second.cli(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("in use by another process"), "{said}");
}
