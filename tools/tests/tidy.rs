//! The tree checks itself: which way modules may look, how long files and functions may grow, where `unsafe` and
//! panics may stand, and that what users can set or call is documented. Each check names the place and what to do.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines a source file may have.
const FILE_LINES: usize = 600;
/// Lines a function may have.
const FUNCTION_LINES: usize = 70;

/// Files that may be longer, with their present length: it may fall, not rise.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions that may be longer, with their present length: it may fall, not rise.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// What ends the process where it should have been an error.
const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!(", "unreachable!("];

/// Of these, the ones that no input, disk or network can reach, by file: how many, and why.
const REVIEWED_PANICS: &[(&str, usize, &str)] = &[
    ("spool/src/segment.rs", 1, "a record is written only after make_room, which gives a head segment or an error"),
    ("spool/src/sim.rs", 1, "the disk of tests and fuzzers, in no server"),
];

/// Inside the engine: files under the left may not name what is on the right.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("engine/src/smtp", &["glommio", "tokio", "crate::control", "crate::clock", "crate::shard", "std::net::Tcp"]),
    ("engine/src/message", &["glommio", "tokio", "crate::control", "crate::clock", "crate::shard", "std::net::Tcp"]),
    ("engine/src/sign", &["glommio", "tokio", "crate::control", "crate::clock", "crate::shard"]),
    ("engine/src/receive", &["crate::control", "control::"]),
    ("engine/src/deliver", &["crate::control", "control::"]),
    ("engine/src/flow", &["crate::control", "control::"]),
    ("engine/src/flow.rs", &["crate::control", "control::"]),
    ("engine/src/shard", &["crate::control", "control::"]),
    ("engine/src/shard.rs", &["crate::control", "control::"]),
    ("engine/src/mesh.rs", &["crate::control", "control::"]),
    ("engine/src/control", &["glommio", "crate::shard", "crate::flow", "crate::deliver", "crate::receive"]),
    (
        "queue/src",
        &["Instant::now", "SystemTime::now", "thread::sleep", "rand::rng", "glommio", "tokio", "std::net::Tcp"],
    ),
    ("spool/src", &["Instant::now", "SystemTime::now", "thread::sleep", "rand::rng", "glommio", "tokio", "smtp"]),
];

/// What a crate may depend on of this workspace (its manifest's `[dependencies]`).
const CRATES: &[(&str, &[&str])] = &[
    ("spool", &[]),
    ("queue", &[]),
    ("engine", &["mailrail-queue", "mailrail-spool"]),
    ("bench", &[]),
    ("tools", &["mailrail-bench", "mailrail-engine", "mailrail-queue", "mailrail-spool"]),
];

struct Source {
    /// Relative to the root of the workspace, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Unit tests, test folders and benches.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || ["/tests/", "/benches/", "/examples/", "/fuzz/"].iter().any(|part| self.path.contains(part))
    }

    /// The lines a release contains: without comments, and without inline test modules, which stand last.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let end = lines
            .windows(2)
            .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].ends_with('{'))
            .unwrap_or(lines.len());
        let kept: Vec<_> = lines.into_iter().take(end).enumerate().collect();
        kept.into_iter().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Every file under the crates, `ci`, `packaging` and the root whose name ends so.
fn files(endings: &[&str]) -> Vec<Source> {
    fn walk(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts", "data"].iter().any(|skipped| name == *skipped) {
                    walk(&path, endings, found);
                }
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root, endings, &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some(Source { path: path.strip_prefix(&root).ok()?.to_string_lossy().replace('\\', "/"), text })
    };
    let found: Vec<_> = found.into_iter().filter_map(read).collect();
    assert!(!found.is_empty(), "no file ends in {endings:?}: this check would check nothing");
    found
}

fn sources() -> Vec<Source> {
    files(&[".rs"])
}

fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn crates_depend_only_downwards() {
    let mut findings = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("every crate has a manifest");
        let table: toml::Table = manifest.parse().expect("cargo could read it");
        let dependencies = table["dependencies"].as_table().expect("a table");
        for dependency in dependencies.keys().filter(|key| key.starts_with("mailrail-")) {
            if !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{name}/Cargo.toml: may not depend on {dependency}"));
            }
        }
    }
    none(findings);
}

#[test]
fn modules_look_only_where_they_may() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (under, words) in FORBIDDEN {
            let inside = source.path == *under || source.path.starts_with(&format!("{under}/"));
            if !inside {
                continue;
            }
            for (at, line) in source.production() {
                for word in words.iter().filter(|word| line.contains(*word)) {
                    findings.push(format!("{}:{at}: {under} may not name `{word}`", source.path));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn no_panic_is_reachable_from_outside() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if !["engine/src/", "queue/src/", "spool/src/"].iter().any(|part| source.path.starts_with(part)) {
            continue;
        }
        let panics = |line: &str| PANICS.iter().any(|panic| line.contains(panic));
        let count = source.production().filter(|(_, line)| panics(line)).count();
        let reviewed = REVIEWED_PANICS.iter().find(|(path, _, _)| *path == source.path).map_or(0, |(_, n, _)| *n);
        if count != reviewed {
            findings.push(format!(
                "{}: {count} panics, {reviewed} reviewed: return a typed error, or prove it and say so here",
                source.path
            ));
        }
    }
    none(findings);
}

#[test]
fn unsafe_stands_in_one_module() {
    let word = concat!("uns", "afe");
    let mut findings = Vec::new();
    for source in sources() {
        if source.path == "spool/src/map.rs" {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains(&format!("{word} ")) && !code.contains('"') {
                findings.push(format!("{}:{}: {word} code belongs in spool/src/map.rs", source.path, at + 1));
            }
        }
    }
    for root_file in ["queue/src/lib.rs", "engine/src/lib.rs", "bench/src/lib.rs", "tools/src/main.rs"] {
        let text = fs::read_to_string(root().join(root_file)).expect("every crate has a root");
        if !text.contains(&format!("#![forbid({word}_code)]")) {
            findings.push(format!("{root_file}: must forbid {word} code"));
        }
    }
    none(findings);
}

#[test]
fn files_stay_short() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let allowed = LONG_FILES.iter().find(|(path, _)| *path == source.path).map_or(FILE_LINES, |(_, lines)| *lines);
        if lines > allowed {
            findings.push(format!("{}: {lines} lines, at most {allowed}: is it one idea, or two?", source.path));
        }
    }
    none(findings);
}

