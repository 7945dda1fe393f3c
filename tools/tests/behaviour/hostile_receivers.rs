//! Receivers that break the protocol: every way of it ends in a defined outcome, and the mail arrives once they behave.

use crate::world::{MESSAGE, World, host};
use mailrail_bench::model::{Fault, FaultKind, Model, Stage};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// Misbehaves twice, then takes the mail.
fn survives(kind: FaultKind, at: Stage) {
    let fault = Fault { kind, at, ratio: 1.0, times: Some(2) };
    let mut world = World::new(vec![Model { faults: vec![fault], ..Model::named("hostile") }], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[delivery.retry]", "first = \"100ms\"\nmax = \"200ms\"")]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    assert_eq!(world.sinks[0].recipients(), 1, "{kind:?} at {at:?}: once");
}

#[test]
fn early_close() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::Drop, at);
    }
}

#[test]
fn close_in_the_middle_of_the_content() {
    survives(FaultKind::DropMidData, Stage::Data);
}

#[test]
fn replies_that_are_no_smtp() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::MalformedReply, at);
    }
}

#[test]
fn replies_that_never_end() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Dot] {
        survives(FaultKind::EndlessReply, at);
    }
}

#[test]
fn shutdown_at_any_point() {
    for at in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        survives(FaultKind::Shutdown, at);
    }
}

/// A receiver that says `first` to `EHLO` of its first connection and behaves from then on; all that it says comes in
/// pieces of `size` octets.
fn raw(listener: TcpListener, first: Vec<u8>, size: usize) {
    thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let hello = if n == 0 { first.clone() } else { b"250 mx.one.test\r\n".to_vec() };
            // A sender that hangs up is the end of this connection only.
            let _ = dialogue(stream, &hello, size);
        }
    });
}

fn dialogue(mut stream: TcpStream, hello: &[u8], size: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut say = |bytes: &[u8]| bytes.chunks(size).try_for_each(|piece| stream.write_all(piece));
    say(b"220 mx.one.test ESMTP\r\n")?;
    let (mut line, mut content) = (String::new(), false);
    while lines.read_line(&mut line)? > 0 {
        match (content, line.get(..4).unwrap_or("")) {
            (true, _) if line == ".\r\n" => {
                content = false;
                say(b"250 2.0.0 taken\r\n")?;
            }
            (true, _) => {}
            (false, "EHLO") => say(hello)?,
            (false, "DATA") => {
                content = true;
                say(b"354 go\r\n")?;
            }
            (false, "QUIT") => return say(b"221 2.0.0 bye\r\n"),
            (false, _) => say(b"250 2.1.0 ok\r\n")?,
        }
        line.clear();
    }
    Ok(())
}

fn against(first: &[u8], size: usize) -> World {
    let mut world = World::new(vec![], |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    let listener = TcpListener::bind((host(0), 0)).expect("a free port");
    world.port = listener.local_addr().expect("it is bound").port();
    raw(listener, first.to_vec(), size);
    world.configure(&[("[delivery.retry]", "first = \"100ms\"\nmax = \"200ms\"")]);
    world.start();
    world.apply(crate::world::FLEET);
    world.submit(&["b@one.test"], MESSAGE);
    world
}

#[test]
fn replies_an_octet_at_a_time() {
    let mut world = against(b"250-mx.one.test\r\n250 8BITMIME\r\n", 1);
    world.event("Delivery", "b@one.test");
}

#[test]
fn a_line_that_never_ends_and_lines_without_number() {
    let flood = [b"250-".to_vec(), vec![b'x'; 4 << 20]].concat();
    let lines = b"250-x\r\n".repeat(200_000);
    for first in [flood, lines, vec![0; 1 << 20], b"250\n250\r250 a\nb\r\n".to_vec()] {
        let mut world = against(&first, 64 << 10);
        world.event("Delivery", "b@one.test");
    }
}

/// What a receiver says stands in events, logs and bounces: never a line end or control character of its choice.
#[test]
fn text_of_a_receiver_makes_no_line_of_its_own() {
    let mut world = against(b"550 5.7.1 no\x1b[31m\x00\rEVIL: x\x0b\r\n", 3);
    world.until("an event", |world| !world.events().is_empty());
    world.until("the outcome", |world| world.events().iter().any(|event| event["eventType"] != "Send"));
    for event in world.events() {
        let told = event.to_string();
        assert!(!told.contains("\\r") && !told.contains("\\u00"), "{told}");
    }
    let log = world.log();
    assert!(!log.contains('\0') && !log.contains("\u{1b}[31m") && log.lines().all(|line| !line.starts_with("EVIL")));
}

/// A host that takes connections and never says a word holds up its own mail only, and only until it is given up for the
/// next host of the domain.
#[test]
fn a_receiver_that_says_nothing_holds_up_nobody() {
    let silent = Fault { kind: FaultKind::Silent, at: Stage::Connect, ratio: 1.0, times: None };
    let models = vec![Model { faults: vec![silent], ..Model::named("silent") }, Model::named("accept")];
    let world = World::new(models, |zone| {
        zone.mx("silent.test", 10, "mx.silent.test")
            .a("mx.silent.test", host(0))
            .mx("one.test", 10, "mx.one.test")
            .a("mx.one.test", host(1))
    })
    .started();
    for _ in 0..20 {
        world.submit(&["b@silent.test"], MESSAGE);
    }
    for _ in 0..20 {
        world.submit(&["b@one.test"], MESSAGE);
    }
    world.deliveries(1, 20);
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["queued"], 20, "what the silent one should have is kept: {status}");
}
