//! Two shards on one thread, each with a real spool, as a crash in the middle of a move leaves them.

use super::*;
use crate::{
    config::Config,
    limits::Limits,
    memory::{Ceiling, Memory},
    mesh::Mesh,
    message::{
        id::MessageId,
        meta::{MetaFlags, RecipientMeta},
    },
    shard::Parts,
    smtp::envelope::Notify,
    tls::certs::Trust,
};
use mailrail_queue::classify::Classifier;
use mailrail_spool::{NewMessage, RealDisk, Spool};
use std::path::Path;
use tokio::sync::mpsc;

/// A message in the spool of a shard: the numbers of its recipients, and whether it was moved there.
struct Copy {
    shard: usize,
    recipients: &'static [u8],
    moved: bool,
}

fn spool(directory: &Path) -> Spool {
    std::fs::create_dir_all(directory).unwrap();
    let mut spool = Spool::open(RealDisk::open(directory).unwrap(), mailrail_spool::Limits::tiny()).unwrap().0;
    make_segments(&mut spool);
    spool
}

fn make_segments(spool: &mut Spool) {
    while let Some(chore) = spool.chore(1) {
        let done = chore.run();
        spool.finish_chore(done, 1);
    }
}

fn append(spool: &mut Spool, copy: &Copy) {
    let id = MessageId::new(1, 0, 2, 3);
    let addresses: Vec<_> = copy.recipients.iter().map(|n| format!("r{n}@one.test")).collect();
    let recipients =
        addresses.iter().map(|address| RecipientMeta { address, notify: Notify::DEFAULT, orcpt: None }).collect();
    let meta = Meta {
        id,
        sender: "a@sender.test",
        env_id: None,
        ret: None,
        flags: MetaFlags { eight_bit: false, smtputf8: false, dsn: false, moved: copy.moved },
        lease: None,
        pool: "",
        source_ip: None,
        source_tls: None,
        from_domain: "sender.test",
        header_size: 0,
        recipients,
        account: "default",
        suppressed: Vec::new(),
    };
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    let count = addresses.len() as u16;
    let id = id.to_bytes();
    let new =
        NewMessage { id: &id, accepted_ms: 1, meta: &encoded, recipients: count, chunks: &[], parts: &[b"\r\nx\r\n"] };
    spool.append_message(&new).unwrap();
}

fn shard(config: &Arc<Config>, number: u16, spool: Spool, peers: &[mpsc::Sender<Request>]) -> Rc<Shard> {
    let (reports, _) = mpsc::channel(8);
    Rc::new(Shard::new(Parts {
        number,
        config: Arc::clone(config),
        limits: Limits::default(),
        memory: Memory::new(Ceiling::new(1 << 30, 2), number),
        trust: Trust::load(None).unwrap(),
        certificates: Vec::new(),
        classifier: Classifier::built_in().unwrap(),
        spool,
        mesh: Mesh::new(peers.to_vec()),
        reports,
        seed: 1,
    }))
}

/// Unsettled recipients of a spool.
fn open(spool: &Spool) -> Vec<String> {
    let mut all = Vec::new();
    spool.for_each_message(|_, view| {
        let meta = Meta::decode(view.meta).unwrap();
        let open = meta.recipients.iter().zip(view.recipients).filter(|(_, state)| !state.settled);
        all.extend(open.map(|(recipient, _)| recipient.address.to_owned()));
    });
    all.sort();
    all
}

/// What each of two shards has after a start with these copies: as the shards see it, and as the next start would.
fn after(copies: &[Copy]) -> [Vec<String>; 2] {
    let root = tempfile::tempdir().unwrap();
    let config = two_shards(root.path());
    let places = [root.path().join("0"), root.path().join("1")];
    let mut spools = places.each_ref().map(|place| spool(place));
    copies.iter().for_each(|copy| append(&mut spools[copy.shard], copy));
    let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
    let seen = executor.run(async move {
        let (channels, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(8)).unzip();
        let shards: Vec<_> =
            (0..).zip(spools).map(|(number, spool)| shard(&config, number, spool, &channels)).collect();
        for (shard, inbox) in shards.iter().zip(inboxes) {
            glommio::spawn_local(commit::run(Rc::clone(shard))).detach();
            glommio::spawn_local(mesh::serve(Rc::clone(shard), inbox)).detach();
        }
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

fn names(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|n| format!("r{n}@one.test")).collect()
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
        let (channels, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(8)).unzip();
        let mut number = 0..;
        let shards = spools.map(|spool| shard(&config, number.next().unwrap(), spool, &channels));
        for (shard, inbox) in shards.iter().zip(inboxes) {
            // Who is not loaded takes nothing over.
            shard.loaded.set(true);
            glommio::spawn_local(commit::run(Rc::clone(shard))).detach();
            glommio::spawn_local(mesh::serve(Rc::clone(shard), inbox)).detach();
        }
        let mut key = None;
        shards[0].spool.borrow().for_each_message(|found, _| key = Some(found));
        let (from, to) = (Rc::clone(&shards[0]), ([127, 0, 10, 1].into(), None));
        let moving =
            glommio::spawn_local(async move { crate::rehome::hand_over(&from, key.unwrap(), None, to, 1).await });
        glommio::timer::sleep(POLL * 20).await;
        let have = || [0, 1].map(|n| open(&shards[n].spool.borrow()));
        assert_eq!(have(), [names(&[1]), names(&[])]);
        then(&shards[0]);
        (moving.await, have())
    })
}

/// A spool with one message whose other segments are gone, so that nothing can be recorded in it.
fn full_spool(place: &Path) -> Spool {
    let mut before = spool(place);
    append(&mut before, &Copy { shard: 0, recipients: &[1], moved: false });
    let job = before.start_sync().unwrap();
    let result = job.paths().try_for_each(|path| std::fs::File::open(path)?.sync_data());
    before.finish_sync(job, result).unwrap();
    drop(before);
    for entry in std::fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let is_used = std::fs::read(&path).unwrap().windows(5).any(|octets| octets == b"\r\nx\r\n");
        if path.extension().is_some_and(|ending| ending == "seg") && !is_used {
            std::fs::remove_file(path).unwrap();
        }
    }
    let full = Spool::open(RealDisk::open(place).unwrap(), mailrail_spool::Limits::tiny()).unwrap().0;
    assert!(!full.room_for_outcomes());
    full
}

fn two_shards(root: &Path) -> Arc<Config> {
    let file = root.join("mailrail.toml");
    std::fs::write(&file, "hostname = \"mta.test\"\nshards = 2\n").unwrap();
    Arc::new(Config::load(&file).unwrap())
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
