//! More than the server can take: the rest is told to come again, what was taken goes its way, memory keeps its ceiling,
//! and all is well at once when the load goes.

use crate::{
    hostile_clients::{anonymous, descriptors},
    world::{Client, MESSAGE, World, host},
};
use mailrail_bench::{
    load::{Amount, Load, Pace, Sizes},
    model::Model,
    sink::{Sink, SinkConfig},
};
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

const MIB: u64 = 1 << 20;

fn world(model: Model, changes: &[(&str, &str)]) -> World {
    let mut world = World::new(vec![model], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    world.configure(changes);
    world.start();
    world.apply(crate::world::FLEET);
    world
}

/// Transactions that are begun and never ended hold a buffer each: there is room for some, the rest get 452 or 421.
#[test]
fn memory_has_a_ceiling_and_is_there_again_when_clients_go() {
    let ceiling = 96 * MIB;
    let many = ("[[listener]]", "max_connections = 10000\nmax_connections_per_ip = 10000");
    let mut world = world(Model::named("accept"), &[many, ("[limits]", "memory = \"96MiB\"")]);
    let address = world.listener(0);
    let count = descriptors().saturating_sub(200).min(500);
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(address)).collect();
    let header = format!("From: a@sender.test\r\nX-Long: {}", "\r\n\ty".repeat(12_000));
    let mut begun = Vec::new();
    for client in &mut clients {
        client.ask("EHLO client.test");
        let reply = client.ask("MAIL FROM:<a@sender.test>");
        begun.push(reply.starts_with("250 "));
        if !reply.starts_with("250 ") {
            assert!(reply.starts_with("452 4.3.1 "), "{reply}");
            continue;
        }
        client.ask("RCPT TO:<b@one.test>");
        assert!(client.ask("DATA").starts_with("354 "));
        // A header section that fills the receive buffer and does not end.
        client.send(&header);
    }
    let (held, taken) = (anonymous(&world), begun.iter().filter(|begun| **begun).count());
    eprintln!("{taken} of {count} transactions begun, {} MiB of heap", held / MIB);
    assert!(taken > 100 && taken < count, "{taken} of {count}");
    assert!(held < ceiling, "{held} octets of heap");
    assert!(Client::connect(address).greeting.starts_with("421 4.3.1 "), "no connections either");
    // Those that have begun may end.
    let last = &mut clients[0];
    last.send("\r\n\r\nHello.\r\n.\r\n");
    assert!(last.reply().starts_with("250 "));
    drop(clients);
    world.until("room", |world| {
        let mut client = world.connect();
        client.greeting.starts_with("220 ")
            && client.submit("a@sender.test", &["b@one.test"], MESSAGE).starts_with("250 ")
    });
    world.drained();
}

