//! A change of the fleet that was answered survives a kill and a power cut at any moment, and none is ever half there.
//! `MAILRAIL_ROUNDS=100` makes more cuts.

use crate::{
    mounts::Mounted,
    world::{World, host},
};
use mailrail_bench::model::Model;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Pools of one generation: enough that a change takes many pages of the store.
const POOLS: u32 = 40;

fn world() -> World {
    let world = World::new(vec![Model::named("accept")], |zone| {
        zone.mx("one.test", 10, "mx.one.test").a("mx.one.test", host(0))
    });
    world.configure(&[
        ("", "shards = 1\ndata_dir = \"disk\""),
        ("[control]", "socket = \"control.sock\""),
        ("[spool]", "segment_size = \"1MiB\""),
    ]);
    world
}

fn rounds() -> u32 {
    std::env::var("MAILRAIL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

fn fleet(generation: u32) -> String {
    let lease = "[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"out1.sender.test\"\n";
    let pools: String = (0..POOLS).map(|n| format!("[[pool]]\nname = \"g{generation}-{n}\"\n")).collect();
    format!("default_pool = \"g{generation}-0\"\n{pools}{lease}pool = \"g{generation}-0\"\n")
}

/// The generation in force, which must be all of one.
fn in_force(world: &World) -> u32 {
    let export = String::from_utf8(world.cli(&["export"]).stdout).unwrap();
    let mut names = export.lines().filter_map(|line| line.strip_prefix("name = \"g")?.strip_suffix('"'));
    let first = names.clone().next().unwrap_or_else(|| panic!("no pool in {export}"));
    let generation = first.split_once('-').unwrap().0;
    assert!(names.all(|name| name.split_once('-').unwrap().0 == generation), "two generations in {export}");
    assert_eq!(export.matches("[[pool]]").count(), POOLS as usize, "{export}");
    assert!(export.contains(&format!("default_pool = \"g{generation}-0\"")), "{export}");
    generation.parse().unwrap()
}

/// Applies generation after generation from `first` on until one is not answered well; counts those that were in `answered`.
fn apply_all(world: &World, first: u32, answered: &Arc<AtomicU32>) -> thread::JoinHandle<()> {
    let (dir, config) = (world.dir.path().to_owned(), world.path("mailrail.toml"));
    let answered = Arc::clone(answered);
    thread::spawn(move || {
        for generation in first.. {
            let file = dir.join("next.toml");
            fs::write(&file, fleet(generation)).unwrap();
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailrail"));
            let output = command.arg("apply").arg(&file).env("MAILRAIL_CONFIG", &config).output();
            if !output.is_ok_and(|output| output.status.success()) {
                return;
            }
            answered.store(generation, Ordering::SeqCst);
        }
    })
}

/// Cuts again and again while changes are made, and looks at what is there afterwards.
fn cut_again_and_again(world: &mut World, mut cut: impl FnMut(&mut World) -> bool) {
    let mut next = 1;
    for round in 0..rounds() {
        world.start();
        let answered = Arc::new(AtomicU32::new(next - 1));
        let applying = apply_all(world, next, &answered);
        // The next one is on its way, and the cut hits it anywhere.
        let wanted = next + round * 7 % 5;
        world.until("some changes", |_| answered.load(Ordering::SeqCst) >= wanted);
        if !cut(world) {
            return;
        }
        applying.join().unwrap();
        let answered = answered.load(Ordering::SeqCst);
        world.start();
        let found = in_force(world);
        assert!(found == answered || found == answered + 1, "{answered} was answered, {found} is there");
        next = found + 1;
        world.stop();
    }
}

#[test]
fn a_change_that_was_answered_survives_sigkill() {
    let mut world = world();
    cut_again_and_again(&mut world, |world| {
        world.kill();
        true
    });
}

/// The suppression lists are a file of their own: what was listed, and what was taken off, stays so.
#[test]
fn an_address_that_was_listed_stays_so_through_a_power_cut() {
    let mut world = world();
    let Some(mut disk) = Mounted::breakable(&mut world) else { return };
    let mut listed = std::collections::BTreeSet::new();
    for round in 0..rounds() {
        world.start();
        let all = String::from_utf8(world.cli(&["suppression", "export"]).stdout).unwrap();
        for n in 0..5 {
            let address = format!("r{round}-{n}@one.test");
            assert!(world.cli(&["suppression", "add", &address]).status.success());
            listed.insert(address);
        }
        assert!(listed.iter().filter(|address| all.contains(*address)).count() == listed.len() - 5, "{all}");
        let gone = listed.pop_first().expect("there are five");
        assert!(world.cli(&["suppression", "remove", &gone]).status.success());
        world.signal("STOP");
        world.until("every thread to stand still", World::stands_still);
        let went = disk.break_down();
        world.kill();
        disk.mount_again();
        if !went {
            return;
        }
    }
    world.start();
    let all = String::from_utf8(world.cli(&["suppression", "export"]).stdout).unwrap();
    let found = all.lines().filter(|line| line.contains("@one.test")).count();
    assert!(found == listed.len() && listed.iter().all(|address| all.contains(address)), "{listed:?}\n{all}");
    world.stop();
    drop(world);
}

#[test]
fn a_change_that_was_answered_survives_a_power_cut() {
    let mut world = world();
    let Some(mut disk) = Mounted::breakable(&mut world) else { return };
    cut_again_and_again(&mut world, |world| {
        // Held still first: a sync that is under way while EXT4_IOC_SHUTDOWN comes may be told that it succeeded.
        world.signal("STOP");
        world.until("every thread to stand still", World::stands_still);
        let went = disk.break_down();
        world.kill();
        disk.mount_again();
        went
    });
    drop(world);
}
