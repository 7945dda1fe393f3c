//! Clients that mean harm: floods, slow writers, clients that never read, line ends and NUL in every field, nested content.

use crate::world::{Client, MESSAGE, World, host};
use mailrail_bench::model::Model;
use std::{fs, io::Write, net::TcpStream};

/// Octets of memory that an idle or slow connection may cost, kernel buffers not counted: the first receive buffer is 8 KiB.
const CONNECTION: u64 = 32 << 10;

fn world(listener: &str) -> World {
    let mut world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[("[[listener]]", listener)]);
    world.start();
    world.apply(crate::world::FLEET);
    world
}

/// A header section beyond all measure is read to its end and refused; the session goes on.
#[test]
fn header_floods_are_refused_and_cost_one_buffer() {
    let world = world("");
    let before = resident(&world);
    let many = (0..100_000).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let one = format!("X: {}\r\n", "y".repeat(10 << 20));
    let folded = format!("X: y\r\n{}", "\ty\r\n".repeat(200_000));
    for flood in [many, one, folded] {
        let mut client = world.connect();
        let reply = client.submit("a@sender.test", &["b@one.test"], &format!("{flood}{MESSAGE}"));
        assert!(reply.starts_with("554 5.6.0"), "{reply}");
        assert!(client.ask("NOOP").starts_with("250"));
    }
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} octets for three floods of up to 10 MiB, one after the other");
}

/// Content is never taken apart, so what nests in it costs nothing and arrives as it was.
#[test]
fn nested_parts_are_passed_on_unread() {
    let mut world = world("");
    let mut nested = String::from("From: a@sender.test\r\nMIME-Version: 1.0\r\n");
    for n in 0..20_000 {
        nested += &format!("Content-Type: multipart/mixed; boundary=\"{n}\"\r\n\r\n--{n}\r\n");
    }
    nested += "\r\nend\r\n";
    world.submit(&["b@one.test"], &nested);
    let copy = world.deliveries(0, 1)[0].clone();
    let (_, body) = nested.split_once("\r\n\r\n").expect("it has a header section");
    assert!(copy.text().ends_with(body), "the body is as it was");
    world.drained();
}

/// Nor is anything unpacked: what would be a thousand times as large, once and in itself, is so many octets of mail.
#[test]
fn what_would_expand_is_passed_on_as_it_is() {
    let mut world = world("");
    let before = resident(&world);
    // 42 zeroed KiB in a stored form that says it is gzip, base64 of it nested, and transfer encodings that promise more.
    let packed = "H4sIAAAAAAAA/+3BMQEAAADCoPVPbQhfoAAAAAAAAAAAAAAAAAAAAIC3AYbSVKsAQAAA\r\n".repeat(500);
    let mut content = String::from("From: a@sender.test\r\nMIME-Version: 1.0\r\nContent-Encoding: gzip\r\n");
    content += "Content-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    content += &packed;
    for encoding in ["quoted-printable", "uuencode", "base64"] {
        content += &format!("--x\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
        content += &"=3D=\r\n".repeat(1000);
    }
    for _ in 0..20 {
        world.submit(&["b@one.test"], &content);
    }
    let copies = world.deliveries(0, 20);
    let (_, body) = content.split_once("\r\n\r\n").expect("it has a header section");
    assert!(copies.iter().all(|copy| copy.text().ends_with(body)), "the body is as it was");
    world.drained();
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} octets for 20 messages of {}", content.len());
}

/// Wherever a client can put text, a line end or NUL in it is refused with one reply, and reaches neither log nor event.
#[test]
fn no_line_end_gets_into_any_field() {
    let world = world("");
    for evil in ["\rEVIL", "\nEVIL", "\0EVIL", "\n.\nEVIL", "\u{1b}[31mEVIL"] {
        for (before, line) in [
            (None, format!("EHLO client.test{evil}")),
            (None, format!("HELO client.test{evil}")),
            (None, format!("EVIL{evil}")),
            (Some("EHLO client.test"), format!("MAIL FROM:<a{evil}@sender.test>")),
            (Some("EHLO client.test"), format!("MAIL FROM:<\"a{evil}\"@sender.test>")),
            (Some("EHLO client.test"), format!("MAIL FROM:<a@sender.test> ENVID=x{evil}")),
            (Some("EHLO client.test"), format!("VRFY a{evil}")),
        ] {
            refused(&world, before, &line);
        }
    }
    for line in ["MAIL FROM:<a@sender.test> ENVID=x+0D+0AEVIL", "MAIL FROM:<a@sender.test> ENVID=+00EVIL"] {
        refused(&world, Some("EHLO client.test"), line);
    }
    let mut client = world.connect();
    client.ask("EHLO client.test");
    client.ask("MAIL FROM:<a@sender.test>");
    for line in ["RCPT TO:<b@one.test> ORCPT=rfc822;b+0D+0AEVIL", "RCPT TO:<b\rEVIL@one.test>"] {
        let reply = client.ask(line);
        assert!(reply.starts_with('5') && reply.matches('\n').count() == 1, "{line:?}: {reply:?}");
    }
    let log = world.log();
    assert!(log.lines().all(|line| !line.starts_with("EVIL")), "{log}");
    assert!(!log.contains("\u{1b}[31mEVIL") && !log.contains('\0'));
}

