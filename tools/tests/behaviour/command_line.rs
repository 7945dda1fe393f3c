//! The command line: mistakes in files are one clear line and exit code 2, help is everywhere.

use crate::world::World;
use std::fs;

fn world() -> World {
    World::new(vec![], |zone| zone)
}

fn fails(world: &World, args: &[&str], code: i32, wanted: &str) {
    let output = world.cli(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(wanted), "{args:?}: no {wanted:?} in {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
}

#[test]
fn a_broken_configuration_is_one_line_with_its_place() {
    let world = world();
    fails(&world, &["check"], 2, "mailrail.toml");
    world.configure(&[("[[listener]]", "alow = [\"127.0.0.1\"]")]);
    fails(&world, &["check"], 2, "alow");
    fails(&world, &["serve", "--log", "off"], 2, "alow");
    world.configure(&[("[[listener]]", "tls = { cert = \"none.pem\", key = \"none.pem\" }")]);
    fails(&world, &["check"], 2, "none.pem");
    fs::write(world.path("bad.pem"), "rubbish").unwrap();
    world.configure(&[("[[listener]]", "tls = { cert = \"bad.pem\", key = \"bad.pem\" }")]);
    fails(&world, &["check"], 2, "bad.pem");
    fails(&world, &["serve", "--log", "off"], 2, "bad.pem");
}

#[test]
fn check_explains_and_the_reference_is_valid() {
    let world = world();
    world.configure(&[]);
    let output = world.cli(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("is valid") && said.contains("mta.sender.test"), "{said}");
    let reference = world.cli(&["check", "--reference"]);
    fs::write(world.path("reference.toml"), &reference.stdout).unwrap();
    let output = world.cli(&["check", "--config", "reference.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_fleet_file_is_checked_without_a_server_with_its_reverse_dns() {
    let world = world();
    world.configure(&[]);
    let fleet = "strict_rdns = true\n[[pool]]\nname = \"main\"\n[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"a.b\"\n";
    fs::write(world.path("fleet.toml"), format!("{fleet}pool = \"main\"\n")).unwrap();
    let output = world.cli(&["check", "--fleet", "fleet.toml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("fleet.toml: 1 pools, 1 leased IPs"), "{said}");
    fs::write(world.path("fleet.toml"), format!("{fleet}pool = \"other\"\n")).unwrap();
    fails(
        &world,
        &["check", "--fleet", "fleet.toml"],
        2,
        "fleet.toml:7: [[ip]] 127.0.10.1: pool \"other\" is no [[pool]]",
    );
    fails(&world, &["check", "--fleet", "none.toml"], 2, "none.toml: No such file");
}

#[test]
fn a_missing_server_is_exit_3() {
    let world = world();
    world.configure(&[]);
    for args in [&["status"][..], &["queue"], &["export"]] {
        fails(&world, args, 3, "is `mailrail serve` running?");
    }
}

#[test]
fn every_subcommand_has_help_completions_and_a_manual_page() {
    let world = world();
    let help = String::from_utf8(world.cli(&["--help"]).stdout).unwrap();
    let names: Vec<_> = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("Options:").next())
        .unwrap_or("")
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 8, "{help}");
    for name in &names {
        let output = world.cli(&[name, "--help"]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{name}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = world.cli(&["completions", shell]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(names.iter().all(|name| text.contains(name)), "{shell}");
    }
    assert!(world.cli(&["man", "man"]).status.success());
    assert!(names.iter().all(|name| world.path(&format!("man/mailrail-{name}.1")).exists()));
}
