//! Two accounts on one host: each submits with its own credentials, and leaves by its own IPs or the shared ones.

use crate::{
    accounts::base64,
    leasing::{ok, refused},
    warming::{SHARED, counts, sources},
    world::{Client, MESSAGE, World, host},
};
use mailrail_bench::model::Model;
use mailrail_engine::credentials::smtp_password;
use serde_json::json;

const SECRETS: [&str; 2] = ["wJalrXUtnFEMI/K7MDENG+acmeEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG+betaEXAMPLEKEY"];

/// `acme` has one IP, that warms up: five recipients today. `beta` has a warm one in a pool, one in none, and a cold one.
const OWN: &str = r#"
[[pool]]
name = "acme-a"
kind = "dedicated"
account = "acme"
plan = [5, 10]
spread = "1s"
[[ip]]
address = "127.0.10.1"
helo = "out1.sender.test"
pool = "acme-a"
[[pool]]
name = "beta-a"
kind = "dedicated"
account = "beta"
[[ip]]
address = "127.0.10.3"
helo = "out3.sender.test"
pool = "beta-a"
warm = true
reason = "moved here from another host"
[[pool]]
name = "beta-cold"
kind = "dedicated"
account = "beta"
plan = [5, 10]
spread = "1s"
[[ip]]
address = "127.0.10.5"
helo = "out5.sender.test"
pool = "beta-cold"
[[ip]]
address = "127.0.10.4"
helo = "out4.sender.test"
pool = "ses-default-dedicated-pool"
account = "beta"
warm = true
reason = "moved here from another host"
"#;

fn account(n: usize, more: &str) -> String {
    let (name, secret) = (["acme", "beta"][n], SECRETS[n]);
    format!(
        "[[account]]\nname = \"{name}\"\nmax_24_hour_send = -1\nmax_send_rate = -1\n{more}\n[[account.key]]\nid = \"AKID{name}\"\nsecret = \"{secret}\"\n"
    )
}

pub fn fleet() -> String {
    // What is of no account's own is behind its IPs in no pool, and its default pool.
    format!(
        "default_pool = \"acme-a\"\n{OWN}{SHARED}{}{}",
        account(0, "pool = \"acme-a\""),
        account(1, "pool = \"beta-a\"")
    )
}

pub fn world() -> World {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[[listener]]", "auth = \"required\"")]);
    world.start();
    world.apply(&fleet());
    world
}

/// A client of one of the two.
fn client(world: &World, n: usize) -> Client {
    let mut client = world.connect();
    client.ask("EHLO client.test");
    let (name, password) = (["acme", "beta"][n], smtp_password(SECRETS[n], "local"));
    let reply = client.ask(&format!("AUTH PLAIN {}", base64(format!("\0AKID{name}\0{password}").as_bytes())));
    assert!(reply.starts_with("235 "), "{reply}");
    client
}

/// The reply to a message that names this pool, or none.
fn submit(client: &mut Client, pool: &str) -> String {
    let header = if pool.is_empty() { String::new() } else { format!("X-Mailrail-Pool: {pool}\r\n") };
    client.submit("a@sender.test", &["b@one.test"], &format!("{header}{MESSAGE}"))
}

#[test]
fn mail_leaves_by_the_pools_of_its_account_and_by_no_others() {
    let mut world = world();
    let (mut acme, mut beta) = (client(&world, 0), client(&world, 1));
    for (sender, pool, ip) in [
        (0, "", "127.0.10.1"),
        (1, "", "127.0.10.4"),
        (1, "beta-a", "127.0.10.3"),
        (1, "ses-default-dedicated-pool", "127.0.10.4"),
        (0, "ses-shared-pool", "127.0.10.2"),
    ] {
        let (before, total) = (sources(&world), world.sinks[0].deliveries().len());
        let client = if sender == 0 { &mut acme } else { &mut beta };
        let reply = submit(client, pool);
        assert!(reply.starts_with("250 "), "{sender} by {pool}: {reply}");
        world.deliveries(0, total + 1);
        let mut expected = before;
        *expected.entry(ip.into()).or_default() += 1;
        assert_eq!(sources(&world), expected, "account {sender}, pool {pool}");
    }
    for pool in ["beta-a", "beta-cold", "nowhere"] {
        let reply = submit(&mut acme, pool);
        assert_eq!(reply, format!("554 5.7.1 Message rejected: pool <{pool}> does not exist\r\n"));
    }
    assert!(submit(&mut beta, "acme-a").starts_with("554 5.7.1 "), "nor the other way round");
    // It has the pool, as every account, and no IP there: its mail waits.
    assert!(submit(&mut acme, "ses-default-dedicated-pool").starts_with("250 "));
    // The owner of an IP says 250 once it is durable, and queues it then.
    world.until("it to wait for an IP", |world| {
        let rows = world.json(&["queue", "--json"]);
        rows["queued"] == 1
            && rows["rows"][0]["reason"].as_str().is_some_and(|why| why.contains("ses-default-dedicated"))
    });
}