#[test]
fn functions_fit_a_screen() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines: Vec<_> = source.production().collect();
        for (start, (at, line)) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            // rustfmt puts the closing brace where the function began.
            let indent = &line[..line.len() - line.trim_start().len()];
            let closing = format!("{indent}}}");
            let Some(length) = lines[start..].iter().position(|(_, line)| *line == closing) else { continue };
            let allowed = LONG_FUNCTIONS
                .iter()
                .find(|(path, function, _)| *path == source.path && *function == name)
                .map_or(FUNCTION_LINES, |(_, _, lines)| *lines);
            if length + 1 > allowed && !line.trim_end().ends_with(';') && !line.trim_end().ends_with('}') {
                findings.push(format!("{}:{at}: `{name}` has {} lines, at most {allowed}", source.path, length + 1));
            }
        }
    }
    none(findings);
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let words = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "extern \"C\" "];
    let mut rest = line;
    while let Some(word) = words.iter().find(|word| rest.starts_with(**word)) {
        rest = &rest[word.len()..];
    }
    let name = rest.strip_prefix("fn ")?;
    Some(&name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())])
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    let opens = |source: &Source| source.text.lines().next().is_some_and(|first| first.starts_with("//!"));
    none(
        sources()
            .iter()
            .filter(|source| !opens(source) && (!source.is_test() || !source.path.contains("/src/")))
            .map(|source| format!("{}: its first line must say what it is for (`//! …`)", source.path))
            .collect(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("place", "holder"),
        concat!("for", " now"),
    ];
    let mut findings = Vec::new();
    for source in files(&[".rs", ".toml", ".md", ".sh", ".service"]) {
        for (at, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(*word)) {
                findings.push(format!("{}:{}: `{word}`: finish it", source.path, at + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn no_path_of_the_building_machine_is_in_the_tree() {
    let here = root().to_string_lossy().into_owned();
    none(
        files(&[".rs", ".toml", ".md", ".sh", ".service", "/run"])
            .iter()
            .filter(|source| source.text.contains(&here))
            .map(|source| format!("{}: names {here}", source.path))
            .collect(),
    );
}

#[test]
fn ci_scripts_stop_at_the_first_failure() {
    let mut findings = Vec::new();
    let scripts = fs::read_dir(root().join("ci")).expect("there is a ci folder").flatten().map(|entry| entry.path());
    for path in scripts.chain([root().join(".ci/run")]).filter(|path| path.is_file()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if text.starts_with("#!/usr/bin/env bash") && !text.contains("set -euo pipefail") {
            findings.push(format!("{}: must `set -euo pipefail`", path.display()));
        }
    }
    none(findings);
}

/// Names in backquotes in THREATS.md: of a file that holds tests, or of a test in it.
#[test]
fn what_threats_says_is_tested_has_a_test_of_that_name() {
    let threats = fs::read_to_string(root().join("THREATS.md")).expect("there is a THREATS.md");
    let sources = sources();
    let tests: std::collections::BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.text.split("fn ").skip(1))
        .map(|rest| &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())])
        .collect();
    let mut findings = Vec::new();
    // Odd pieces stand between backquotes.
    for name in threats.split('`').skip(1).step_by(2) {
        let is_test = name.matches('_').count() >= 2 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_test && !tests.contains(name) {
            findings.push(format!("THREATS.md: there is no test `{name}`"));
        }
        if name.ends_with(".rs") && !sources.iter().any(|source| source.path.ends_with(name)) {
            findings.push(format!("THREATS.md: there is no file `{name}`"));
        }
    }
    // What stops somebody is code with a test.
    for (at, line) in threats.lines().enumerate() {
        let claims = line.starts_with("| ") && line.matches('|').count() == 4 && !line.contains("|---");
        let is_head = line.contains("| reaches |") || line.contains("| where |");
        let is_asset = threats.lines().take(at).filter(|line| line.starts_with("## ")).count() < 2;
        let named = line.split('`').skip(1).step_by(2).any(|name| tests.contains(name));
        if claims
            && !is_head
            && !is_asset
            && !named
            && !line.contains("**Not stopped**")
            && !line.contains("| Nothing:")
        {
            findings.push(format!("THREATS.md:{}: name the test that shows it", at + 1));
        }
    }
    none(findings);
}

#[test]
fn every_subcommand_is_in_the_readme() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_mailrail")).arg("--help").output().expect("it starts");
    let help = String::from_utf8(help.stdout).expect("help is text");
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).expect("commands");
    let names: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() > 5, "read only {names:?} out of the help");
    none(
        names
            .iter()
            .filter(|name| !readme.contains(&format!("mailrail {name}")))
            .map(|name| format!("README.md: say what `mailrail {name}` is for"))
            .collect(),
    );
}
