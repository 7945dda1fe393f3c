//! Leases, pools and warm-up changed over the control socket while mail flows: as SES shapes it, and by the command line.

use crate::{
    warming::{SHARED, counts, fleet, send, sources, world},
    world::World,
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// Status, kind of error and body of an answer of the control socket.
pub fn http(world: &World, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(world.path("data/control.sock")).unwrap();
    // In one piece: a server that needs no body may close before the rest of it is there, and that resets the connection.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: mailrail\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default();
    (status, kind.to_owned(), body.to_owned())
}

fn ask(world: &World, method: &str, path: &str, body: &Value) -> (u16, String, Value) {
    // A body that nobody reads would have the connection reset.
    let body = if ["GET", "DELETE"].contains(&method) { String::new() } else { body.to_string() };
    let (status, kind, text) = http(world, method, path, &body);
    (status, kind, serde_json::from_str(&text).unwrap_or_default())
}

pub fn ok(world: &World, method: &str, path: &str, body: &Value) -> Value {
    let (status, kind, answer) = ask(world, method, path, body);
    assert_eq!((status, kind.as_str()), (200, ""), "{method} {path} {body}: {answer}");
    answer
}

pub fn refused(world: &World, method: &str, path: &str, body: &Value, kind: &str) {
    let before = ok(world, "GET", "/mailrail/v1/fleet", &json!({}));
    let (status, found, answer) = ask(world, method, path, body);
    assert_eq!(found, kind, "{method} {path} {body}: {status} {answer}");
    assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    assert_eq!(ok(world, "GET", "/mailrail/v1/fleet", &json!({})), before, "nothing is changed");
}

const IP: &str = "/v2/email/dedicated-ips/127.0.10.1";
const AUTO: &str = "/v2/email/account/dedicated-ips/warmup";
const POOLS: &str = "/v2/email/dedicated-ip-pools";

/// Status and percentage of an IP.
fn warmth(world: &World, ip: &str) -> (String, i64) {
    let answer = ok(world, "GET", &format!("/v2/email/dedicated-ips/{ip}"), &json!({}));
    let ip = &answer["DedicatedIp"];
    (ip["WarmupStatus"].as_str().unwrap().to_owned(), ip["WarmupPercentage"].as_i64().unwrap())
}

fn is(status: &str, percentage: i64) -> (String, i64) {
    (status.to_owned(), percentage)
}

#[test]
fn pools_are_made_listed_and_deleted_as_ses_does() {
    let world = world(&fleet("", &[SHARED]));
    let bad = "BadRequestException";
    assert_eq!(ok(&world, "POST", POOLS, &json!({"PoolName": "second"})), json!({}));
    refused(&world, "POST", POOLS, &json!({"PoolName": "second"}), "AlreadyExistsException");
    refused(&world, "POST", POOLS, &json!({"PoolName": "ses-shared-pool"}), bad);
    refused(&world, "POST", POOLS, &json!({"PoolName": "a b"}), bad);
    refused(&world, "POST", POOLS, &json!({"ScalingMode": "STANDARD"}), bad);
    refused(&world, "POST", POOLS, &json!({"PoolName": "x", "ScalingMode": "MAYBE"}), bad);
    let names = ok(&world, "GET", POOLS, &json!({}));
    assert_eq!(names, json!({"DedicatedIpPools": ["mine", "second", "ses-default-dedicated-pool"]}));
    let page = ok(&world, "GET", &format!("{POOLS}?PageSize=1&NextToken=from-1"), &json!({}));
    assert_eq!(page, json!({"DedicatedIpPools": ["second"], "NextToken": "from-2"}));
    refused(&world, "GET", &format!("{POOLS}?NextToken=zzz"), &json!({}), bad);
    refused(&world, "GET", &format!("{POOLS}?PageSize=0"), &json!({}), bad);
    let one = ok(&world, "GET", &format!("{POOLS}/second"), &json!({}));
    assert_eq!(one, json!({"DedicatedIpPool": {"PoolName": "second", "ScalingMode": "STANDARD"}}));
    refused(&world, "GET", &format!("{POOLS}/third"), &json!({}), "NotFoundException");
    refused(&world, "GET", &format!("{POOLS}/second?account=other"), &json!({}), "NotFoundException");
    // To managed, and never back.
    ok(&world, "PUT", &format!("{POOLS}/second/scaling"), &json!({"ScalingMode": "MANAGED"}));
    refused(&world, "PUT", &format!("{POOLS}/second/scaling"), &json!({"ScalingMode": "STANDARD"}), bad);
    refused(&world, "PUT", &format!("{IP}/pool"), &json!({"DestinationPoolName": "second"}), bad);
    for n in 0..4 {
        ok(&world, "POST", POOLS, &json!({"PoolName": format!("m{n}"), "ScalingMode": "MANAGED"}));
    }
    refused(&world, "POST", POOLS, &json!({"PoolName": "m5", "ScalingMode": "MANAGED"}), "LimitExceededException");
    refused(&world, "DELETE", &format!("{POOLS}/ses-default-dedicated-pool"), &json!({}), bad);
    refused(&world, "DELETE", &format!("{POOLS}/mine"), &json!({}), bad);
    ok(&world, "DELETE", &format!("{POOLS}/second"), &json!({}));
    refused(&world, "DELETE", &format!("{POOLS}/second"), &json!({}), "NotFoundException");
}

#[test]
fn the_warm_up_of_an_ip_is_read_and_set_as_ses_does() {
    let world = world(&fleet("", &[SHARED]));
    assert_eq!(warmth(&world, "127.0.10.1"), is("IN_PROGRESS", 0));
    for wrong in
        [json!({"WarmupPercentage": 101}), json!({"WarmupPercentage": -1}), json!({"WarmupPercentage": 4.5}), json!({})]
    {
        refused(&world, "PUT", &format!("{IP}/warmup"), &wrong, "BadRequestException");
    }
    refused(&world, "PUT", &format!("{IP}/warmup"), &json!({"WarmupPercentage": "x"}), "BadRequestException");
    let shared = "/v2/email/dedicated-ips/127.0.10.2/warmup";
    refused(&world, "PUT", shared, &json!({"WarmupPercentage": 1}), "BadRequestException");
    let unknown = "/v2/email/dedicated-ips/192.0.2.200";
    refused(&world, "PUT", &format!("{unknown}/warmup"), &json!({"WarmupPercentage": 1}), "NotFoundException");
    refused(&world, "GET", unknown, &json!({}), "NotFoundException");
    for (set, status) in [(41, "IN_PROGRESS"), (100, "DONE"), (7, "IN_PROGRESS"), (0, "IN_PROGRESS")] {
        ok(&world, "PUT", &format!("{IP}/warmup"), &json!({"WarmupPercentage": set}));
        assert_eq!(warmth(&world, "127.0.10.1"), is(status, set), "read as it was set, at once");
    }
    ok(&world, "PUT", &format!("{IP}/warmup"), &json!({"WarmupPercentage": 41}));
    // Applied again, the file resets nothing; nor does a restart.
    world.apply(&fleet("", &[SHARED]));
    let mut world = world;
    world.kill();
    world.start();
    assert_eq!(warmth(&world, "127.0.10.1"), is("IN_PROGRESS", 41));
    let all = ok(&world, "GET", "/v2/email/dedicated-ips?PoolName=mine", &json!({}));
    let ip = json!({"Ip": "127.0.10.1", "WarmupStatus": "IN_PROGRESS", "WarmupPercentage": 41, "PoolName": "mine"});
    assert_eq!(all, json!({"DedicatedIps": [ip]}));
    ok(&world, "PUT", &format!("{IP}/pool"), &json!({"DestinationPoolName": "ses-default-dedicated-pool"}));
    assert_eq!(warmth(&world, "127.0.10.1"), is("IN_PROGRESS", 41), "its plan goes along");
    refused(&world, "PUT", &format!("{IP}/pool"), &json!({"DestinationPoolName": "none"}), "NotFoundException");
}

#[test]
fn automatic_warm_up_off_and_on() {
    let world = world(&fleet("", &[SHARED]));
    let lease = |ip: &str| {
        let body = json!({"address": ip, "helo": "new.sender.test", "pool": "mine"});
        ok(&world, "POST", "/mailrail/v1/leases", &body);
    };
    refused(&world, "PUT", AUTO, &json!({}), "BadRequestException");
    ok(&world, "PUT", AUTO, &json!({"AutoWarmupEnabled": false}));
    assert_eq!(warmth(&world, "127.0.10.1"), is("DONE", 100));
    lease("127.0.10.4");
    assert_eq!(warmth(&world, "127.0.10.4"), is("DONE", 100), "leased while it is off");
    ok(&world, "PUT", "/v2/email/dedicated-ips/127.0.10.4/warmup", &json!({"WarmupPercentage": 10}));
    ok(&world, "PUT", AUTO, &json!({"AutoWarmupEnabled": false}));
    assert_eq!(warmth(&world, "127.0.10.4"), is("IN_PROGRESS", 10), "said again, it has no effect");
    ok(&world, "PUT", AUTO, &json!({"AutoWarmupEnabled": true}));
    assert_eq!(warmth(&world, "127.0.10.1"), is("DONE", 100), "not started again");
    lease("127.0.10.5");
    assert_eq!(warmth(&world, "127.0.10.5"), is("IN_PROGRESS", 0));
    ok(&world, "PUT", &format!("{AUTO}?in_progress=keep"), &json!({"AutoWarmupEnabled": false}));
    assert_eq!(warmth(&world, "127.0.10.5"), is("IN_PROGRESS", 0));
}

#[test]
fn what_waits_goes_when_automatic_warm_up_is_switched_off() {
    let world = world(&fleet("defer", &[]));
    send(&world, 8);
    world.deliveries(0, 5);
    let done = world.cli(&["ip", "warmup", "--off"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    world.deliveries(0, 8);
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 8)]));
}

