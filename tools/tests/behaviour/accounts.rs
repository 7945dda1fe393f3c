//! Accounts: credentials, limits that hold over all shards, sandbox and pause; each with its SMTP replies.

use crate::world::{Client, FLEET, MESSAGE, World, host, id_of};
use mailrail_bench::model::Model;
use mailrail_engine::credentials::smtp_password;
use std::{fs, thread};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn world(listener: &str, accounts: &str) -> World {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[[listener]]", listener)]);
    world.start();
    fs::write(world.path("acme.secret"), format!("{SECRET}\n")).expect("the directory is ours");
    world.apply(&format!("{FLEET}\n{accounts}"));
    world
}

/// The account of these tests, with these lines.
fn acme(lines: &str) -> String {
    format!(
        "[[account]]\nname = \"acme\"\n{lines}\n[[account.key]]\nid = \"AKIDEXAMPLE\"\nsecret_file = \"acme.secret\"\n"
    )
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let word = (0..3).fold(0_u32, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        (0..4)
            .map(|at| if at > chunk.len() { '=' } else { char::from(DIGITS[(word >> (18 - 6 * at)) as usize & 63]) })
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

fn plain(password: &str) -> String {
    format!("AUTH PLAIN {}", base64(format!("\0AKIDEXAMPLE\0{password}").as_bytes()))
}

/// A client that has given its credentials.
fn authenticated(world: &World) -> Client {
    let mut client = world.connect();
    assert!(client.ask("EHLO client.test").contains("AUTH PLAIN LOGIN"));
    assert_eq!(client.ask(&plain(&smtp_password(SECRET, "local"))), "235 2.7.0 Authentication successful.\r\n");
    client
}

#[test]
fn an_access_key_submits_from_anywhere_and_its_events_name_the_account() {
    let lines = "allow = [\"192.0.2.0/24\"]\nauth = \"optional\"";
    let mut world = world(lines, &acme("max_24_hour_send = -1\nmax_send_rate = -1"));
    let mut stranger = world.connect();
    stranger.ask("EHLO client.test");
    assert_eq!(stranger.ask("MAIL FROM:<a@sender.test>"), "530 5.7.0 Authentication required\r\n");
    assert_eq!(stranger.ask("AUTH CRAM-MD5"), "504 5.5.4 Authentication mechanism not supported\r\n");
    assert_eq!(stranger.ask(&plain("wrong")), "535 5.7.8 Authentication Credentials Invalid\r\n");
    assert!(stranger.ask("AUTH LOGIN").starts_with("334 "));
    assert!(stranger.ask(&base64(b"AKIDEXAMPLE")).starts_with("334 "));
    let password = smtp_password(SECRET, "local");
    assert!(stranger.ask(&base64(password.as_bytes())).starts_with("235 "));
    id_of(&stranger.submit("a@sender.test", &["b@one.test"], MESSAGE));
    assert!(world.deliveries(0, 1)[0].text().contains("with ESMTPA"));
    assert_eq!(world.event("Delivery", "b@one.test")["account"], "acme");
    let log = world.log();
    assert!(!log.contains(SECRET) && !log.contains(&password), "a secret is in the log");
    let printed = world.cli(&["account", "smtp-password", "--secret-file", "acme.secret"]).stdout;
    assert_eq!(String::from_utf8_lossy(&printed).trim(), password);
}

#[test]
fn who_guesses_passwords_is_sent_away() {
    let world = world("auth = \"required\"", &acme(""));
    let mut client = world.connect();
    client.ask("EHLO client.test");
    for _ in 0..2 {
        assert!(client.ask(&plain("guess")).starts_with("535 5.7.8"));
    }
    assert!(client.ask(&plain("guess")).starts_with("421 4.7.0"));
    assert!(client.is_closed());
}

#[test]
fn the_daily_quota_holds_exactly_over_all_shards_and_many_connections() {
    const QUOTA: usize = 100;
    let limits = format!("max_24_hour_send = {QUOTA}\nmax_send_rate = -1");
    let mut world = world("account = \"acme\"", &acme(&limits));
    let address = world.listener(0);
    let clients: Vec<_> = (0..16)
        .map(|client| {
            thread::spawn(move || {
                let (mut taken, mut refused) = (0, 0);
                let mut connection = Client::connect(address);
                for message in 0..10 {
                    let to: Vec<_> = (0..=client % 3).map(|n| format!("c{client}m{message}n{n}@one.test")).collect();
                    let to: Vec<_> = to.iter().map(String::as_str).collect();
                    let reply = connection.submit("a@sender.test", &to, MESSAGE);
                    if reply.starts_with("250 ") {
                        taken += to.len();
                    } else {
                        let expected = "454 4.7.0 Throttling failure: Daily message quota exceeded.\r\n";
                        assert_eq!(reply, expected);
                        refused += 1;
                    }
                }
                (taken, refused)
            })
        })
        .collect();
    let (taken, refused) = clients.into_iter().fold((0, 0), |sum, client| {
        let (taken, refused) = client.join().expect("no client fails");
        (sum.0 + taken, sum.1 + refused)
    });
    // 16 clients of 10 messages want some 310; nothing beyond the quota, and what is lent and not used comes back.
    assert!(taken <= QUOTA && refused > 0, "{taken} recipients of {QUOTA}");
    let mut more = 0;
    world.until("the rest of the quota", |world| {
        if taken + more < QUOTA
            && world.connect().submit("a@sender.test", &["more@one.test"], MESSAGE).starts_with("250 ")
        {
            more += 1;
        }
        taken + more == QUOTA
    });
    let refused = world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE);
    assert!(refused.starts_with("454 4.7.0"), "{refused}");
    assert_eq!(world.deliveries(0, QUOTA).len(), world.sinks[0].deliveries().len());
    world.until("all of it to be told", |world| {
        world.json(&["account", "show", "acme", "--json"])["sentLast24Hours"] == QUOTA
    });
    world.until("the warning", |world| world.events().iter().any(|event| event["eventType"] == "quota.100"));
    // A restart forgets nothing of it.
    world.kill();
    world.start();
    let refused = world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE);
    assert!(refused.starts_with("454 4.7.0"), "{refused}");
    let granted = world.cli(&["account", "limits", "acme", "--max-24-hour-send", "-1"]);
    assert!(granted.status.success(), "{}", String::from_utf8_lossy(&granted.stderr));
    world.until("the grant to hold", |world| {
        world.connect().submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250 ")
    });
}

