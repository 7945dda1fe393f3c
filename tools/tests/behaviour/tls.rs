//! TLS on both sides: STARTTLS and implicit for clients, opportunistic, required and forbidden towards receivers.

use crate::world::{Client, FLEET, MESSAGE, PATIENCE, World, host};
use mailrail_bench::{
    model::{Model, Starttls},
    tls::TlsIdentity,
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::Arc,
};

fn identity(name: &str) -> TlsIdentity {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    TlsIdentity { cert_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
}

fn write(world: &World, identity: &TlsIdentity) {
    fs::write(world.path("cert.pem"), &identity.cert_pem).expect("the directory is ours");
    fs::write(world.path("key.pem"), &identity.key_pem).expect("the directory is ours");
}

fn receiving(tls: &str) -> World {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    write(&world, &identity("mta.sender.test"));
    world.configure(&[("[[listener]]", tls)]);
    world.start();
    world.apply(FLEET);
    world
}

type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn handshake(stream: TcpStream) -> (TlsStream, Vec<u8>) {
    let config = mailrail_bench::tls::client_config().expect("TLS can be set up");
    let name = "mta.sender.test".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(Arc::clone(&config), name).expect("a valid configuration");
    let mut stream = rustls::StreamOwned::new(connection, stream);
    stream.flush().expect("the handshake");
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("the handshake");
    }
    let certificate = stream.conn.peer_certificates().expect("it has one")[0].to_vec();
    (stream, certificate)
}

fn ask(stream: &mut BufReader<TlsStream>, line: &str) -> String {
    stream.get_mut().write_all(line.as_bytes()).expect("it listens");
    let mut all = String::new();
    loop {
        let mut reply = String::new();
        stream.read_line(&mut reply).expect("it answers");
        all.push_str(&reply);
        if reply.as_bytes().get(3) != Some(&b'-') {
            return all;
        }
    }
}

#[test]
fn a_client_may_start_tls_and_the_event_says_so() {
    let mut world = receiving("tls = { cert = \"cert.pem\", key = \"key.pem\" }");
    let mut client = world.connect();
    assert!(client.ask("EHLO client.test").contains("STARTTLS"));
    assert!(client.ask("STARTTLS").starts_with("220"));
    let (stream, _) = handshake(client.stream().try_clone().expect("a descriptor"));
    let mut stream = BufReader::new(stream);
    let ehlo = ask(&mut stream, "EHLO client.test\r\n");
    assert!(!ehlo.contains("STARTTLS"), "{ehlo}");
    let reply = ask(&mut stream, "MAIL FROM:<a@sender.test>\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    ask(&mut stream, "RCPT TO:<b@one.test>\r\n");
    ask(&mut stream, "DATA\r\n");
    assert!(ask(&mut stream, &format!("{MESSAGE}.\r\n")).starts_with("250 "));
    let copy = world.deliveries(0, 1)[0].clone();
    assert!(copy.text().contains("with ESMTPS"), "{}", copy.text());
    assert_eq!(world.event("Send", "b@one.test")["sourceTlsVersion"], "TLSv1.3");
}

#[test]
fn plaintext_behind_starttls_is_never_obeyed() {
    let world = receiving("tls = { cert = \"cert.pem\", key = \"key.pem\" }");
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.send("STARTTLS\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<b@one.test>\r\n");
    let reply = client.reply();
    // Refused, or discarded: in neither case is there an answer to the injected commands.
    if reply.starts_with("220") {
        let (stream, _) = handshake(client.stream().try_clone().expect("a descriptor"));
        let mut stream = BufReader::new(stream);
        ask(&mut stream, "EHLO client.test\r\n");
        assert!(ask(&mut stream, "DATA\r\n").starts_with("503"));
    } else {
        assert!(client.is_closed(), "{reply}");
    }
}

#[test]
fn implicit_tls_and_sighup_with_a_new_certificate() {
    let mut world = receiving("tls = { cert = \"cert.pem\", key = \"key.pem\", implicit = true }");
    let first = {
        let (stream, certificate) = handshake(TcpStream::connect(world.listener(0)).expect("it listens"));
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting).expect("it greets");
        assert!(greeting.starts_with("220 "), "{greeting}");
        certificate
    };
    write(&world, &identity("mta.sender.test"));
    world.signal("HUP");
    world.until("the new certificate", |world| {
        let (_, certificate) = handshake(TcpStream::connect(world.listener(0)).expect("it listens"));
        certificate != first
    });
    fs::write(world.path("cert.pem"), "rubbish").expect("the directory is ours");
    world.signal("HUP");
    world.until("the complaint", |world| world.log().contains("certificates stay as they were"));
    handshake(TcpStream::connect(world.listener(0)).expect("it still listens"));
}

