//! A message's life through the public door, on a real directory.

use mailrail_spool::{Limits, NewMessage, OutboxKind, RealDisk, SettleKind, Spool, sim::SimDisk};

fn limits() -> Limits {
    Limits { segment_size: 64 << 10, reserve: 8 << 10, max_bytes: 4 << 20, ..Limits::tiny() }
}

fn sync(spool: &mut Spool) {
    if let Some(job) = spool.start_sync() {
        let result = job.paths().try_for_each(|path| std::fs::File::open(path)?.sync_data());
        spool.finish_sync(job, result).unwrap();
    }
}

fn chores(spool: &mut Spool) {
    while let Some(chore) = spool.chore(u64::MAX / 2) {
        let done = chore.run();
        spool.finish_chore(done, u64::MAX / 2);
    }
}

fn new<'a>(id: &'a [u8], parts: &'a [&'a [u8]]) -> NewMessage<'a> {
    NewMessage { id, accepted_ms: 7, meta: b"envelope", recipients: 2, chunks: &[], parts }
}

#[test]
fn a_message_survives_a_restart_and_leaves_when_all_its_recipients_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(RealDisk::open(directory.path()).unwrap(), limits()).unwrap();
    chores(&mut spool);
    let taken = spool.append_message(&new(b"first", &[b"Subject: x\r\n", b"\r\nhello\r\n"])).unwrap();
    assert!(spool.proof(taken.position).is_none());
    sync(&mut spool);
    assert!(spool.proof(taken.position).is_some());
    let settled = spool.settle(taken.key, &[1], SettleKind::Delivered, b"d");
    assert!(settled.recorded && !settled.wholly);
    assert!(spool.defer(taken.key, &[0], 3, 99, b"later"));
    sync(&mut spool);
    drop(spool);

    let (mut spool, recovery) = Spool::open(RealDisk::open(directory.path()).unwrap(), limits()).unwrap();
    assert_eq!((recovery.messages, recovery.torn, recovery.lost.len()), (1, 0, 0));
    let mut keys = Vec::new();
    spool.for_each_message(|key, view| {
        assert_eq!((view.id, view.meta, view.accepted_ms), (&b"first"[..], &b"envelope"[..], 7));
        assert_eq!(view.pieces().collect::<Vec<_>>().concat(), b"Subject: x\r\n\r\nhello\r\n");
        assert!(view.recipients[1].settled);
        assert_eq!((view.recipients[0].attempts, view.recipients[0].next_try_ms), (3, 99));
        keys.push(key);
    });
    let mut kinds = Vec::new();
    let cursor = spool.read_outbox(usize::MAX, |record| kinds.push(record.kind)).unwrap();
    let deferred = OutboxKind::Deferred { attempts: 3, next_try_ms: 99 };
    assert_eq!(kinds, [OutboxKind::Accepted, OutboxKind::Settled(SettleKind::Delivered), deferred]);
    chores(&mut spool);
    spool.acknowledge_outbox(cursor);
    assert!(spool.settle(keys[0], &[0], SettleKind::Bounced, b"no").wholly);
    assert!(spool.message(keys[0]).is_none());
    sync(&mut spool);
    drop(spool);

    let (mut spool, recovery) = Spool::open(RealDisk::open(directory.path()).unwrap(), limits()).unwrap();
    assert_eq!(recovery.messages, 0);
    let mut count = 0;
    spool.read_outbox(usize::MAX, |_| count += 1);
    assert_eq!(count, 1, "only what was not acknowledged");
}

#[test]
fn segments_are_used_again_and_a_stuck_message_is_carried_along() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(RealDisk::open(directory.path()).unwrap(), limits()).unwrap();
    chores(&mut spool);
    let content = vec![b'x'; 4000];
    let stuck = spool.append_message(&new(b"stuck", &[&content])).unwrap();
    for round in 0..2_000_u32 {
        let taken = spool.append_message(&new(&round.to_le_bytes(), &[&content])).unwrap();
        assert!(spool.settle(taken.key, &[0, 1], SettleKind::Delivered, b"").wholly);
        sync(&mut spool);
        while let Some(cursor) = spool.read_outbox(1 << 20, |_| {}) {
            spool.acknowledge_outbox(cursor);
        }
        while spool.compact(1 << 16) {}
        sync(&mut spool);
        chores(&mut spool);
    }
    assert!(spool.usage().segments <= 8, "{:?}", spool.usage());
    assert_eq!(spool.message(stuck.key).unwrap().content_len, 4000);
    drop(spool);
    let (spool, recovery) = Spool::open(RealDisk::open(directory.path()).unwrap(), limits()).unwrap();
    assert_eq!((recovery.messages, recovery.lost), (1, vec![]));
    spool.for_each_message(|_, view| assert_eq!(view.id, b"stuck"));
}

#[test]
fn a_second_process_is_told_that_the_spool_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _first = RealDisk::open(directory.path()).unwrap();
    let error = RealDisk::open(directory.path()).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

/// Mail that waits holds up nothing that is sent beside it, and stays where it is.
#[test]
fn segments_behind_mail_that_waits_are_used_again_without_moving_it() {
    let disk = SimDisk::new(3);
    let limits = Limits { max_bytes: 4 << 20, census_from: 2, ..Limits::tiny() };
    let (mut spool, _) = Spool::open_sim(&disk, limits.clone()).unwrap();
    let mut time = 0;
    let mut turn = |spool: &mut Spool<SimDisk>| {
        while let Some(job) = spool.start_sync() {
            let result = spool.sim_sync(&job);
            spool.finish_sync(job, result).unwrap();
        }
        while let Some(cursor) = spool.read_outbox(1 << 20, |_| {}) {
            spool.acknowledge_outbox(cursor);
        }
        while spool.compact(1 << 20) {}
        while let Some(chore) = spool.chore(time) {
            spool.finish_chore(chore.run(), time);
        }
        time += 1000;
    };
    let content = [b'x'; 300];
    let parts = [&content[..]];
    let new =
        |id: &'static [u8]| NewMessage { id, accepted_ms: 1, meta: b"", recipients: 1, chunks: &[], parts: &parts };
    turn(&mut spool);
    for number in 0..200_u16 {
        let key = spool.append_message(&new(b"waits")).unwrap().key;
        assert!(spool.defer(key, &[0], number, 7, b""));
        turn(&mut spool);
    }
    let live = spool.usage().live_bytes;
    let mut most = 0;
    for _ in 0..4_000 {
        let Ok(appended) = spool.append_message(&new(b"goes")) else { panic!("{}", spool.sim_describe()) };
        let key = appended.key;
        assert!(spool.settle(key, &[0], SettleKind::Delivered, b"").wholly);
        turn(&mut spool);
        most = most.max(spool.usage().segments);
    }
    // A copy is a little longer. Only the few in the segment where others followed were moved.
    assert!(spool.usage().live_bytes - live < 200, "what waits was moved: {live} to {}", spool.usage().live_bytes);
    // What waits fills about six segments of 16 KiB; 100 times that was sent beside it.
    assert!(most <= 20, "{most} segments");
    drop(spool);
    let (spool, recovery) = Spool::open_sim(&disk, limits).unwrap();
    assert_eq!(recovery.messages, 200);
    let mut attempts = Vec::new();
    spool.for_each_message(|_, view| attempts.push(view.recipients[0].attempts));
    assert_eq!(attempts, (0..200).collect::<Vec<_>>());
}
