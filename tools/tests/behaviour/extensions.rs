//! The extensions, used: pipelined transactions, chunks, eight-bit and international mail, from client to receiver.

use crate::world::{FLEET, MESSAGE, World, host};
use mailrail_bench::model::{Extensions, Model};

fn world(models: Vec<Model>, listener: &str) -> World {
    let mut world = World::new(models, |zone| {
        zone.mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(0))
            .mx("old.test", 10, "mx.old.test")
            .a("mx.old.test", host(1))
            .mx("sender.test", 10, "mx.sender.test")
            .a("mx.sender.test", host(0))
    });
    world.configure(&[("[[listener]]", listener)]);
    world.start();
    world.apply(FLEET);
    world
}

/// A receiver of the last century: no extension at all.
fn old() -> Model {
    let extensions = Extensions {
        pipelining: false,
        chunking: false,
        eight_bit_mime: false,
        enhanced_status_codes: false,
        smtputf8: false,
        dsn: false,
        size: 0,
        auth: false,
        ehlo: false,
    };
    Model { extensions, ..Model::named("old") }
}

#[test]
fn whole_transactions_in_one_write_are_answered_in_order() {
    let world = world(vec![Model::named("accept"), old()], "");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    let one = format!("MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@one.test>\r\nDATA\r\n{MESSAGE}.\r\n");
    // RFC 2920 lets DATA end a group; a client that goes on without waiting for 354 is served all the same.
    client.send(format!("{one}{one}NOOP\r\n"));
    let replies: Vec<_> = (0..9).map(|_| client.reply()).collect();
    let codes: Vec<_> = replies.iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["250", "250", "354", "250", "250", "250", "354", "250", "250"], "{replies:?}");
    world.deliveries(0, 2);
}

#[test]
fn chunks_are_taken_and_binary_ends_do_not_matter() {
    let mut world = world(vec![Model::named("accept"), old()], "");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.ask("MAIL FROM:<a@sender.test>");
    client.ask("RCPT TO:<b@one.test>");
    let (head, tail) = MESSAGE.split_at(40);
    client.send(format!("BDAT {}\r\n{head}", head.len()));
    assert!(client.reply().starts_with("250"));
    client.send(format!("BDAT {}\r\n{tail}BDAT 0 LAST\r\n", tail.len()));
    assert!(client.reply().starts_with("250"));
    assert!(client.reply().starts_with("250 "));
    let copy = world.deliveries(0, 1)[0].clone();
    assert!(copy.text().ends_with("\r\n\r\nHello.\r\n"), "{}", copy.text());
    world.drained();
}

#[test]
fn a_receiver_without_extensions_gets_plain_mail_and_no_other() {
    let mut world = world(vec![Model::named("accept"), old()], "");
    world.submit(&["b@old.test"], MESSAGE);
    assert_eq!(world.deliveries(1, 1)[0].chunked, false);
    // Octets above 127 cannot go there (RFC 6152): that is a bounce, not damage.
    let eight = "From: a@sender.test\r\nSubject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n";
    world.submit(&["c@old.test"], eight);
    let bounce = world.event("Bounce", "c@old.test");
    assert_eq!(bounce["status"], "5.6.3", "{bounce}");
    world.submit(&["d@one.test"], eight);
    let copies = world.deliveries(0, 2);
    assert!(copies.iter().any(|copy| copy.text().contains("Grüße")), "{copies:?}");
}

#[test]
fn international_addresses_go_where_they_are_understood() {
    let mut world = world(vec![Model::named("accept"), old()], "smtputf8 = true");
    for (to, ok) in [("jürgen@one.test", true), ("jürgen@old.test", false)] {
        let mut client = world.connect();
        client.ask("EHLO client.test");
        assert!(client.ask("MAIL FROM:<a@sender.test> SMTPUTF8").starts_with("250"));
        assert!(client.ask(&format!("RCPT TO:<{to}>")).starts_with("250"));
        client.ask("DATA");
        client.send(format!("{MESSAGE}.\r\n"));
        assert!(client.reply().starts_with("250 "));
        let event = world.event(if ok { "Delivery" } else { "Bounce" }, to);
        assert_eq!(event["recipient"], to);
    }
    let copies = world.deliveries(0, 1);
    assert!(copies.iter().any(|copy| copy.recipients == ["jürgen@one.test"]), "{copies:?}");
}

#[test]
fn without_smtputf8_an_international_address_is_refused_at_the_door() {
    let world = world(vec![Model::named("accept"), old()], "");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.ask("MAIL FROM:<a@sender.test>");
    assert!(client.ask("RCPT TO:<jürgen@one.test>").starts_with('5'));
}