fn sending(starttls: Starttls, delivery: &str, rule: &str, receiver: &TlsIdentity) -> World {
    let model = Model { starttls, ..Model::named("tls") };
    let mut world = World::with_tls(
        vec![model],
        |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)),
        Some(receiver),
    );
    write(&world, receiver);
    world.configure(&[("[delivery]", delivery)]);
    world.start();
    world.apply(&format!("{FLEET}\n{rule}"));
    world.submit(&["b@one.test"], MESSAGE);
    world
}

#[test]
fn tls_is_used_where_it_is_offered_whoever_signed_the_certificate() {
    let mut world = sending(Starttls::Offered, "", "", &identity("wrong.test"));
    assert!(world.deliveries(0, 1)[0].tls.is_some());
    let delivery = world.event("Delivery", "b@one.test");
    assert_eq!(delivery["tlsVersion"], "TLSv1.3");
    assert!(delivery["tlsCipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")), "{delivery}");
}

#[test]
fn a_broken_handshake_does_not_hold_up_mail_that_may_go_in_the_clear() {
    let world = sending(Starttls::BrokenHandshake, "", "", &identity("mx.one.test"));
    assert_eq!(world.deliveries(0, 1)[0].tls, None);
}

#[test]
fn no_tls_where_the_rule_forbids_it() {
    let rule = "[[domain]]\nname = \"one.test\"\ntls = \"none\"\n";
    let world = sending(Starttls::Offered, "", rule, &identity("mx.one.test"));
    assert_eq!(world.deliveries(0, 1)[0].tls, None);
}

const REQUIRED: &str = "[[domain]]\nname = \"one.test\"\ntls = \"required\"\n";

#[test]
fn required_tls_takes_a_certificate_that_can_be_verified() {
    let world = sending(Starttls::Offered, "ca_file = \"cert.pem\"", REQUIRED, &identity("mx.one.test"));
    assert!(world.deliveries(0, 1)[0].tls.is_some());
}

#[test]
fn required_tls_sends_nothing_otherwise() {
    for (starttls, name) in [(Starttls::Offered, "wrong.test"), (Starttls::None, "mx.one.test")] {
        let mut world = sending(starttls, "ca_file = \"cert.pem\"", REQUIRED, &identity(name));
        world.until("the reason", |world| {
            let queue = world.json(&["queue", "--json"]);
            queue["rows"][0]["reason"].as_str().is_some_and(|reason| reason.contains("TLS"))
        });
        assert_eq!(world.sinks[0].recipients(), 0);
    }
}

/// Every other way in which a certificate can be wrong: out of date, not valid yet, of an authority that nobody knows, for a
/// wildcard that does not reach so far, with a key that is not its own, or a handshake that ends in rubbish.
#[test]
fn required_tls_sends_nothing_to_a_certificate_that_fails() {
    let dated = |from: i32, until: i32| {
        let mut params = rcgen::CertificateParams::new(vec!["mx.one.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        TlsIdentity { cert_pem: made.pem(), key_pem: key.serialize_pem() }
    };
    let own = "ca_file = \"cert.pem\"";
    for (what, starttls, delivery, receiver) in [
        ("out of date", Starttls::Offered, own, dated(2001, 2002)),
        ("not valid yet", Starttls::Offered, own, dated(2090, 2091)),
        ("of an unknown authority", Starttls::Offered, "", identity("mx.one.test")),
        ("of a wildcard too far up", Starttls::Offered, own, identity("*.test")),
        ("a broken handshake", Starttls::BrokenHandshake, own, identity("mx.one.test")),
    ] {
        let mut world = sending(starttls, delivery, REQUIRED, &receiver);
        world.until(what, |world| {
            let queue = world.json(&["queue", "--json"]);
            queue["rows"][0]["reason"].as_str().is_some_and(|reason| reason.contains("TLS"))
        });
        assert_eq!(world.sinks[0].recipients(), 0, "{what}");
        let ended = world.events().iter().any(|event| event["eventType"] == "Bounce");
        assert!(!ended, "{what}: it may be mended, and waits");
    }
}

/// Injected replies before the handshake must not be taken for the receiver's.
#[test]
fn plaintext_of_a_receiver_behind_its_220_is_discarded() {
    let world = sending(Starttls::InjectedPlaintext, "", "", &identity("mx.one.test"));
    let done = world.sinks[0].wait_for_recipients(1, PATIENCE);
    assert!(done, "{}", world.log());
    let _ = Client::connect(world.listener(0));
}
