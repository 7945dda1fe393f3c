//! Every change over the control socket is written down: who, what, before, after; and warm-up plans changed over it.

use crate::{
    account_pools,
    leasing::{ok, refused},
    world::World,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LEASES: &str = "/mailrail/v1/leases";
const POOLS: &str = "/v2/email/dedicated-ip-pools";
const IPS: &str = "/v2/email/dedicated-ips";
const QUEUE: &str = "/mailrail/v1/queue";
const LISTED: &str = "/v2/email/suppression/addresses";

type Change = (&'static str, String, [&'static str; 2], Value, [&'static str; 2]);

/// A change by each operation: method, path, the places in it, query, body, and what the audit's row then has in it.
fn changes() -> Vec<Change> {
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    let own = "?account=acme";
    let toml = format!("{}[[domain]]\nname = \"partner.test\"\n", account_pools::fleet());
    let lease = json!({"address": "127.0.10.7", "helo": "out7.sender.test", "pool": "ses-shared-pool"});
    let entry = json!({"EmailAddress": "A@One.test", "Reason": "COMPLAINT"});
    vec![
        ("PUT", "/mailrail/v1/fleet".into(), ["", ""], json!({ "toml": toml }), ["domain partner.test", "tls"]),
        ("POST", LEASES.into(), ["", ""], lease, ["ip 127.0.10.7", "out7"]),
        ("POST", at(LEASES, "/{ip}/drain"), ["127.0.10.7", ""], json!({}), ["lease 127.0.10.7", "draining"]),
        ("DELETE", at(LEASES, "/{ip}"), ["127.0.10.7", ""], json!({}), ["ip 127.0.10.7", "out7"]),
        ("PUT", at(LEASES, "/{ip}/plan"), ["127.0.10.1", ""], json!({"plan": [7, 9]}), ["ip 127.0.10.1", "[7, 9]"]),
        (
            "PUT",
            "/mailrail/v1/pools/{name}".into(),
            ["acme-a", ""],
            json!({"overflow": "defer"}),
            ["pool acme-a", "defer"],
        ),
        ("POST", POOLS.into(), ["", own], json!({"PoolName": "x"}), ["pool x", "acme"]),
        ("PUT", at(POOLS, "/{name}/scaling"), ["x", own], json!({"ScalingMode": "MANAGED"}), ["pool x", "managed"]),
        ("DELETE", at(POOLS, "/{name}"), ["x", own], json!({}), ["pool x", "managed"]),
        (
            "PUT",
            at(IPS, "/{ip}/warmup"),
            ["127.0.10.1", own],
            json!({"WarmupPercentage": 40}),
            ["lease 127.0.10.1", "40 %"],
        ),
        (
            "PUT",
            at(IPS, "/{ip}/pool"),
            ["127.0.10.3", "?account=beta"],
            json!({"DestinationPoolName": "beta-cold"}),
            ["ip 127.0.10.3", "beta-cold"],
        ),
        (
            "PUT",
            "/v2/email/account/dedicated-ips/warmup".into(),
            ["", own],
            json!({"AutoWarmupEnabled": false}),
            ["warmup acme", "off"],
        ),
        (
            "PUT",
            "/v2/email/account/sending".into(),
            ["", own],
            json!({"SendingEnabled": false}),
            ["account acme", "paused"],
        ),
        (
            "PUT",
            "/v2/email/account/suppression".into(),
            ["", own],
            json!({"SuppressedReasons": ["BOUNCE"]}),
            ["account acme", "BOUNCE"],
        ),
        (
            "PUT",
            "/mailrail/v1/accounts/{name}/limits".into(),
            ["acme", ""],
            json!({"max_24_hour_send": 7}),
            ["account acme", "max_24_hour_send 7"],
        ),
        (
            "PUT",
            "/mailrail/v1/accounts/{name}/warmup".into(),
            ["acme", ""],
            json!({"dayStarts": "06:00+02:00"}),
            ["account acme", "06:00+02:00"],
        ),
        (
            "POST",
            "/mailrail/v1/providers/{name}/suspend".into(),
            ["gmail", ""],
            json!({"for": "1h", "reason": "too many complaints"}),
            ["provider gmail", "too many complaints"],
        ),
        (
            "POST",
            "/mailrail/v1/providers/{name}/lift".into(),
            ["gmail", ""],
            json!({"ip": "127.0.10.1"}),
            ["provider gmail", "lifted, 127.0.10.1"],
        ),
        (
            "POST",
            at(QUEUE, "/suspensions"),
            ["", ""],
            json!({"filter": {"domain": "one.test"}, "reason": "their disk is full"}),
            ["suspension 1", "domain one.test: their disk is full"],
        ),
        ("DELETE", at(QUEUE, "/suspensions/{id}"), ["1", ""], json!({}), ["suspension 1", "domain one.test"]),
        (
            "POST",
            at(QUEUE, "/orders"),
            ["", ""],
            json!({"action": "cancel", "filter": {"account": "acme"}, "reason": "sent by mistake"}),
            ["order 2", "cancel, account acme: sent by mistake"],
        ),
        ("PUT", LISTED.into(), ["", own], entry, ["suppression acme: a@one.test", "COMPLAINT"]),
        (
            "DELETE",
            at(LISTED, "/{address}"),
            ["a@one.test", own],
            json!({}),
            ["suppression acme: a@one.test", "COMPLAINT"],
        ),
        (
            "PUT",
            "/mailrail/v1/suppression/import".into(),
            ["", own],
            json!({"lines": "b@one.test\nc@one.test\n", "firstLine": 5}),
            ["suppression acme: lines from 5", "2 addresses"],
        ),
    ]
}

fn audit(world: &World) -> Vec<Value> {
    world.json(&["audit", "--limit", "1000", "--json"])["entries"].as_array().expect("a list").clone()
}

#[test]
fn each_operation_that_changes_something_leaves_a_row_of_who_what_before_and_after() {
    let world = account_pools::world();
    for (method, path, [place, query], body, [what, words]) in changes() {
        let before = audit(&world).first().and_then(|row| row["id"].as_u64()).expect("the fleet was applied");
        let asked = match path.split_once('{') {
            Some((start, rest)) => format!("{start}{place}{}{query}", rest.split_once('}').expect("closed").1),
            None => format!("{path}{query}"),
        };
        ok(&world, method, &asked, &body);
        let rows: Vec<_> = audit(&world).into_iter().filter(|row| row["id"].as_u64() > Some(before)).collect();
        let told = |row: &&Value| {
            let name = format!("{} {}", row["kind"].as_str().unwrap_or(""), row["name"].as_str().unwrap_or(""));
            name == what && format!("{} {}", row["before"], row["after"]).contains(words)
        };
        let row = rows.iter().find(told).unwrap_or_else(|| panic!("{method} {path}: {rows:?}"));
        assert!(row["who"].as_str().is_some_and(|who| who.starts_with("uid ")), "{row}");
        assert_ne!(row["before"], row["after"], "{row}");
        assert!(world.log().contains(what.split_once(' ').expect("kind and name").1), "it is in the log too");
    }
    // A refusal changes nothing, and nobody has to read of it.
    let before = audit(&world);
    refused(&world, "DELETE", &format!("{LISTED}/nobody@one.test"), &json!({}), "NotFoundException");
    assert_eq!(audit(&world), before);
    let shown = world.cli(&["audit", "--kind", "suppression"]).stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("COMPLAINT") && shown.contains("uid ") && !shown.contains("beta-cold"), "{shown}");
}

/// The test above knows every operation that there is.
#[test]
fn no_operation_that_changes_something_is_missing_here() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/src/control/api/mod.rs");
    let source = std::fs::read_to_string(source).expect("the sources are there");
    let mut routes = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).expect("a path");
        let handlers = route.split_once(',').expect("handlers").1;
        let handlers = handlers.split("\n        .").next().unwrap_or(handlers);
        for method in ["put", "post", "delete", "patch"] {
            if handlers.contains(&format!("{method}(")) {
                routes.insert((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    let known: BTreeSet<_> = changes().into_iter().map(|(method, path, ..)| (method.to_owned(), path)).collect();
    assert_eq!(routes, known, "say in `changes` what the audit tells of each, and have it told by `api::audit`");
}

#[test]
fn plans_are_set_for_an_account_a_pool_and_an_ip_and_hold_from_the_next_day_on() {
    let world = account_pools::world();
    let caps = || {
        let leases = ok(&world, "GET", LEASES, &json!({}));
        let of = |ip: &str| {
            let row = leases["leases"].as_array().unwrap().iter().find(|row| row["address"] == ip).unwrap();
            (row["warmup"]["cap"].as_u64().unwrap(), row["warmup"]["nextCap"].as_u64())
        };
        (of("127.0.10.1"), of("127.0.10.5"))
    };
    assert_eq!(caps(), ((5, Some(10)), (5, Some(10))));
    for wrong in [
        json!({"plan": [5, 4]}),
        json!({"plan": []}),
        json!({"plan": [0, 4]}),
        json!({"plan": vec![5; 366]}),
        json!({"plan": [-1]}),
        json!({"plan": "soon"}),
        json!({"plan": {"start": 5, "factor": 0.9, "target": 9}}),
        json!({"plan": {"start": 5, "factor": 1.0, "target": 9}}),
        json!({"plan": {"start": 5, "target": 9}}),
        json!({}),
    ] {
        for path in
            ["/mailrail/v1/leases/127.0.10.1/plan", "/mailrail/v1/pools/acme-a", "/mailrail/v1/accounts/acme/warmup"]
        {
            refused(&world, "PUT", path, &wrong, "BadRequestException");
        }
    }
    for wrong in [json!({"spread": "2d"}), json!({"overflowAfter": "x"})] {
        refused(&world, "PUT", "/mailrail/v1/pools/acme-a", &wrong, "BadRequestException");
    }
    refused(&world, "PUT", "/mailrail/v1/accounts/acme/warmup", &json!({"dayStarts": "6"}), "BadRequestException");
    refused(&world, "PUT", "/mailrail/v1/accounts/other/warmup", &json!({"plan": [5]}), "NotFoundException");
    refused(&world, "PUT", "/mailrail/v1/pools/other", &json!({"plan": [5]}), "NotFoundException");
    refused(&world, "PUT", "/mailrail/v1/leases/127.0.10.2/plan", &json!({"plan": [5]}), "BadRequestException");
    let run = |args: &[&str]| assert!(world.cli(args).status.success(), "{args:?}");
    run(&["account", "warmup", "acme", "--plan", "3,30"]);
    assert_eq!(caps().0, (5, Some(10)), "that of the pool is narrower");
    run(&["pool", "set", "acme-a", "--plan", "inherit"]);
    assert_eq!(caps(), ((5, Some(30)), (5, Some(10))), "today's cap stays");
    run(&["ip", "warmup", "127.0.10.1", "--plan", "4:2:64"]);
    assert_eq!(caps().0, (5, Some(8)), "that of the IP is the narrowest");
    run(&["ip", "warmup", "127.0.10.1", "--plan", "inherit"]);
    run(&["account", "warmup", "acme", "--plan", "inherit"]);
    assert_eq!(caps(), ((5, Some(58)), (5, Some(10))), "at last the standard one");
}
