//! DNS answers that are huge, looping, lying or late: each ends in a defined outcome, and other mail goes on.

use crate::world::{FLEET, MESSAGE, World, host};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, MX},
    },
};
use mailrail_bench::{dns::Zone, model::Model};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

/// `one.test` and `two.test` are well; the rest is up to `zone`.
fn world(zone: impl Fn(Zone) -> Zone) -> World {
    World::new(vec![Model::named("accept"), Model::named("accept")], |known| {
        zone(known.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)))
            .mx("two.test", 10, "mx.two.test")
            .a("mx.two.test", host(1))
    })
}

/// A thousand mail hosts of sixty addresses each, over TCP as they have to: the best are kept, and the mail goes.
#[test]
fn huge_answers_are_cut() {
    let world = world(|mut zone| {
        zone = zone.truncated("huge.test").mx("huge.test", 1, "mx.one.test");
        for n in 0..1000 {
            zone = zone.mx("huge.test", 10 + n % 7, &format!("mx{n}.huge.test"));
        }
        (0..60).fold(zone, |zone, n| zone.a("*.huge.test", Ipv4Addr::new(127, 9, 9, n)))
    })
    .started();
    world.submit(&["b@huge.test"], MESSAGE);
    world.deliveries(0, 1);
    assert!(world.dns.queries() < 200, "a domain makes a bounded number of questions: {}", world.dns.queries());
}

/// Aliases in a circle, a domain that is its own alias, mail hosts that are aliases in a circle.
#[test]
fn circles_end() {
    let mut world = world(|zone| {
        zone.cname("round.test", "about.test")
            .cname("about.test", "round.test")
            .cname("self.test", "self.test")
            .mx("hosts.test", 10, "mx.round.test")
            .cname("mx.round.test", "mx.about.test")
            .cname("mx.about.test", "mx.round.test")
    });
    world.configure(&[("[delivery]", "max_age = \"2s\""), ("[delivery.retry]", "first = \"100ms\"\nmax = \"200ms\"")]);
    world.start();
    world.apply(FLEET);
    let circles = ["b@round.test", "b@self.test", "b@hosts.test"];
    for recipient in circles {
        world.submit(&[recipient], MESSAGE);
    }
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    for recipient in circles {
        world.until(&format!("the end of {recipient}"), |world| {
            let told =
                |kind: &str| world.events().iter().any(|e| e["recipient"] == recipient && e["eventType"] == kind);
            told("Bounce") || told("Expired")
        });
    }
}

/// Answers with another id, to another question, with records nobody asked for, of octets that are no DNS, and only then
/// the true one: lies about other names are not believed.
#[test]
fn lies_are_not_believed() {
    let mut world = world(|zone| zone);
    let (liar, truth) = (UdpSocket::bind("127.0.0.1:0").expect("a free port"), world.dns.addr());
    let address = liar.local_addr().expect("it is bound");
    thread::spawn(move || while lie(&liar, truth).is_some() {});
    world.configure(&[("[dns]", &format!("servers = [\"{address}\"]"))]);
    world.start();
    world.apply(FLEET);
    for recipient in ["b@one.test", "b@two.test", "b@one.test", "b@two.test"] {
        world.submit(&[recipient], MESSAGE);
        world.event("Delivery", recipient);
    }
    world.drained();
    for (sink, recipient) in [(0, "b@one.test"), (1, "b@two.test")] {
        let copies = world.deliveries(sink, 2);
        assert!(copies.iter().all(|copy| copy.recipients == [recipient]), "{copies:?}");
    }
}

/// One question to the liar: lies first, then what the true server says with a lie beside it.
fn lie(liar: &UdpSocket, truth: SocketAddr) -> Option<()> {
    let mut buffer = [0; 4096];
    let (n, asker) = liar.recv_from(&mut buffer).ok()?;
    let question = Message::from_vec(&buffer[..n]).ok()?;
    // Everybody's mail to the host of `one.test`.
    let everywhere = |name: Name| {
        let mx = Record::from_rdata(name.clone(), 3600, RData::MX(MX::new(0, name_of("mx.one.test."))));
        [mx, Record::from_rdata(name, 3600, RData::A(A(host(0))))]
    };
    let asked = question.queries.first()?.name().clone();
    let mut other_id =
        Message::new(question.metadata.id.wrapping_add(1), MessageType::Response, question.metadata.op_code);
    other_id.add_queries(question.queries.clone());
    other_id.add_answers(everywhere(asked.clone()));
    let mut other_name = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    let mut query = question.queries.first()?.clone();
    query.set_name(name_of("elsewhere.test."));
    other_name.add_query(query);
    other_name.add_answers(everywhere(name_of("elsewhere.test.")));
    other_name.metadata.response_code = ResponseCode::NoError;
    for lie in [other_id.to_vec().ok()?, other_name.to_vec().ok()?, vec![0xff; 700], Vec::new()] {
        liar.send_to(&lie, asker).ok()?;
    }
    let ask = UdpSocket::bind("127.0.0.1:0").ok()?;
    ask.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    ask.send_to(&buffer[..n], truth).ok()?;
    let mut answer = [0; 4096];
    let n = ask.recv(&mut answer).ok()?;
    let mut answer = Message::from_vec(&answer[..n]).ok()?;
    // Out of its bailiwick, and not asked for: the other domain's mail is to come here as well.
    let (mine, victim) = if asked.to_ascii().ends_with("one.test.") { (0, "two.test.") } else { (1, "one.test.") };
    let theft = |name: Name| {
        let mx = RData::MX(MX::new(0, name_of("mx.thief.test.")));
        [Record::from_rdata(name.clone(), 3600, mx), Record::from_rdata(name, 3600, RData::A(A(host(mine))))]
    };
    answer.add_authorities(theft(name_of(victim)));
    answer.add_additionals(theft(name_of(victim)));
    answer.add_additionals(theft(name_of(&format!("mx.{victim}"))));
    liar.send_to(&answer.to_vec().ok()?, asker).ok()?;
    Some(())
}

fn name_of(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// Names whose servers answer after minutes, or never: their mail waits, everybody else's goes.
#[test]
fn late_answers_hold_up_nobody() {
    let mut world = world(|zone| {
        (0..300).fold(zone, |zone, n| {
            let name = format!("late{n}.test");
            if n % 2 == 0 { zone.timeout(&name) } else { zone.delay(&name, Duration::from_secs(90)) }
        })
    });
    world.configure(&[("[dns]", "timeout = \"2s\"")]);
    world.start();
    world.apply(FLEET);
    let late: Vec<_> = (0..300).map(|n| format!("b@late{n}.test")).collect();
    for ten in late.chunks(10) {
        world.submit(&ten.iter().map(String::as_str).collect::<Vec<_>>(), MESSAGE);
    }
    world.submit(&["b@one.test"], MESSAGE);
    world.event("Delivery", "b@one.test");
    let lost = world.events().iter().filter(|event| event["eventType"] == "Bounce").count();
    assert_eq!(lost, 0, "late is no reason to bounce");
}
