//! The test DNS, asked over its sockets.

use super::*;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

fn server() -> DnsServer {
    let zone = Zone::new()
        .mx("Example.com", 10, "mx1.example.com")
        .mx("example.com", 20, "mx2.example.com")
        .a("mx1.example.com", Ipv4Addr::new(127, 0, 20, 1))
        .aaaa("mx2.example.com", Ipv6Addr::LOCALHOST)
        .null_mx("null.test")
        .cname("alias.test", "example.com")
        .cname("loop.test", "loop.test")
        .servfail("broken.test")
        .timeout("silent.test")
        .truncated("big.test")
        .txt("big.test", &"x".repeat(3000))
        .txt("s1._domainkey.example.com", "v=DKIM1; p=abc")
        .a("*.wild.test", Ipv4Addr::LOCALHOST)
        .a("deep.below.test", Ipv4Addr::LOCALHOST);
    DnsServer::start(zone).unwrap()
}

fn ask(server: &DnsServer, name: &str, kind: RecordType) -> hickory_proto::op::Message {
    stub::ask(server.addr(), name, kind).unwrap()
}

#[test]
fn mx_set_with_preferences_is_answered_whatever_the_case() {
    let server = server();
    let reply = ask(&server, "EXAMPLE.com", RecordType::MX);
    let mut exchanges: Vec<_> = reply
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::MX(mx) => (mx.preference, mx.exchange.to_ascii()),
            other => panic!("{other:?}"),
        })
        .collect();
    exchanges.sort();
    assert_eq!(exchanges, [(10, "mx1.example.com.".into()), (20, "mx2.example.com.".into())]);
    assert_eq!(server.queries_for("example.com", RecordType::MX), 1);
}

#[test]
fn addresses_null_mx_wildcard_and_alias() {
    let server = server();
    assert_eq!(ask(&server, "mx1.example.com", RecordType::A).answers.len(), 1);
    assert_eq!(ask(&server, "mx2.example.com", RecordType::AAAA).answers.len(), 1);
    assert_eq!(ask(&server, "any.wild.test", RecordType::A).answers.len(), 1);
    let null = ask(&server, "null.test", RecordType::MX);
    assert!(matches!(&null.answers[0].data, RData::MX(mx) if mx.exchange.is_root() && mx.preference == 0));
    let alias = ask(&server, "alias.test", RecordType::MX);
    assert_eq!(alias.answers.iter().filter(|record| record.record_type() == RecordType::MX).count(), 2);
    assert_eq!(alias.answers.iter().filter(|record| record.record_type() == RecordType::CNAME).count(), 1);
    assert!(!ask(&server, "loop.test", RecordType::A).answers.is_empty());
}

#[test]
fn negative_answers_are_told_apart_and_carry_a_soa() {
    let server = server();
    for (name, kind, code) in [
        ("nowhere.test", RecordType::MX, ResponseCode::NXDomain),
        ("mx1.example.com", RecordType::MX, ResponseCode::NoError),
        ("below.test", RecordType::A, ResponseCode::NoError),
    ] {
        let reply = ask(&server, name, kind);
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(ask(&server, "broken.test", RecordType::MX).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn truncated_answer_comes_back_over_tcp() {
    let server = server();
    let texts = stub::txt(server.addr(), "big.test").unwrap();
    assert_eq!(texts, [vec![b'x'; 3000]]);
    assert_eq!(server.tcp_queries(), 1);
}

#[test]
fn silence_is_counted_and_the_zone_changes_live() {
    let server = server();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut query = hickory_proto::op::Message::query();
    let name = hickory_proto::rr::Name::from_ascii("silent.test.").unwrap();
    query.add_query(hickory_proto::op::Query::query(name, RecordType::A));
    socket.send_to(&query.to_vec().unwrap(), server.addr()).unwrap();
    assert_eq!(ask(&server, "mx1.example.com", RecordType::A).answers.len(), 1);
    assert_eq!(server.queries_for("silent.test", RecordType::A), 1);
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_err());

    server.update(|zone| zone.set_fault("silent.test", Fault::None));
    assert_eq!(ask(&server, "silent.test", RecordType::A).metadata.response_code, ResponseCode::NoError);
    server.replace(Zone::new());
    assert_eq!(ask(&server, "example.com", RecordType::MX).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn delayed_answer_waits_at_least_its_delay() {
    let delay = Duration::from_millis(30);
    let zone = Zone::new().a("late.test", Ipv4Addr::LOCALHOST).delay("late.test", delay);
    let server = DnsServer::start(zone).unwrap();
    let asked = Instant::now();
    assert_eq!(ask(&server, "late.test", RecordType::A).answers.len(), 1);
    assert!(asked.elapsed() >= delay);
}
