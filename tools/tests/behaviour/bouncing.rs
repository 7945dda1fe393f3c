//! DSNs: one for each sender that wants to know, never for a null sender, with what was asked for in it.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::Model;

fn world() -> World {
    let unknown = Model { unknown_users: vec!["nobody*".into()], ..Model::named("unknown") };
    World::new(vec![unknown, Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(0))
            .mx("sender.test", 10, "mx.sender.test")
            .a("mx.sender.test", host(1))
    })
    .started()
}

fn send(world: &World, mail: &str, rcpts: &[&str]) {
    let mut client = world.connect();
    client.ask("EHLO client.test");
    assert!(client.ask(mail).starts_with("250"));
    for rcpt in rcpts {
        assert!(client.ask(rcpt).starts_with("250"), "{rcpt}");
    }
    assert!(client.ask("DATA").starts_with("354"));
    client.send(format!("{MESSAGE}.\r\n"));
    assert!(client.reply().starts_with("250 "));
}

#[test]
fn an_unknown_user_is_a_hard_bounce_and_the_sender_is_told() {
    let mut world = world();
    send(
        &world,
        "MAIL FROM:<a@sender.test> RET=FULL ENVID=QQ314159",
        &["RCPT TO:<nobody@one.test> NOTIFY=FAILURE ORCPT=rfc822;no+2Bbody@orig.test", "RCPT TO:<b@one.test>"],
    );
    let bounce = world.event("Bounce", "nobody@one.test");
    assert_eq!((&bounce["bounceType"], &bounce["bounceSubType"]), (&"Permanent".into(), &"NoEmail".into()), "{bounce}");
    let dsn = world.deliveries(1, 1)[0].clone();
    assert_eq!((dsn.sender.as_str(), &dsn.recipients[..]), ("", &["a@sender.test".to_owned()][..]));
    let text = dsn.text();
    for wanted in [
        "Content-Type: multipart/report;",
        "Original-Envelope-Id: QQ314159\r\n",
        "Original-Recipient: rfc822; no+body@orig.test\r\n",
        "Final-Recipient: rfc822; nobody@one.test\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Remote-MTA: dns; mx.one.test\r\n",
        "Diagnostic-Code: smtp; 550",
        "Content-Type: message/rfc822\r\n",
        "\r\nHello.\r\n",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    assert!(!text.contains("b@one.test>:"), "only the failed recipient is in it");
    world.drained();
    assert_eq!(world.sinks[1].recipients(), 1, "one DSN");
}

#[test]
fn nobody_is_told_who_does_not_want_to_be() {
    let mut world = world();
    send(&world, "MAIL FROM:<a@sender.test>", &["RCPT TO:<nobody1@one.test> NOTIFY=NEVER"]);
    send(&world, "MAIL FROM:<a@sender.test>", &["RCPT TO:<nobody2@one.test> NOTIFY=DELAY"]);
    send(&world, "MAIL FROM:<>", &["RCPT TO:<nobody3@one.test>"]);
    for n in 1..4 {
        world.event("Bounce", &format!("nobody{n}@one.test"));
    }
    world.drained();
    assert_eq!(world.sinks[1].recipients(), 0, "{:?}", world.sinks[1].deliveries());
    assert_eq!(world.json(&["status", "--json"])["totals"]["dsns"], 0);
}

#[test]
fn a_dsn_that_cannot_be_delivered_makes_no_other_one() {
    let mut world = world();
    let reply = world.connect().submit("nobody@one.test", &["nobody9@one.test"], MESSAGE);
    assert!(reply.starts_with("250 "));
    world.event("Bounce", "nobody9@one.test");
    world.event("Bounce", "nobody@one.test");
    world.drained();
    assert_eq!(world.json(&["status", "--json"])["totals"]["dsns"], 1);
}
