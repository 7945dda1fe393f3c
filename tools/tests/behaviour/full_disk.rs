//! A full spool: new mail is put off with 452, deliveries go on, and it recovers by itself.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::{Failure, Model, Stage};

#[test]
fn new_mail_is_put_off_and_taken_again_once_there_is_room() {
    let later = Failure { at: Stage::Mail, ratio: 1.0, reply: "451 4.3.0 later".into() };
    let models = vec![Model { failures: vec![later], ..Model::named("busy") }, Model::named("accept")];
    let mut world = World::new(models, |zone| zone.ttl(1).mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    world.configure(&[("", "shards = 1"), ("[spool]", "segment_size = \"1MiB\"\nmax_bytes = \"4MiB\"")]);
    world.start();
    world.apply(
        "[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.sender.test\"\npool = \"main\"\n",
    );
    let content = format!("{MESSAGE}{}", "0123456789abcdef\r\n".repeat(5_000));
    let mut accepted = 0;
    let mut client = world.connect();
    let refusal = loop {
        let reply = client.submit("a@sender.test", &["b@one.test"], &content);
        if !reply.starts_with("250") {
            break reply;
        }
        accepted += 1;
        assert!(accepted < 200, "4 MiB cannot hold so much");
    };
    assert!(refusal.starts_with("452 4.3.1"), "{refusal}");
    assert!(accepted > 10, "{accepted}");
    world.dns.update(|zone| {
        zone.remove("mx.one.test");
        *zone = std::mem::take(zone).a("mx.one.test", host(1));
    });
    world.deliveries(1, accepted);
    world.drained();
    world.until("room for new mail", |world| {
        world.connect().submit("a@sender.test", &["b@one.test"], &content).starts_with("250")
    });
}
