//! The way of events into the log.

use super::rig::rig;
use crate::message::id::MessageId;
use std::fs;

#[test]
fn lines_are_in_the_log_before_they_are_acknowledged() {
    let (rig, [one, two]) = rig("");
    let id = MessageId::new(1_700_000_000_000, 0, 1, 2);
    one.events(7, format!("{{\"n\":1,\"messageId\":\"{id}\"}}\n{{\"n\":2}}\n"));
    assert_eq!(one.kept(), 7);
    let log = fs::read_to_string(rig.config.events_dir().join("events.jsonl")).unwrap();
    assert!(log.contains("{\"n\":2}\n"), "{log}");
    two.events(8, format!("{{\"n\":3,\"messageId\":\"{id}\"}}\n"));
    assert_eq!(two.kept(), 8);
    let trace = rig.get(&format!("/mailrail/v1/trace/{id}")).json();
    assert_eq!((&trace["events"][0]["n"], &trace["events"][1]["n"]), (&1.into(), &3.into()), "{trace}");
    let status = rig.get("/mailrail/v1/status").json();
    assert!(status["eventLog"]["bytes"].as_u64() > Some(100) && status["eventLog"]["waiting"] == 0, "{status}");
    assert!(one.is_quiet());
}

#[test]
fn a_log_that_cannot_be_written_keeps_its_lines_waiting_and_then_has_each_once() {
    let (rig, [one, two]) = rig("[events]\nmax_file_size = \"4KiB\"\n");
    let directory = rig.config.events_dir();
    let away = directory.with_extension("away");
    one.events(1, format!("{{\"n\":1,\"pad\":\"{}\"}}\n", "x".repeat(5000)));
    assert_eq!(one.kept(), 1);
    // The file is full; the next one cannot be made where no directory is.
    fs::rename(&directory, &away).unwrap();
    fs::write(&directory, "in the way").unwrap();
    one.events(2, "{\"n\":2}\n");
    two.events(1, "{\"n\":3}\n");
    rig.until("/mailrail/v1/status", |status| status["eventLog"]["error"].is_string());
    let health = rig.get("/mailrail/v1/health");
    assert!(health.status == 503 && health.body.contains("event log"), "{health:?}");
    assert!(one.is_quiet() && two.is_quiet());
    fs::remove_file(&directory).unwrap();
    fs::rename(&away, &directory).unwrap();
    assert_eq!((one.kept(), two.kept()), (2, 1));
    let status = rig.until("/mailrail/v1/status", |status| status["eventLog"]["waiting"] == 0);
    assert!(status["eventLog"]["error"].is_null(), "{status}");
    assert_eq!(rig.get("/mailrail/v1/health").status, 200);
    let all: String =
        crate::event::log::files(&directory).unwrap().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for n in 1..=3 {
        assert_eq!(all.matches(&format!("{{\"n\":{n}")).count(), 1, "{n}");
    }
}
