//! `mailrail rehearse` through the command line: table, JSON, chart, examples, and mistakes with their line. No server runs.

use crate::world::World;
use serde_json::Value;
use std::fs;

const CAMPAIGN: &str = r#"[campaign]
days = 4
[[pool]]
name = "own"
kind = "dedicated"
[[ips]]
first = "192.0.2.1"
count = 2
pool = "own"
[[ips]]
first = "198.51.100.1"
count = 1
pool = "ses-shared-pool"
[[stream]]
name = "news"
pool = "own"
volume = { start = 300, factor = 1.5, target = 1000 }
to = { gmail = 60, others = 40 }
hard_bounces = 2
"#;

fn world() -> World {
    let world = World::new(vec![], |zone| zone);
    fs::write(world.path("campaign.toml"), CAMPAIGN).unwrap();
    world
}

fn json(world: &World, args: &[&str]) -> (Value, Vec<u8>) {
    let output = world.cli(&[&["rehearse"], args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).expect("one JSON document"), output.stdout)
}

#[test]
fn a_campaign_is_told_day_by_day_and_the_books_are_even() {
    let world = world();
    let output = world.cli(&["rehearse", "campaign.toml", "--ips"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for wanted in ["DAY", "OVERFLOWED", "message by message", "192.0.2.2", "What it comes to", "ses-shared-pool"] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    let (report, _) = json(&world, &["campaign.toml"]);
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"));
    let total = &report["total"];
    let ended: u64 = ["sent", "bounced", "expired", "rejected"].iter().map(|key| number(total, key)).sum();
    assert_eq!(number(total, "wanted"), 300 + 450 + 675 + 1000);
    assert_eq!(number(total, "wanted"), ended + number(&report, "queued"));
    let days = report["days"].as_array().unwrap();
    assert_eq!(days.iter().map(|day| number(day, "day")).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // Two IPs may send 50 each on the first day: the rest went by the shared one.
    assert!((200..=300).contains(&number(&days[0], "overflowed")), "{}", days[0]);
}

#[test]
fn the_same_seed_is_the_same_to_the_byte_and_another_one_is_not() {
    let world = world();
    let run = |seed: &str| json(&world, &["campaign.toml", "--seed", seed]).1;
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn a_chart_is_drawn_and_examples_are_there_without_files() {
    let world = world();
    let output = world.cli(&["rehearse", "campaign.toml", "--chart", "out.svg"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = fs::read_to_string(world.path("out.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("overflowed"));
    let list = String::from_utf8(world.cli(&["rehearse", "--list-examples"]).stdout).unwrap();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["first-time", "moving", "too-fast"]);
    for name in names {
        let shown = world.cli(&["rehearse", "--example", name, "--show"]);
        assert!(shown.status.success());
        fs::write(world.path("copy.toml"), &shown.stdout).unwrap();
        let (copy, _) = json(&world, &["copy.toml", "--days", "1", "--granularity", "2000"]);
        let (example, _) = json(&world, &["--example", name, "--days", "1", "--granularity", "2000"]);
        assert_eq!(copy["days"], example["days"], "{name}");
    }
}

#[test]
fn a_fleet_file_can_be_rehearsed_as_it_is() {
    let world = world();
    let fleet = "[[pool]]\nname = \"own\"\nkind = \"dedicated\"\noverflow = \"defer\"\n[[ip]]\naddress = \"192.0.2.9\"\n\
                 helo = \"a.b\"\npool = \"own\"\n[[dkim]]\ndomain = \"a.b\"\nselector = \"s\"\nkey_file = \"none.pem\"\n";
    let campaign = "[campaign]\ndays = 2\nfleet = \"real.toml\"\n[[stream]]\nname = \"n\"\npool = \"own\"\nvolume = 200\nto = \"gmail\"\n";
    fs::write(world.path("real.toml"), fleet).unwrap();
    fs::write(world.path("plan.toml"), campaign).unwrap();
    let (report, _) = json(&world, &["plan.toml"]);
    assert_eq!(report["ips"][0]["ip"], "192.0.2.9");
    let sent = report["days"][0]["sent"].as_u64().unwrap() + report["days"][0]["bounced"].as_u64().unwrap();
    assert!(sent <= 50, "more than the plan of the first day: {sent}");
    fs::write(world.path("real.toml"), fleet.replace("helo = \"a.b\"", "hello = \"a.b\"")).unwrap();
    fails(&world, &["plan.toml"], "real.toml:7: unknown key \"hello\"");
}

fn fails(world: &World, args: &[&str], wanted: &str) {
    let output = world.cli(&[&["rehearse"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(wanted), "{args:?}: no {wanted:?} in {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
}

#[test]
fn mistakes_are_one_line_with_its_place() {
    let world = world();
    fails(&world, &["none.toml"], "none.toml: No such file");
    fails(&world, &["--example", "none"], "there are first-time, moving, too-fast");
    for (good, bad, wanted) in [
        ("days = 4", "deys = 4", "bad.toml:2: unknown key \"deys\"; did you mean \"days\"?"),
        ("kind = \"dedicated\"", "kind = \"odd\"", "bad.toml:5: "),
        ("gmail = 60", "gnail = 60", "bad.toml:18: [[stream]] \"news\": to: \"gnail\" is no [[receiver]]"),
    ] {
        fs::write(world.path("bad.toml"), CAMPAIGN.replace(good, bad)).unwrap();
        fails(&world, &["bad.toml"], wanted);
    }
    world.configure(&[]);
    let output = world.cli(&["check", "--fleet", "campaign.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it is for mailrail rehearse"), "a host takes no campaign for a fleet: {said}");
}
