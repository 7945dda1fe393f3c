//! Changes of the fleet: whole or not at all, told to every shard, written down with who made them.

use super::rig::{rig, rig_and_links, shard};
use crate::link::{COMMANDS, Report};

const FLEET: &str = "[[pool]]\nname = \"main\"\n\
    [[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.mta.test\"\npool = \"main\"\n";

#[test]
fn a_change_is_durable_told_to_every_shard_and_audited() {
    let (rig, shards) = rig("");
    let done = rig.put_fleet("", FLEET).json();
    assert_eq!((&done["version"], done["changes"].as_array().map(Vec::len)), (&1.into(), Some(3)), "{done}");
    for shard in &shards {
        assert_eq!(shard.snapshot(), (1, 1));
    }
    let export = rig.get("/mailrail/v1/fleet").json();
    assert!(export["toml"].as_str().unwrap().contains("127.0.10.1"), "{export}");
    let store = rusqlite::Connection::open(rig.directory.path().join("control.db")).unwrap();
    let who = format!("uid {}, pid {}", rustix::process::getuid().as_raw(), std::process::id());
    let rows: i64 = store.query_row("SELECT count(*) FROM audit WHERE who = ?1", [&who], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3, "{who}");
}

#[test]
fn what_changes_nothing_or_is_wrong_is_told_to_no_shard() {
    let (rig, shards) = rig("");
    let dry = rig.put_fleet("?dry_run=true", FLEET).json();
    assert_eq!((&dry["dryRun"], &dry["version"]), (&true.into(), &0.into()), "{dry}");
    assert_eq!(dry["changes"].as_array().map(Vec::len), Some(3), "{dry}");
    rig.put_fleet("", FLEET);
    let again = rig.put_fleet("?dry_run=false", FLEET).json();
    assert_eq!((&again["version"], again["changes"].as_array().map(Vec::len)), (&1.into(), Some(0)), "{again}");
    let before = rig.get("/mailrail/v1/fleet").json();
    let wrong = rig.put_fleet("", &FLEET.replace("127.0.10.1", "203.0.113.201"));
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let message = wrong.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("fleet.toml:4: ") && message.contains("203.0.113.201"), "{message}");
    assert_eq!(rig.get("/mailrail/v1/fleet").json(), before);
    for shard in &shards {
        assert_eq!(shard.snapshot(), (1, 1));
        assert!(shard.is_quiet());
    }
}

#[test]
fn changes_at_a_time_come_one_after_the_other() {
    let (rig, [shard, _other]) = rig("");
    let fleet = |n: u16| format!("[[pool]]\nname = \"main\"\n[[domain]]\nname = \"d{n}.test\"\n");
    let streams: Vec<_> = (0..8)
        .map(|n| {
            let body = serde_json::json!({ "toml": fleet(n) }).to_string();
            rig.send("PUT", "/mailrail/v1/fleet", &body)
        })
        .collect();
    let versions: Vec<_> = (0..8).map(|_| shard.snapshot().0).collect();
    assert_eq!(versions, (1..=8).collect::<Vec<_>>());
    drop(streams);
    let export = rig.get("/mailrail/v1/fleet").json();
    let toml = export["toml"].as_str().unwrap();
    assert_eq!((&export["version"], toml.matches("[[domain]]").count()), (&8.into(), 1), "{export}");
}

#[test]
fn clients_that_hang_up_hold_up_nobody() {
    let (rig, shards) = rig("");
    for n in 1..=50 {
        let toml = format!("[[pool]]\nname = \"p{n}\"\n");
        let body = serde_json::json!({ "toml": toml }).to_string();
        drop(rig.send("PUT", "/mailrail/v1/fleet", &body));
    }
    // Each was done or not; what was done, every shard was told.
    let done = rig.put_fleet("", FLEET).json();
    let version = done["version"].as_u64().unwrap_or_else(|| panic!("{done}"));
    for shard in &shards {
        let told: Vec<_> = (1..=version).map(|_| shard.snapshot().0).collect();
        assert_eq!(told, (1..=version).collect::<Vec<_>>());
    }
}

#[test]
fn a_shard_that_takes_nothing_holds_up_nobody_else() {
    let (rig, [stuck, free]) = rig_and_links(tempfile::tempdir().unwrap(), "");
    let free = shard(free);
    assert_eq!(free.snapshot().0, 0);
    let events = u64::try_from(COMMANDS).unwrap() + 10;
    for cursor in 0..events {
        let lines = format!("{{\"n\":{cursor}}}\n").into_bytes();
        stuck.reports.blocking_send(Report::Events { shard: 0, cursor, lines }).unwrap();
    }
    free.events(1, "{}\n");
    assert_eq!(free.kept(), 1);
    assert_eq!(rig.put_fleet("", FLEET).json()["version"], 1);
    assert_eq!(free.snapshot(), (1, 1));
    let status = rig.get("/mailrail/v1/status").json();
    assert_eq!((&status["silentShards"][0], &status["policy"]["version"]), (&0.into(), &1.into()), "{status}");
    // Once it takes commands again, it gets all of them, in order.
    let stuck = shard(stuck);
    assert_eq!(stuck.snapshot().0, 0);
    for cursor in 0..events {
        assert_eq!(stuck.kept(), cursor);
    }
    assert_eq!(stuck.snapshot(), (1, 1));
}
