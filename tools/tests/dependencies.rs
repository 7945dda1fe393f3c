//! What is built in comes from crates.io under a licence that `deny.toml` allows, and nothing of what it bans is there. Read
//! from `Cargo.lock` by cargo itself, without a network.

use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

struct Policy {
    allowed: BTreeSet<String>,
    exceptions: BTreeSet<(String, String)>,
    banned: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn strings(value: &toml::Value) -> impl Iterator<Item = String> + '_ {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(Into::into))
}

fn policy() -> Policy {
    let text = fs::read_to_string(root().join("deny.toml")).expect("there is a deny.toml");
    let table: toml::Table = text.parse().expect("it is TOML");
    let licenses = &table["licenses"];
    let name = |entry: &toml::Value| entry["crate"].as_str().expect("an entry names a crate").to_owned();
    let exceptions = licenses["exceptions"].as_array().expect("a list").iter();
    Policy {
        allowed: strings(&licenses["allow"]).collect(),
        exceptions: exceptions.flat_map(|e| strings(&e["allow"]).map(move |licence| (name(e), licence))).collect(),
        banned: table["bans"]["deny"].as_array().expect("a list").iter().map(name).collect(),
    }
}

/// Packages that a build for Linux takes in.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("there is a cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a list");
    let used: BTreeSet<_> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages.filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id))).cloned().collect()
}

/// Does an SPDX expression (or one of the older `A/B`) allow a choice that `is_allowed`? Of alternatives one must, of parts all.
fn permits(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    split(expression, " AND ").iter().all(|part| {
        let choices = split(part, " OR ");
        choices.iter().any(|choice| match choice.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => permits(inner, is_allowed),
            None if choices.len() > 1 && choice.contains(" AND ") => permits(choice, is_allowed),
            // Or a later version.
            None => is_allowed(choice.trim().trim_end_matches('+')),
        })
    })
}

/// Splits at `word` where no bracket is open.
fn split<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, character) in text.char_indices() {
        depth += i32::from(character == '(') - i32::from(character == ')');
        if depth == 0 && at >= start && text[at..].starts_with(word) {
            parts.push(text[start..at].trim());
            start = at + word.len();
        }
    }
    parts.push(text[start..].trim());
    parts
}

#[test]
fn licences_sources_and_bans_hold() {
    let policy = policy();
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages: this check would check nothing", packages.len());
    let mut findings = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default().replace(" / ", " OR ").replace('/', " OR ");
        let excepted = |licence: &str| policy.exceptions.contains(&(name.to_owned(), licence.to_owned()));
        if !permits(&licence, &|licence| policy.allowed.contains(licence) || excepted(licence)) {
            findings.push(format!("{name}: licence {licence:?} is not allowed by deny.toml"));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|source| source != "registry+https://github.com/rust-lang/crates.io-index") {
            findings.push(format!("{name}: comes from {source:?}, not from crates.io"));
        }
        if policy.banned.contains(name) {
            findings.push(format!("{name}: is banned by deny.toml"));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn expressions_are_understood() {
    let mit = |licence: &str| licence == "MIT" || licence == "ISC";
    for (expression, good) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("(MIT OR X) AND (Y OR Z)", false),
        ("", false),
    ] {
        assert_eq!(permits(expression, &mit), good, "{expression}");
    }
}