#[test]
fn the_sending_rate_lets_a_burst_through_and_no_more_and_refuses_whole_messages() {
    let world = world("auth = \"optional\"", &acme("max_24_hour_send = -1\nmax_send_rate = 1"));
    let mut client = authenticated(&world);
    // The bucket holds five; the message that finds one takes all of its recipients.
    let four = ["a@one.test", "b@one.test", "c@one.test", "d@one.test"];
    id_of(&client.submit("a@sender.test", &four, MESSAGE));
    id_of(&client.submit("a@sender.test", &four, MESSAGE));
    let refused = client.submit("a@sender.test", &four, MESSAGE);
    assert_eq!(refused, "454 4.7.0 Throttling failure: Maximum sending rate exceeded.\r\n");
    // The unauthenticated are another account, which has no limits.
    for _ in 0..20 {
        world.submit(&four, MESSAGE);
    }
    assert_eq!(world.deliveries(0, 88).iter().map(|copy| copy.recipients.len()).sum::<usize>(), 88);
}

#[test]
fn a_sandboxed_account_reaches_verified_addresses_only_and_a_paused_one_nobody() {
    let mut world = world("auth = \"optional\"", &acme("verified = [\"me@one.test\"]\nmax_send_rate = 1"));
    let refused = authenticated(&world).submit("a@sender.test", &["me@one.test", "b@one.test"], MESSAGE);
    let expected = "554 5.7.1 Message rejected: Email address is not verified. The following identities failed the check \
                    in region LOCAL: b@one.test\r\n";
    assert_eq!(refused, expected);
    id_of(&authenticated(&world).submit("a@sender.test", &["ME@one.test"], MESSAGE));
    assert!(world.cli(&["account", "limits", "acme", "--max-send-rate", "50"]).status.success());
    let report = world.json(&["account", "show", "acme", "--json"]);
    assert_eq!((&report["sandbox"], &report["maxSendRate"]), (&false.into(), &50.into()));
    assert!(world.cli(&["account", "pause", "acme"]).status.success());
    world.until("the pause to hold", |world| {
        let reply = authenticated(world).submit("a@sender.test", &["b@one.test"], MESSAGE);
        reply == "554 5.7.1 Message rejected: Sending paused for this account.\r\n"
    });
    world.submit(&["of-default@one.test"], MESSAGE);
    // The file does not say that it sends: what was decided since stays.
    world.apply(&format!("{FLEET}\n{}", acme("verified = [\"me@one.test\"]\nmax_send_rate = 50")));
    assert_eq!(world.json(&["account", "show", "acme", "--json"])["sendingEnabled"], false);
    assert!(world.cli(&["account", "resume", "acme"]).status.success());
    world.until("it to be over", |world| {
        authenticated(world).submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250 ")
    });
}
