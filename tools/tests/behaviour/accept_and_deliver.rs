//! The main job: a message is accepted, signed, delivered from a leased IP, and accounted for.

use crate::world::{MESSAGE, World, host, id_of};
use mailrail_bench::model::Model;

fn one_receiver() -> World {
    World::new(vec![Model::named("accept")], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)))
        .started()
}

#[test]
fn a_message_is_delivered_from_a_leased_ip_with_its_name_and_a_valid_signature() {
    let mut world = one_receiver();
    let id = world.submit(&["b@one.test"], MESSAGE);
    let copy = world.deliveries(0, 1)[0].clone();
    let leased = [("127.0.10.1", "out1.sender.test"), ("127.0.10.2", "out2.sender.test")];
    assert!(leased.contains(&(copy.source.to_string().as_str(), &copy.helo)), "{copy:?}");
    assert_eq!((copy.sender.as_str(), copy.recipients.as_slice()), ("a@sender.test", &["b@one.test".to_owned()][..]));
    let text = copy.text();
    assert!(text.starts_with("DKIM-Signature: "), "{text}");
    for wanted in ["Received: ", &id, "Date: ", "Message-ID: <", "Subject: hello\r\n", "\r\n\r\nHello.\r\n"] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    world.drained();
    let dkim = world.signatures(0);
    assert_eq!((dkim.messages_passed, dkim.messages_failed), (1, 0), "{dkim:?}");
}

#[test]
fn its_story_is_told_by_events_trace_and_status() {
    let mut world = one_receiver();
    let id = world.submit(&["b@one.test"], MESSAGE);
    let delivery = world.event("Delivery", "b@one.test");
    assert_eq!(delivery["messageId"], id.as_str());
    assert_eq!(delivery["mxHost"], "mx.one.test");
    assert_eq!(delivery["remoteMtaIp"], host(0).to_string());
    assert_eq!(delivery["attempt"], 1);
    assert!(delivery["smtpResponse"].as_str().is_some_and(|said| said.starts_with("250 ")), "{delivery}");
    let send = world.event("Send", "b@one.test");
    assert_eq!(send["outgoingIp"], delivery["outgoingIp"]);
    let trace = world.json(&["trace", &id, "--json"]);
    assert_eq!(trace["events"].as_array().map(Vec::len), Some(2), "{trace}");
    world.drained();
    let status = world.json(&["status", "--json"]);
    let totals = &status["totals"];
    assert_eq!((&totals["accepted"], &totals["delivered"]), (&1.into(), &1.into()), "{status}");
}

#[test]
fn recipients_at_one_site_go_in_one_transaction() {
    let zone = |zone: mailrail_bench::dns::Zone| {
        zone.mx("one.test", 10, "mx.one.test").mx("two.test", 10, "mx.one.test").a("mx.one.test", host(0))
    };
    let world = World::new(vec![Model::named("accept")], zone).started();
    world.submit(&["b@one.test", "c@one.test", "d@two.test"], MESSAGE);
    let copies = world.deliveries(0, 3);
    assert_eq!(copies.len(), 1, "{copies:?}");
    // Which domain is resolved first is for the DNS to say.
    let mut recipients = copies[0].recipients.clone();
    recipients.sort();
    assert_eq!(recipients, ["b@one.test", "c@one.test", "d@two.test"]);
}

#[test]
fn one_connection_carries_many_messages_each_once() {
    let mut world = one_receiver();
    let mut client = world.connect();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(id_of(&client.submit("a@sender.test", &["b@one.test"], MESSAGE)));
    }
    world.deliveries(0, 50);
    world.drained();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    assert_eq!(world.sinks[0].recipients(), 50);
}

#[test]
fn a_large_message_arrives_as_it_was_sent() {
    let mut world = one_receiver();
    let line = format!("{}\r\n", "0123456789abcdef".repeat(4));
    let body: String = format!(".leading\r\n{}", line.repeat(60_000));
    let content = format!("From: a@sender.test\r\nSubject: large\r\n\r\n{body}");
    world.submit(&["b@one.test"], &content);
    let copy = world.deliveries(0, 1)[0].clone();
    let text = copy.text();
    assert!(text.ends_with(&body), "{} bytes came, the body has {}", text.len(), body.len());
    world.drained();
    let dkim = world.signatures(0);
    assert_eq!((dkim.messages_passed, dkim.messages_failed), (1, 0), "{dkim:?}");
}
