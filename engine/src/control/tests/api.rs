//! What the socket answers, right and wrong.

use super::rig::{rig, rig_and_links, shard};
use crate::link::{Command, Report, SiteAnswer};
use std::io::{Read, Write};

#[test]
fn every_path_answers_in_json_and_states_the_version() {
    let (rig, _shards) = rig("");
    for path in ["status", "queue", "fleet", "health", "config"] {
        let answer = rig.get(&format!("/mailrail/v1/{path}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains(&format!("x-mailrail-version: {}", env!("CARGO_PKG_VERSION"))), "{answer:?}");
        assert!(answer.json().is_object(), "{answer:?}");
    }
    let metrics = rig.get("/metrics");
    assert!(
        metrics.status == 200 && metrics.body.contains("mailrail_queued_recipients{shard=\"1\"} 11"),
        "{metrics:?}"
    );
    let config = rig.get("/mailrail/v1/config").json();
    assert!(config["explanation"].as_str().unwrap().contains("mta.test"), "{config}");
}

#[test]
fn every_mistake_is_answered_in_json_with_its_kind() {
    let (rig, _shards) = rig("");
    let mistakes = [
        ("GET", "/", "", 404, "notfoundexception"),
        ("GET", "/mailrail/v1/nothing", "", 404, "notfoundexception"),
        ("DELETE", "/mailrail/v1/status", "", 405, "badrequestexception"),
        ("GET", "/mailrail/v1/queue?limit=many", "", 400, "badrequestexception"),
        ("GET", "/mailrail/v1/queue?ip=nowhere", "", 400, "badrequestexception"),
        ("GET", "/mailrail/v1/trace/nonsense", "", 400, "badrequestexception"),
        ("GET", "/mailrail/v1/trace/%ff", "", 400, "badrequestexception"),
        ("PUT", "/mailrail/v1/fleet?dry_run=perhaps", "{}", 400, "badrequestexception"),
        ("PUT", "/mailrail/v1/fleet?dryrun=true", "{}", 400, "badrequestexception"),
        ("PUT", "/mailrail/v1/fleet", "{", 400, "badrequestexception"),
        ("PUT", "/mailrail/v1/fleet", "{\"toml\":1}", 422, "badrequestexception"),
        ("PUT", "/mailrail/v1/fleet", "{\"tmol\":\"\"}", 422, "badrequestexception"),
    ];
    for (method, path, body, status, kind) in mistakes {
        let answer = rig.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.head.contains(&format!("x-amzn-errortype: {kind}")), "{method} {path}: {answer:?}");
        assert!(answer.head.contains("x-mailrail-version: "), "{method} {path}: {answer:?}");
        assert!(answer.json()["message"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {answer:?}");
    }
}

#[test]
fn status_and_queue_are_sums_over_the_shards() {
    let (rig, _shards) = rig("");
    let status = rig.get("/mailrail/v1/status").json();
    assert_eq!((&status["queued"], &status["totals"]["accepted"]), (&21.into(), &10.into()), "{status}");
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(2), "{status}");
    let queue = rig.get("/mailrail/v1/queue?limit=1&domain=one.test").json();
    assert_eq!((&queue["queued"], &queue["rows"][0]["queued"]), (&7.into(), &4.into()), "{queue}");
    assert_eq!(queue["truncated"], true, "{queue}");
}

#[test]
fn a_shard_that_has_gone_is_named_and_makes_the_server_ill() {
    let (rig, [gone, here]) = rig_and_links(tempfile::tempdir().unwrap(), "");
    let _here = shard(here);
    drop(gone.commands);
    let status = rig.get("/mailrail/v1/status").json();
    assert_eq!((&status["silentShards"][0], &status["queued"]), (&0.into(), &11.into()), "{status}");
    assert_eq!(rig.get("/mailrail/v1/queue").json()["silentShards"][0], 0);
    let health = rig.get("/mailrail/v1/health");
    assert_eq!((health.status, &health.json()["healthy"]), (503, &false.into()), "{health:?}");
    assert!(rig.get("/metrics").body.contains("mailrail_silent_shards 1"));
}

#[test]
fn a_shard_that_asks_is_answered() {
    let (rig, [shard, other]) = rig("[[route]]\ndomain = \"*\"\nhosts = [\"127.0.0.1:2525\"]\n");
    shard.report(Report::Resolve { shard: shard.number, domain: "one.test".into() });
    match shard.told() {
        Command::Resolved { domain, answer: SiteAnswer::Hosts { hosts, routed: true, .. } } => {
            assert_eq!((&*domain, hosts[0].port), ("one.test", 2525));
        }
        told => panic!("{told:?}"),
    }
    let resolver = &rig.get("/mailrail/v1/status").json()["resolver"];
    assert_eq!((&resolver["questions"], &resolver["running"]), (&1.into(), &0.into()), "{resolver}");
    assert!(other.is_quiet());
}

#[test]
fn metrics_over_tcp_outlive_clients_that_say_nothing() {
    // An address of its own: no other test can take the port meanwhile.
    let free = std::net::TcpListener::bind("127.0.77.1:0").unwrap().local_addr().unwrap();
    let (_rig, _shards) = rig(&format!("[control]\nmetrics = \"{free}\"\n"));
    let _silent: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(free).unwrap()).collect();
    for (path, status) in [("/metrics", "200 OK"), ("/mailrail/v1/fleet", "404 Not Found")] {
        let mut stream = std::net::TcpStream::connect(free).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        // To its end: one request a connection.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}