#[test]
fn a_lease_is_taken_drained_and_released_while_mail_flows() {
    let mut world = world(&fleet("", &[SHARED]));
    let run = |world: &World, args: &[&str], code: i32| {
        let output = world.cli(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        error
    };
    let lease = ["ip", "lease", "127.0.10.6", "--helo", "six.sender.test", "--pool", "mine", "--plan", "3,4"];
    run(&world, &lease, 0);
    assert!(run(&world, &lease, 1).contains("leased already"));
    let away = ["ip", "lease", "192.0.2.222", "--helo", "x.test", "--pool", "mine"];
    assert!(run(&world, &away, 1).contains("does not have the address"));
    send(&world, 10);
    world.deliveries(0, 10);
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.2", 2), ("127.0.10.6", 3)]));
    let states = |world: &World| {
        let leases = world.json(&["ip", "list", "--json"])["leases"].as_array().cloned().unwrap_or_default();
        leases.iter().map(|lease| lease["state"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&world), ["warming", "shared", "warming"]);
    run(&world, &["ip", "warmup", "127.0.10.6", "--complete"], 0);
    run(&world, &["ip", "drain", "127.0.10.6"], 0);
    assert_eq!(states(&world), ["warming", "shared", "draining"]);
    send(&world, 2);
    // It drains, but the account has a warm IP: nothing is shared, and what waits does so for the plan.
    world.until("two to wait", |world| world.json(&["queue", "--json"])["queued"] == 2);
    run(&world, &["ip", "release", "127.0.10.6"], 2);
    run(&world, &["ip", "release", "127.0.10.6", "--yes"], 0);
    // The account has no warm IP any more: the shared pool takes what waited.
    world.deliveries(0, 12);
    assert_eq!(sources(&world)["127.0.10.2"], 4);
    run(&world, &["ip", "warmup", "127.0.10.1", "--hold"], 0);
    let held = world.json(&["ip", "list", "--json"])["leases"][0]["warmup"].clone();
    assert_eq!(
        (&held["held"], &held["cap"], &held["nextCap"], &held["sent"]),
        (&json!(true), &json!(5), &json!(5), &json!(5))
    );
    let table = world.cli(&["ip", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("held"), "{table:?}");
    run(&world, &["pool", "create", "second"], 0);
    run(&world, &["pool", "move", "127.0.10.1", "second"], 0);
    let pools = world.cli(&["pool", "list"]);
    assert!(
        String::from_utf8_lossy(&pools.stdout).lines().any(|line| line.starts_with("second") && line.ends_with('1'))
    );
}
