//! Suppression: listed recipients are accepted and never tried, hard bounces list themselves, lists of any size come and go.

use crate::world::{FLEET, MESSAGE, World, host};
use mailrail_bench::model::Model;
use std::fs;

const ACME: &str = "[[account]]\nname = \"acme\"\nmax_24_hour_send = -1\nmax_send_rate = -1\n";

fn world(models: Vec<Model>, listener: &str) -> World {
    let mut world = World::new(models, |zone| zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0)));
    world.configure(&[("[[listener]]", listener)]);
    world.start();
    world.apply(&format!("{FLEET}{ACME}"));
    world
}

fn ok(world: &World, args: &[&str]) -> String {
    let output = world.cli(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_listed_recipient_is_accepted_and_told_of_and_never_tried() {
    let mut world = world(vec![Model::named("accept")], "");
    ok(&world, &["suppression", "add", "Listed@One.test"]);
    ok(&world, &["suppression", "add", "angry@one.test", "--reason", "COMPLAINT"]);
    let all = ["listed@one.test", "b@one.test", "angry@one.test"];
    let id = world.submit(&all, MESSAGE);
    let bounce = world.event("Bounce", "listed@one.test");
    assert_eq!(
        (&bounce["bounceType"], &bounce["bounceSubType"]),
        (&"Permanent".into(), &"OnAccountSuppressionList".into())
    );
    assert_eq!((bounce["messageId"].as_str(), bounce["attempt"].is_null()), (Some(&*id), true));
    assert_eq!(world.event("Complaint", "angry@one.test")["complaintSubType"], "OnAccountSuppressionList");
    assert_eq!(world.event("Send", "listed@one.test")["eventType"], "Send");
    world.drained();
    // A message for nobody else is accepted too; and what is taken off goes again, after a restart as before it.
    world.submit(&["LISTED@one.test"], MESSAGE);
    world.drained();
    world.kill();
    world.start();
    world.submit(&["angry@one.test"], MESSAGE);
    world.drained();
    assert_eq!(world.sinks[0].recipients(), 1, "only b@one.test was sent to");
    ok(&world, &["suppression", "remove", "listed@ONE.test"]);
    let again = world.cli(&["suppression", "remove", "listed@one.test"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("does not exist"));
    world.submit(&["listed@one.test"], MESSAGE);
    world.deliveries(0, 2);
    let status = world.json(&["status", "--json"]);
    let shards = status["shards"].as_array().expect("shards");
    // What was settled within the last moments before the kill is settled again.
    assert!(shards.iter().filter_map(|shard| shard["suppressed"].as_u64()).sum::<u64>() >= 1, "{status}");
}

#[test]
fn a_hard_bounce_lists_its_address_by_itself_for_the_account_that_says_so() {
    let mut world =
        world(vec![Model { unknown_users: vec!["gone".into()], ..Model::named("unknown") }], "account = \"acme\"");
    world.submit(&["gone@one.test"], MESSAGE);
    assert_eq!(world.event("Bounce", "gone@one.test")["bounceSubType"], "NoEmail");
    world.until("the address to be listed", |world| {
        world.cli(&["suppression", "get", "gone@one.test", "--account", "acme"]).status.success()
    });
    let entry = ok(&world, &["suppression", "get", "gone@one.test", "--account", "acme"]);
    assert!(entry.starts_with("gone@one.test,BOUNCE,"), "{entry}");
    assert!(!world.cli(&["suppression", "get", "gone@one.test"]).status.success(), "no other account's list");
    world.kill();
    world.start();
    let id = world.submit(&["Gone@one.test"], MESSAGE);
    let told = world.event("Bounce", "Gone@one.test");
    assert_eq!((told["messageId"].as_str(), &told["bounceSubType"]), (Some(&*id), &"OnAccountSuppressionList".into()));
}

#[test]
fn a_file_is_imported_without_its_wrong_lines_or_not_at_all_and_exported_again() {
    let world = world(vec![Model::named("accept")], "");
    let mut file = "address,reason\n".to_owned();
    for n in 0..50_000 {
        file += &format!("user{n}@d{}.test,BOUNCE\n", n % 100);
    }
    file += "no address\n\"a,b\"@one.test,COMPLAINT\n{\"emailAddress\":\"j@one.test\",\"reason\":\"BOUNCE\"}\nx@one.test,SPAM\nü@bücher.test\n";
    fs::write(world.path("list.csv"), file).expect("the directory is ours");
    let refused = world.cli(&["suppression", "import", "list.csv", "--all-or-nothing"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("line 50002: ") && error.contains("line 50005: "), "{error}");
    assert_eq!(ok(&world, &["suppression", "export"]), "");
    let report = world.json(&["suppression", "import", "list.csv", "--json"]);
    assert_eq!((&report["entries"], &report["wrong"]), (&50_003.into(), &2.into()));
    let export = ok(&world, &["suppression", "export"]);
    assert_eq!(export.lines().count(), 50_003);
    assert!(
        export.contains("\"\"\"a,b\"\"@one.test\",COMPLAINT,") && export.contains("ü@bücher.test,MANUAL,"),
        "{export:.300}"
    );
    // What was written is read again, line for line.
    fs::write(world.path("again.csv"), &export).expect("the directory is ours");
    let again = world.json(&["suppression", "import", "again.csv", "--all-or-nothing", "--json"]);
    assert_eq!((&again["entries"], &again["wrong"]), (&50_003.into(), &0.into()));
    assert_eq!(ok(&world, &["suppression", "export"]).lines().count(), 50_003);
    let newest = world.json(&["suppression", "list", "--limit", "3", "--json"]);
    assert_eq!(newest["SuppressedDestinationSummaries"].as_array().map(Vec::len), Some(3));
    let gone = world.json(&["suppression", "import", "again.csv", "--remove", "--json"]);
    assert_eq!(gone["entries"], 50_003);
    assert_eq!(ok(&world, &["suppression", "export"]), "");
}
