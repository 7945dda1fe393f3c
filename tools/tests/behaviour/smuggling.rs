//! SMTP smuggling: nothing but CRLF dot CRLF ends a message, and no bare CR or LF reaches a receiver.

use crate::world::{Client, MESSAGE, World, host};
use mailrail_bench::model::Model;

fn world() -> World {
    World::new(vec![Model::named("accept")], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)))
        .started()
}

fn in_data(world: &World) -> Client {
    let mut client = world.connect();
    for line in ["EHLO client.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@one.test>"] {
        assert!(client.ask(line).starts_with("250"));
    }
    assert!(client.ask("DATA").starts_with("354"));
    client
}

#[test]
fn no_other_spelling_ends_a_message() {
    let mut world = world();
    let smuggled = "MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@one.test>\r\nDATA\r\n\
                    From: evil@sender.test\r\n\r\nsmuggled\r\n.\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r\r\n.\r\r\n", "\n\n.\n\n"] {
        let mut client = in_data(&world);
        client.send(format!("From: a@sender.test\r\nSubject: x\r\n\r\nfirst{end}{smuggled}"));
        let reply = client.reply();
        assert!(reply.starts_with("550 5.6.11"), "{end:?}: {reply}");
        // Nothing of it was taken as a command.
        assert!(client.ask("NOOP").starts_with("250"), "{end:?}");
    }
    world.submit(&["b@one.test"], MESSAGE);
    world.deliveries(0, 1);
    world.drained();
    let copies = world.sinks[0].deliveries();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(world.events().iter().all(|event| event["recipient"] != "victim@one.test"));
}

#[test]
fn the_same_in_chunks() {
    let world = world();
    let mut client = world.connect();
    for line in ["EHLO client.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@one.test>"] {
        assert!(client.ask(line).starts_with("250"));
    }
    let content = "From: a@sender.test\r\n\r\nfirst\n.\nMAIL FROM:<evil@sender.test>\r\n";
    client.send(format!("BDAT {} LAST\r\n{content}", content.len()));
    assert!(client.reply().starts_with("550 5.6.11"));
    assert!(client.ask("NOOP").starts_with("250"));
}

#[test]
fn dots_at_line_starts_survive_both_ways() {
    let mut world = world();
    let mut client = in_data(&world);
    client.send("From: a@sender.test\r\n\r\n..\r\n...two\r\n..one\r\n.\r\n");
    assert!(client.reply().starts_with("250"));
    let copy = world.deliveries(0, 1)[0].clone();
    assert!(copy.text().ends_with("\r\n\r\n.\r\n..two\r\n.one\r\n"), "{}", copy.text());
    world.drained();
}
