//! What is refused at the door, each with its reply: strangers, sizes, numbers, lines, headers, loops.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::Model;

fn world(listener: &str) -> World {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[[listener]]", listener)]);
    world.start();
    world.apply(crate::world::FLEET);
    world
}

fn refused(world: &World, content: &str, expected: &str) {
    let reply = world.connect().submit("a@sender.test", &["b@one.test"], content);
    assert!(reply.starts_with(expected), "expected {expected}, got {reply} for {:.80}", content);
}

#[test]
fn nothing_is_taken_from_strangers() {
    let world = world("allow = [\"192.0.2.0/24\"]");
    let client = world.connect();
    assert!(client.greeting.starts_with("554 5.7.1"), "{}", client.greeting);
}

#[test]
fn extensions_are_announced_and_smtputf8_only_where_configured() {
    let plain = world("");
    let ehlo = plain.connect().ask("EHLO client.test");
    for keyword in ["PIPELINING", "SIZE ", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN"] {
        assert!(ehlo.contains(keyword), "no {keyword} in {ehlo}");
    }
    assert!(!ehlo.contains("SMTPUTF8") && !ehlo.contains("STARTTLS"), "{ehlo}");
    let international = world("smtputf8 = true");
    assert!(international.connect().ask("EHLO client.test").contains("SMTPUTF8"));
}

#[test]
fn a_message_that_is_too_large_is_refused_by_its_word_and_by_its_bytes() {
    let world = world("max_size = \"64KiB\"");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    assert!(client.ask("MAIL FROM:<a@sender.test> SIZE=70000").starts_with("552 5.3.4"));
    refused(&world, &format!("{MESSAGE}{}", "0123456789\r\n".repeat(8_000)), "552 5.3.4");
}

#[test]
fn recipients_beyond_the_limit_are_put_off_and_the_others_are_taken() {
    let world = world("max_recipients = 3");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.ask("MAIL FROM:<a@sender.test>");
    for n in 0..3 {
        assert!(client.ask(&format!("RCPT TO:<b{n}@one.test>")).starts_with("250"));
    }
    assert!(client.ask("RCPT TO:<b3@one.test>").starts_with("452 4.5.3"));
    assert!(client.ask("DATA").starts_with("354"));
    client.send(format!("{MESSAGE}.\r\n"));
    assert!(client.reply().starts_with("250 "));
    assert_eq!(world.deliveries(0, 3).len(), 1);
}

#[test]
fn content_that_no_receiver_should_get_is_refused_with_its_reason() {
    let world = world("");
    let received = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n".repeat(51);
    refused(&world, &format!("{received}{MESSAGE}"), "554 5.4.6");
    // A loop is one however its hops are spelled, and wherever in the header section they stand.
    for spelled in ["RECEIVED:\r\n\tfrom a\r\n\tby b\r\n", "received:x\r\n", "Received:\r\n \tx\r\n"] {
        refused(&world, &format!("{}{MESSAGE}", spelled.repeat(51)), "554 5.4.6");
        refused(&world, &format!("X-First: x\r\n{}{MESSAGE}", spelled.repeat(51)), "554 5.4.6");
    }
    // What is no field of the header section is no hop.
    let quoted = format!("X-Quoted: x\r\n{}", "\tReceived: from a by b\r\n".repeat(60));
    let body = "Received: from a by b\r\n".repeat(60);
    let reply = world.connect().submit("a@sender.test", &["b@one.test"], &format!("{quoted}{MESSAGE}{body}"));
    assert!(reply.starts_with("250 "), "{reply}");
    refused(&world, "Subject: no from\r\n\r\nx\r\n", "554 5.6.0");
    refused(&world, "From: a@sender.test\r\nFrom: b@sender.test\r\n\r\nx\r\n", "554 5.6.0");
    refused(&world, &format!("From: a@sender.test\r\n\r\n{}\r\n", "x".repeat(20_000)), "554 5.6.0");
    refused(&world, "From: a@sender.test\r\n\r\nnul \0 here\r\n", "554 5.6.0");
}

#[test]
fn a_client_too_many_is_told_so() {
    let world = world("max_connections_per_ip = 2");
    // Each shard counts its own: of five connections at most four find room.
    let clients: Vec<_> = (0..8).map(|_| world.connect()).collect();
    let refused = clients.iter().filter(|client| client.greeting.starts_with("421 4.7.0")).count();
    let welcome = clients.iter().filter(|client| client.greeting.starts_with("220 ")).count();
    assert_eq!(refused + welcome, 8);
    assert!(welcome <= 4 && refused >= 4, "{welcome} welcome, {refused} refused");
    drop(clients);
    let mut world = world;
    world.until("room for a new client", |world| world.connect().greeting.starts_with("220 "));
}

#[test]
fn an_idle_client_is_sent_away() {
    let world = world("idle_timeout = \"1s\"");
    let mut client = world.connect();
    let reply = client.reply();
    assert!(reply.starts_with("451 4.4.2"), "{reply}");
    assert!(client.is_closed());
}

#[test]
fn a_null_sender_is_taken_and_a_relative_path_is_not() {
    let world = world("");
    let reply = world.connect().submit("", &["b@one.test"], MESSAGE);
    assert!(reply.starts_with("250 "), "{reply}");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.ask("MAIL FROM:<a@sender.test>");
    assert!(client.ask("RCPT TO:<nobody>").starts_with('5'));
}
