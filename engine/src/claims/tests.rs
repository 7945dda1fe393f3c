//! Two shards as a crash in the middle of a move leaves them.

use super::*;
use crate::tests::two_shards::{Copy, append, full_spool, names, only, open, pair, spool, two_shards};
use mailrail_spool::{RealDisk, Spool};
use std::path::Path;

/// What each of two shards has after a start with these copies: as the shards see it, and as the next start would.
fn after(copies: &[Copy]) -> [Vec<String>; 2] {
    let root = tempfile::tempdir().unwrap();
    let config = two_shards(root.path());
    let places = [root.path().join("0"), root.path().join("1")];
    let mut spools = places.each_ref().map(|place| spool(place));
    copies.iter().for_each(|copy| append(&mut spools[copy.shard], copy));
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    let seen = executor.run(async move {
        let shards = pair(&config, spools);
        let (one, other) = futures_lite::future::zip(settle(&shards[0]), settle(&shards[1])).await;
        assert!(one && other);
        [0, 1].map(|n| open(&shards[n].spool.borrow()))
    });
    // Tasks that never end hold the spools: the next start is one on a copy.
    let kept = |place: &Path| {
        let copy = place.with_extension("copy");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        open(&spool(&copy))
    };
    assert_eq!(places.each_ref().map(|place| kept(place)), seen, "what was given up is recorded");
    seen
}

/// A shard that is gone had it, too: what is taken over is there once, however often a crash comes in the midst of it.
#[test]
fn what_a_gone_shard_had_too_is_taken_over_once() {
    let root = tempfile::tempdir().unwrap();
    let (mut new, mut old) = (spool(&root.path().join("0")), spool(&root.path().join("2")));
    append(&mut old, &Copy { shard: 2, recipients: &[1, 2, 3], moved: false });
    append(&mut new, &Copy { shard: 0, recipients: &[2], moved: true });
    crate::adopt::take_over(&mut new, &mut old).unwrap();
    assert_eq!((open(&new), open(&old)), (names(&[1, 2, 3]), names(&[])));
    append(&mut old, &Copy { shard: 2, recipients: &[1, 2, 3], moved: false });
    crate::adopt::take_over(&mut new, &mut old).unwrap();
    assert_eq!((open(&new), open(&old)), (names(&[1, 2, 3]), names(&[])));
}

/// A disk that is full when a shard is gone holds up nobody, and no mail is there twice.
#[test]
fn what_a_gone_shard_had_is_taken_over_from_a_full_disk() {
    let root = tempfile::tempdir().unwrap();
    let (mut new, old) = (spool(&root.path().join("0")), root.path().join("2"));
    drop(full_spool(&old));
    let segments = std::fs::read_dir(&old).unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "seg"))
    });
    let tiny = mailrail_spool::Limits::tiny();
    let limits = mailrail_spool::Limits { max_bytes: (segments.count() * tiny.segment_size) as u64, ..tiny };
    for _ in 0..2 {
        let mut old = Spool::open(RealDisk::open(&old).unwrap(), limits.clone()).unwrap().0;
        assert!(!old.room_for_outcomes());
        crate::adopt::take_over(&mut new, &mut old).unwrap();
        assert_eq!(open(&new), names(&[1]));
    }
}

#[test]
fn what_both_have_the_lower_number_keeps_whoever_moved_it() {
    let from_0 =
        [Copy { shard: 0, recipients: &[1, 2, 3], moved: false }, Copy { shard: 1, recipients: &[2, 3], moved: true }];
    assert_eq!(after(&from_0), [names(&[1, 2, 3]), names(&[])]);
    let from_1 =
        [Copy { shard: 1, recipients: &[1, 2, 3], moved: false }, Copy { shard: 0, recipients: &[2, 3], moved: true }];
    assert_eq!(after(&from_1), [names(&[2, 3]), names(&[1])]);
}

#[test]
fn of_two_copies_that_were_both_moved_one_stays() {
    let both = [Copy { shard: 0, recipients: &[1], moved: true }, Copy { shard: 1, recipients: &[1, 2], moved: true }];
    assert_eq!(after(&both), [names(&[1]), names(&[2])]);
}

#[test]
fn a_message_moved_in_parts_is_compared_part_by_part() {
    let parts = [
        Copy { shard: 0, recipients: &[1, 2, 4], moved: false },
        Copy { shard: 1, recipients: &[1], moved: true },
        Copy { shard: 1, recipients: &[3, 2], moved: true },
    ];
    assert_eq!(after(&parts), [names(&[1, 2, 4]), names(&[3])]);
}

/// An operator may send mail by another leased IP of the same shard.
#[test]
fn what_a_shard_has_moved_to_itself_is_there_once() {
    let twice =
        [Copy { shard: 1, recipients: &[1, 2, 3], moved: false }, Copy { shard: 1, recipients: &[2, 3], moved: true }];
    assert_eq!(after(&twice), [names(&[]), names(&[1, 2, 3])]);
    let thrice = [
        Copy { shard: 0, recipients: &[1, 2], moved: false },
        Copy { shard: 0, recipients: &[1], moved: true },
        Copy { shard: 0, recipients: &[1], moved: true },
        Copy { shard: 1, recipients: &[2], moved: true },
    ];
    assert_eq!(after(&thrice), [names(&[1, 2]), names(&[])]);
}

/// Of two shards the first has one message, which is to go to the other one, and a spool that has no segment to write that
/// into; after a while `then` is done to it. Did the message go, and what has each shard in the end?
fn moved_without_room(then: impl FnOnce(&Rc<Shard>) + 'static) -> (bool, [Vec<String>; 2]) {
    let root = tempfile::tempdir().unwrap();
    let config = two_shards(root.path());
    let spools = [full_spool(&root.path().join("0")), spool(&root.path().join("1"))];
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    executor.run(async move {
        let shards = pair(&config, spools);
        // Who is not loaded takes nothing over.
        shards.iter().for_each(|shard| shard.loaded.set(true));
        let key = only(&shards[0].spool.borrow());
        let (from, to) = (Rc::clone(&shards[0]), ([127, 0, 10, 1].into(), None));
        let moving = glommio::spawn_local(async move { crate::rehome::hand_over(&from, key, None, to, 1).await });
        glommio::timer::sleep(POLL * 20).await;
        let have = || [0, 1].map(|n| open(&shards[n].spool.borrow()));
        assert_eq!(have(), [names(&[1]), names(&[])]);
        then(&shards[0]);
        (moving.await, have())
    })
}

/// As long as it cannot be recorded that mail has gone, it stays: the next start would not know, and both shards would send
/// it.
#[test]
fn mail_does_not_go_while_that_could_not_be_recorded() {
    // It waits for room, and gives up only when its shard stops.
    assert_eq!(moved_without_room(|shard| shard.stopping.set(true)), (false, [names(&[1]), names(&[])]));
}

#[test]
fn mail_goes_as_soon_as_that_can_be_recorded() {
    let gone = moved_without_room(|shard| {
        glommio::spawn_local(crate::housekeeping::run(Rc::clone(shard))).detach();
    });
    assert_eq!(gone, (true, [names(&[]), names(&[1])]));
}

#[test]
fn what_only_one_has_stays_where_it_is() {
    let apart = [Copy { shard: 0, recipients: &[1], moved: false }, Copy { shard: 1, recipients: &[2], moved: true }];
    assert_eq!(after(&apart), [names(&[1]), names(&[2])]);
    assert_eq!(after(&[]), [names(&[]), names(&[])]);
}