#[test]
fn overflow_goes_where_the_account_of_the_message_may_send() {
    let mut world = world();
    let (mut acme, mut beta) = (client(&world, 0), client(&world, 1));
    for _ in 0..8 {
        assert!(submit(&mut acme, "").starts_with("250 "));
    }
    world.drained();
    // Its first IPs: that another account has warm ones does not matter.
    assert_eq!(sources(&world), counts(&[("127.0.10.1", 5), ("127.0.10.2", 3)]));
    for _ in 0..8 {
        assert!(submit(&mut beta, "beta-cold").starts_with("250 "));
    }
    world.drained();
    let sent = sources(&world);
    assert_eq!((sent["127.0.10.5"], sent["127.0.10.2"]), (5, 3), "with warm IPs of its own, never the shared one");
    let own: usize = ["127.0.10.3", "127.0.10.4"].iter().filter_map(|ip| sent.get(*ip)).sum();
    assert_eq!(own, 3, "{sent:?}");
}

#[test]
fn automatic_warm_up_is_read_and_switched_for_one_account() {
    let world = world();
    let auto = |account: &str| {
        let answer = ok(&world, "GET", &format!("/v2/email/account?account={account}"), &json!({}));
        answer["DedicatedIpAutoWarmupEnabled"].as_bool().expect("it is there")
    };
    let percentage = |account: &str, ip: &str| {
        let path = format!("/v2/email/dedicated-ips/{ip}?account={account}");
        ok(&world, "GET", &path, &json!({}))["DedicatedIp"]["WarmupPercentage"].as_i64()
    };
    let path = "/v2/email/account/dedicated-ips/warmup";
    assert!(auto("acme") && auto("beta"));
    ok(&world, "PUT", &format!("{path}?account=acme"), &json!({"AutoWarmupEnabled": false}));
    assert_eq!((auto("acme"), auto("beta"), auto("default")), (false, true, true));
    assert_eq!((percentage("acme", "127.0.10.1"), percentage("beta", "127.0.10.5")), (Some(100), Some(0)));
    refused(&world, "PUT", &format!("{path}?account=other"), &json!({"AutoWarmupEnabled": false}), "NotFoundException");
    world.apply(&fleet());
    assert!(!auto("acme"), "applied again, the file changes nothing of it");
    assert_eq!(world.json(&["account", "show", "acme", "--json"])["autoWarmup"], false);
}

#[test]
fn pools_and_ips_belong_to_accounts_that_there_are() {
    let world = world();
    let pools = "/v2/email/dedicated-ip-pools";
    refused(&world, "POST", &format!("{pools}?account=other"), &json!({"PoolName": "x"}), "NotFoundException");
    let lease = |ip: &str, more: serde_json::Value| {
        let mut body = json!({"address": ip, "helo": "a.sender.test", "pool": "ses-default-dedicated-pool"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let leases = "/mailrail/v1/leases";
    refused(&world, "POST", leases, &lease("127.0.10.9", json!({"account": "other"})), "NotFoundException");
    refused(&world, "POST", leases, &lease("127.0.10.1", json!({})), "AlreadyExistsException");
    refused(&world, "POST", leases, &lease("203.0.113.200", json!({})), "BadRequestException");
    refused(
        &world,
        "PUT",
        "/v2/email/dedicated-ips/127.0.10.1/pool?account=acme",
        &json!({"DestinationPoolName": "beta-a"}),
        "NotFoundException",
    );
    refused(&world, "DELETE", &format!("{pools}/acme-a?account=acme"), &json!({}), "BadRequestException");
    // In the file too: an IP changes its account by a release only.
    let other = fleet().replace("pool = \"acme-a\"\n[[pool]]", "pool = \"beta-a\"\n[[pool]]");
    refused(&world, "PUT", "/mailrail/v1/fleet", &json!({"toml": other}), "BadRequestException");
    let unknown = fleet().replace("account = \"beta\"", "account = \"nobody\"");
    refused(&world, "PUT", "/mailrail/v1/fleet", &json!({"toml": unknown}), "BadRequestException");
}
