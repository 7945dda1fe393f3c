//! How it starts, and how it ends.

use super::rig::{Shard, options, rig, rig_and_links, rig_with, shard};
use crate::{
    control::{Options, start},
    link::{self, Command},
};
use rustix::process::{Signal, getpid, kill_process};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

fn is_told_to_stop(shard: &Shard) -> bool {
    matches!(shard.told(), Command::Stop { .. })
}

#[test]
fn a_stop_waits_for_the_shards_and_keeps_their_last_events() {
    let (mut rig, [one, two]) = rig("");
    rig.handle.stop();
    rig.handle.stop();
    assert!(is_told_to_stop(&one) && is_told_to_stop(&two));
    one.stopped(None);
    two.events(1, "{\"last\":1}\n");
    assert_eq!(two.kept(), 1);
    two.events(2, "{\"last\":2}\n");
    two.stopped(None);
    rig.handle.wait().unwrap();
    rig.handle.wait().unwrap();
    let log = fs::read_to_string(rig.config.events_dir().join("events.jsonl")).unwrap();
    assert_eq!(log, "{\"last\":1}\n{\"last\":2}\n");
    assert!(!rig.config.control.socket.exists());
    // And again, with all that was there.
    let (rig, links) = rig_and_links(rig.directory, "");
    let _shards = links.map(shard);
    assert_eq!(rig.get("/mailrail/v1/health").status, 200);
}

#[test]
fn signals_read_certificates_again_and_stop() {
    let good = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&good);
    let reload = move || if asked.load(Relaxed) { Ok(vec![None, None, None]) } else { Err("no such file".into()) };
    let (mut rig, links) =
        rig_with(tempfile::tempdir().unwrap(), "", Options { signals: true, reload: Box::new(reload), ..options() });
    let [one, two] = links.map(shard);
    let send = |signal| kill_process(getpid(), signal).unwrap();
    assert_eq!((one.snapshot().0, two.snapshot().0), (0, 0));
    send(Signal::HUP);
    for shard in [&one, &two] {
        assert!(matches!(shard.told(), Command::Certificates(read) if read.len() == 3));
    }
    good.store(false, Relaxed);
    send(Signal::HUP);
    send(Signal::TERM);
    // What could not be read was told to nobody.
    assert!(is_told_to_stop(&one) && is_told_to_stop(&two));
    one.stopped(None);
    two.stopped(None);
    rig.handle.wait().unwrap();
}

#[test]
fn a_shard_that_ends_unasked_ends_the_others_and_is_told() {
    let (mut rig, [one, two]) = rig("");
    one.stopped(Some("spool: the disk is gone"));
    assert!(is_told_to_stop(&two));
    two.stopped(Some("told second"));
    assert_eq!(rig.handle.wait().unwrap_err(), "shard 0: spool: the disk is gone");
}

#[test]
fn shards_that_vanish_are_no_good_end() {
    let (mut rig, [one, two]) = rig("");
    one.stopped(None);
    assert!(is_told_to_stop(&two));
    drop((one, two));
    assert_eq!(rig.handle.wait().unwrap_err(), "shard 1 ended without a word");
}

#[test]
fn what_keeps_it_from_starting_is_one_line() {
    let (rig, _shards) = rig("");
    let (control, _links) = link::link(2);
    let Err(error) = start(Arc::clone(&rig.config), control, options()) else { panic!("two on one socket") };
    assert!(error.contains("another server answers there") && !error.contains('\n'), "{error}");
    // The first goes on.
    assert_eq!(rig.get("/mailrail/v1/health").status, 200);
    let directory = tempfile::tempdir().unwrap();
    let config = super::config(directory.path(), "");
    fs::write(directory.path().join("control.db"), "this is no database, but long enough to be looked at").unwrap();
    let (control, _links) = link::link(2);
    let Err(error) = start(config, control, options()) else { panic!("a store of nonsense") };
    assert!(error.contains("control.db") && !error.contains('\n'), "{error}");
}