fn refused(world: &World, before: Option<&str>, line: &str) {
    let mut client = world.connect();
    before.map(|hello| client.ask(hello));
    let reply = client.ask(line);
    assert!(reply.starts_with('5') && reply.matches('\n').count() == 1, "{line:?}: {reply:?}");
    assert!(!reply.contains("\u{1b}") && client.ask("NOOP").starts_with("250"), "{line:?}: one line, one reply");
}

/// Slowloris: each holds a command, or content, that it never ends. Others are served, and memory is bounded.
#[test]
fn slow_writers_by_the_thousand_cost_little_and_hold_up_nobody() {
    let mut world = world("max_connections = 10000\nmax_connections_per_ip = 10000");
    let address = world.listener(0);
    let before = resident(&world);
    let count = descriptors().saturating_sub(200).min(2000);
    let mut slow: Vec<TcpStream> = Vec::with_capacity(count);
    for n in 0..count {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let start = "EHLO client.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@one.test>\r\nDATA\r\nFrom: a";
        let sent = if n % 2 == 0 { "EHLO cli" } else { start };
        stream.write_all(sent.as_bytes()).expect("it reads");
        slow.push(stream);
    }
    world.until("all connections", |world| {
        world.json(&["status", "--json"])["totals"]["sessions"].as_u64() >= Some(count as u64)
    });
    for _ in 0..3 {
        slow.iter_mut().for_each(|stream| stream.write_all(b"e").expect("it still reads"));
    }
    world.submit(&["b@one.test"], MESSAGE);
    world.deliveries(0, 1);
    let each = resident(&world).saturating_sub(before) / count as u64;
    eprintln!("{count} slow connections: {each} octets each");
    assert!(each < CONNECTION, "{each} octets a connection");
}

/// What a client makes us say is larger than what it says; one that never reads it is not answered without end. Slow writers
/// come at the same time.
#[test]
fn clients_that_never_read_fill_no_memory() {
    let world = world("max_connections = 10000\nmax_connections_per_ip = 10000");
    let before = resident(&world);
    let flood = "EHLO client.test\r\n".repeat(20_000);
    let (mut deaf, mut slow) = (Vec::new(), Vec::new());
    let count = descriptors().saturating_sub(200).min(4000) / 2;
    for _ in 0..count {
        let mut stream = TcpStream::connect(world.listener_known()).expect("it listens");
        stream.write_all(b"EHLO cli").expect("it reads");
        slow.push(stream);
        let mut stream = TcpStream::connect(world.listener_known()).expect("it listens");
        stream.set_nonblocking(true).expect("it is a socket");
        // As much as the system takes: the server hangs up after its limit of idle commands.
        let _ = stream.write(flood.as_bytes());
        deaf.push(stream);
    }
    assert!(Client::connect(world.listener(0)).ask("EHLO client.test").starts_with("250"));
    let each = resident(&world).saturating_sub(before) / count as u64;
    eprintln!("{count} connections that never read, and as many slow ones: {each} octets a pair");
    assert!(each < (160 << 10) + CONNECTION, "{each} octets a connection that never reads and a slow one");
}

/// Octets of memory that the server has in use.
fn resident(world: &World) -> u64 {
    memory(world, "VmRSS:")
}

/// The same, without what is of files, which the kernel may take back.
pub fn anonymous(world: &World) -> u64 {
    memory(world, "RssAnon:")
}

fn memory(world: &World, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// How many files this process may have open.
pub fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux says it");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("Linux says it");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

/// A command has to be whole in its time, however many octets of it come meanwhile.
#[test]
fn an_octet_now_and_then_is_no_command() {
    let world = world("idle_timeout = \"1s\"");
    let mut client = world.connect();
    let mut octets = b"EHLO a-name-that-does-not-end".iter().cycle();
    let end = std::time::Instant::now() + crate::world::PATIENCE;
    let mut stream = client.stream().try_clone().expect("a socket");
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a valid time");
    // The wait for a reply is the pause between two octets.
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n") {
        assert!(std::time::Instant::now() < end, "still waited for");
        client.send([*octets.next().expect("it is a cycle")]);
        let mut piece = [0; 512];
        if let Ok(n) = std::io::Read::read(&mut stream, &mut piece) {
            said.extend_from_slice(&piece[..n]);
        }
    }
    assert!(said.starts_with(b"451 4.4.2"), "{}", String::from_utf8_lossy(&said));
}