/// A queue that grows, because its receiver is away, is memory, too: mail is put off, none is lost, and taken again later.
#[test]
fn a_long_queue_puts_new_mail_off() {
    let away = host(9);
    let mut world =
        World::new(vec![Model::named("accept")], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", away));
    // Two shards have 4 MiB between them: some ten thousand messages.
    world.configure(&[("[limits]", "memory = \"52MiB\"")]);
    world.start();
    world.apply(crate::world::FLEET);
    let mut load = Load::new(world.listener(0));
    load.amount = Amount::Messages(30_000);
    load.sizes = Sizes::Fixed(512);
    load.domains[0].domain = "one.test".into();
    load.attempts_max = 1;
    let (refused, first) = mpsc::channel();
    load.record = Some(Arc::new(move |record| {
        if record.accepted.is_empty() {
            let _ = refused.send(());
        }
    }));
    let running = load.start().expect("it starts");
    let _ = first.recv_timeout(crate::world::PATIENCE);
    running.stop();
    let outcome = running.wait();
    let (held, mut accepted) = (anonymous(&world), outcome.report.accepted);
    eprintln!("{accepted} messages accepted, {} MiB of heap", held / MIB);
    assert!(accepted > 1_000 && accepted < 30_000, "{:?}", outcome.report);
    // The load's own connections have left some room.
    let mut client = world.connect();
    let refusal = loop {
        match client.submit("a@sender.test", &["c@one.test"], MESSAGE) {
            taken if taken.starts_with("250 ") => accepted += 1,
            refusal => break refusal,
        }
    };
    assert!(refusal.starts_with("452 4.3.1 "), "{refusal}");
    drop(client);
    assert!(held < 52 * MIB, "{held} octets of heap");
    let there = Sink::start(SinkConfig::default().listen((away, world.port))).expect("the port is free there, too");
    world.until("room", |world| world.connect().submit("a@sender.test", &["c@one.test"], MESSAGE).starts_with("250 "));
    assert!(there.wait_for_recipients(accepted + 1, crate::world::PATIENCE), "{} of {accepted}", there.recipients());
    world.drained();
    assert_eq!(there.recipients(), accepted + 1, "each once");
}

/// Eight times as many clients as there is room for, all as fast as they can: who is let in is served in turn. While a calm
/// client of them sends a message, the others send a few each, and never many: it waits for nobody's backlog. All that was
/// accepted arrives while the load still goes on, and nothing is refused once it has gone.
#[test]
fn what_is_accepted_under_overload_is_served_in_turn_and_all_is_well_at_once_afterwards() {
    const ROOM: u32 = 16;
    let room = format!("max_connections = {ROOM}\nmax_connections_per_ip = {ROOM}");
    let mut world = world(Model::named("accept"), &[("[[listener]]", &room)]);
    // It comes first, so that it has its place.
    let mut calm = world.connect();
    assert!(calm.ask("EHLO client.test").starts_with("250"));
    let mut load = Load::new(world.listener(0));
    load.connections = 8 * ROOM as usize;
    load.pace = Pace::Closed;
    load.amount = Amount::For(Duration::from_secs(600));
    load.domains[0].domain = "one.test".into();
    load.senders = vec!["a@sender.test".into()];
    load.attempts_max = 10_000;
    load.retry_after = Duration::from_millis(20);
    let running = load.start().expect("it starts");
    world.until("overload", |_| running.progress().accepted > 200);
    let mut most = 0;
    for _ in 0..100 {
        let before = running.progress().accepted;
        let reply = calm.submit("a@sender.test", &["b@one.test"], MESSAGE);
        assert!(reply.starts_with("250 "), "{reply}");
        most = most.max(running.progress().accepted - before);
    }
    // Each of four commands may wait for all the others once or twice, and this process is not always awake.
    eprintln!("at most {most} messages of {ROOM} busy connections during one of a calm one");
    assert!(most < u64::from(ROOM) * 100, "{most} messages went before one");
    assert!(world.sinks[0].wait_for_recipients(300, crate::world::PATIENCE), "deliveries go on under overload");
    assert!(refused(&world) > 0, "nobody was turned away");
    running.stop();
    let accepted = running.wait().report.accepted + 100;
    drop(calm);
    world.drained();
    assert!(world.sinks[0].recipients() >= accepted, "{} of {accepted}", world.sinks[0].recipients());
    for _ in 0..ROOM {
        world.submit(&["b@one.test"], MESSAGE);
    }
}

/// Connections that were turned away.
fn refused(world: &World) -> u64 {
    let status = world.json(&["status", "--json"]);
    let shards = status["shards"].as_array().into_iter().flatten();
    shards.filter_map(|shard| shard["sessionsRefused"].as_u64()).sum()
}

/// Far more clients than connections: each message is taken or not, none is lost, and a calm client is served as before.
#[test]
fn beyond_its_connections_clients_are_turned_away_and_no_mail_is_lost() {
    let mut world = world(Model::named("accept"), &[("[[listener]]", "max_connections = 16")]);
    let mut load = Load::new(world.listener(0));
    load.connections = 128;
    load.pace = Pace::Closed;
    load.amount = Amount::Messages(3_000);
    load.domains[0].domain = "one.test".into();
    load.senders = vec!["a@sender.test".into()];
    load.attempts_max = 10_000;
    load.retry_after = Duration::from_millis(20);
    load.patience = crate::world::PATIENCE;
    let outcome = load.run().expect("it starts");
    assert!(refused(&world) > 0, "nobody was turned away");
    assert_eq!(outcome.report.accepted, 3_000, "{:?}", outcome.report);
    world.drained();
    let books = world.sinks[0].ledger().reconcile(&outcome.ledger);
    assert_eq!((books.missing, books.duplicated), (0, 0));
    world.submit(&["b@one.test"], MESSAGE);
}
