//! Any bytes in the segments of a spool: what must hold. Shared by the fuzz target and the replay test.

use mailrail_spool::{
    Limits, NewMessage, SettleKind, Spool,
    sim::{self, SimDisk},
};

const SIZE: usize = 16 << 10;

fn limits() -> Limits {
    Limits { segment_size: SIZE, max_bytes: 16 * SIZE as u64, ..Limits::tiny() }
}

/// Two segments that a small workload has left.
fn base() -> SimDisk {
    let disk = SimDisk::new(1);
    let Ok((mut spool, _)) = Spool::open_sim(&disk, limits()) else { return disk };
    for n in 0..3 {
        if let Some(chore) = spool.chore(n) {
            spool.finish_chore(chore.run(), n);
        }
    }
    let mut keys = Vec::new();
    for n in 0..30_u64 {
        let id = n.to_le_bytes();
        let chunk = if n % 3 == 0 { spool.append_chunk(&[&[n as u8; 200]]).ok() } else { None };
        let chunks = chunk.as_slice();
        let new = NewMessage { id: &id, accepted_ms: n, meta: b"meta", recipients: 2, chunks, parts: &[&[7; 300]] };
        keys.extend(spool.append_message(&new).ok().map(|appended| appended.key));
    }
    for (n, key) in keys.iter().enumerate() {
        match n % 4 {
            0 => assert!(!spool.settle(*key, &[0], SettleKind::Delivered, b"detail").wholly),
            1 => assert!(spool.defer(*key, &[0, 1], 3, 99, b"later")),
            2 => assert!(spool.attempt(*key, &[1], b"again")),
            _ => {}
        }
    }
    let _ = spool.note(b"name", b"value");
    if let Some(job) = spool.start_sync() {
        let result = spool.sim_sync(&job);
        let _ = spool.finish_sync(job, result);
    }
    drop(spool);
    disk
}

/// Groups of four octets: which segment and whether its checksums are made good afterwards, where (two octets), what.
pub(crate) fn run(data: &[u8]) {
    let disk = base();
    let segments = disk.segments();
    let mut mended = Vec::new();
    for edit in data.chunks_exact(4).take(256) {
        let segment = segments[usize::from(edit[0] & 0x7f) % segments.len()];
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % SIZE;
        disk.tamper(segment, |bytes| bytes[at] = edit[3]);
        if edit[0] & 0x80 != 0 {
            mended.push(segment);
        }
    }
    for segment in mended {
        disk.tamper(segment, |bytes| sim::mend_checksums(bytes));
    }
    let Ok((mut spool, _)) = Spool::open_sim(&disk, limits()) else { return };
    let first = contents(&spool);
    work(&mut spool, &first.iter().map(|(key, ..)| *key).collect::<Vec<_>>());
    drop(spool);
    // What recovery made of it is a sound spool: it opens again, with nothing in it that it did not have.
    let again = Spool::open_sim(&disk, limits());
    let Ok((spool, _)) = again else { panic!("a spool that was recovered does not open again") };
    for (_, id, content) in contents(&spool) {
        assert!(first.iter().any(|(_, known, was)| *known == id && *was == content), "something came out of nothing");
    }
}

type Found = Vec<(mailrail_spool::MessageKey, Vec<u8>, Vec<u8>)>;

fn contents(spool: &Spool<SimDisk>) -> Found {
    let mut found = Vec::new();
    spool.for_each_message(|key, view| {
        let content: Vec<u8> = view.pieces().flatten().copied().collect();
        assert_eq!(view.content_from(content.len() as u64), b"");
        found.push((key, view.id.to_vec(), content));
    });
    found
}

/// What a shard would do with it.
fn work(spool: &mut Spool<SimDisk>, keys: &[mailrail_spool::MessageKey]) {
    let mut last = None;
    while let Some(cursor) = spool.read_outbox(1000, |record| assert!(record.recipients().count() <= 0xffff)) {
        assert!(last < Some(cursor.0), "the outbox goes in circles");
        last = Some(cursor.0);
    }
    for key in keys.iter().step_by(2) {
        let recipients = spool.message(*key).map_or(0, |view| view.recipients.len() as u16);
        let all: Vec<u16> = (0..recipients).collect();
        let _ = spool.settle(*key, &all, SettleKind::Delivered, b"");
    }
    for round in 0..8 {
        let _ = spool.compact(4 << 10);
        if let Some(job) = spool.start_sync() {
            let result = spool.sim_sync(&job);
            let _ = spool.finish_sync(job, result);
        }
        if let Some(chore) = spool.chore(round * 100) {
            spool.finish_chore(chore.run(), round * 100);
        }
    }
    let _ = spool.usage();
}
