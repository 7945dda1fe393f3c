//! What the SMTP machines cost per message, sockets and spool left out.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_engine::smtp::{
    client::{Act, Client, ClientPolicy, Tls},
    envelope::Notify,
    letter::{Letter, To},
    server::{FinalReply, Server, ServerPolicy, Step},
};
use std::{hint::black_box, sync::Arc};

const KIB4: usize = 4096;

fn text() -> Vec<u8> {
    let line = format!("{}\r\n", "x".repeat(76));
    format!("From: a@b.test\r\nSubject: bench\r\n\r\n{}", line.repeat(KIB4 / line.len())).into_bytes()
}

/// A session to the point where it waits for MAIL.
fn server() -> Server {
    let mut server = Server::new(Arc::new(ServerPolicy::default()), false);
    give(&mut server, b"EHLO client.test\r\n");
    assert_eq!(server.step(), Step::Read);
    server.out().clear();
    server
}

fn give(server: &mut Server, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = server.space();
        let n = space.len().min(rest.len());
        space[..n].copy_from_slice(&rest[..n]);
        server.filled(n);
        rest = &rest[n..];
    }
}

fn receive(c: &mut Criterion) {
    let text = text();
    let commands = b"MAIL FROM:<sender@client.test> SIZE=4096\r\nRCPT TO:<recipient@example.test>\r\n";
    let data = [commands.as_slice(), b"DATA\r\n", &text, b".\r\n"].concat();
    let bdat = [commands.as_slice(), format!("BDAT {} LAST\r\n", text.len()).as_bytes(), &text].concat();
    let mut group = c.benchmark_group("smtp_server");
    group.throughput(Throughput::Elements(1));
    for (name, input) in [("4 KiB by DATA, one buffer", data), ("4 KiB by BDAT, one buffer", bdat)] {
        let mut server = server();
        group.bench_function(name, |b| {
            b.iter(|| {
                give(&mut server, &input);
                assert_eq!(server.step(), Step::Message);
                black_box((server.content(), server.envelope()));
                server.finish(FinalReply::Accepted {
                    id: "0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000",
                });
                assert_eq!(server.step(), Step::Read);
                server.out().clear();
            });
        });
    }
}

fn send(c: &mut Criterion) {
    let text = text();
    let mut group = c.benchmark_group("smtp_client");
    group.throughput(Throughput::Elements(1));
    for (name, ehlo) in [
        ("4 KiB by DATA", "220 r\r\n250-r\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n"),
        ("4 KiB by BDAT", "220 r\r\n250-r\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 1000000\r\n"),
    ] {
        let mut client = Client::new(ClientPolicy::new("out.test".into(), Tls::Never));
        let mut out = Vec::new();
        let (greeting, hello) = ehlo.split_at(7);
        for reply in [greeting, hello] {
            tell(&mut client, reply);
            while client.step() == Act::Write {
                out.clear();
                client.take_out(&mut out);
            }
        }
        group.bench_function(name, |b| b.iter(|| deliver(&mut client, &text, &mut out)));
    }
}

fn tell(client: &mut Client, reply: &str) {
    client.space()[..reply.len()].copy_from_slice(reply.as_bytes());
    client.filled(reply.len());
}

/// One letter, from offer to outcome.
fn deliver(client: &mut Client, text: &[u8], out: &mut Vec<u8>) {
    let to = [To { address: "recipient@example.test", notify: Notify::DEFAULT, orcpt: None }];
    client.offer(&Letter {
        id: 1,
        sender: "sender@client.test",
        recipients: &to,
        size: text.len() as u64,
        eight_bit: false,
        smtputf8: false,
        ret: None,
        env_id: None,
    });
    let mut replies = ["250 ok\r\n250 ok\r\n354 go\r\n", "250 2.0.0 Ok: queued\r\n"].into_iter();
    if client.capabilities().chunking {
        replies = ["", "250 ok\r\n250 ok\r\n250 2.0.0 Ok: queued\r\n"].into_iter();
    }
    loop {
        match client.step() {
            Act::Write => {
                out.clear();
                client.take_out(out);
            }
            Act::Content { .. } => {
                client.content_append(text);
                client.content_done();
            }
            Act::Outcome => return,
            Act::Read => tell(client, replies.next().unwrap_or_default()),
            act => panic!("{act:?}"),
        }
    }
}

criterion_group!(benches, receive, send);
criterion_main!(benches);
