//! Looking into a damaged spool and repairing it: nothing that is intact is lost, what is lost is named, all of the old
//! bytes are kept aside, and a second look finds nothing. `MAILRAIL_SEEDS=1000` tries more.

use mailrail_spool::{
    Damage, Harm, Limits, LostKind, NewMessage, RealDisk, SettleKind, Spool,
    inspect::Inspection,
    repair::{Done, repair},
    sim::Dice,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Of each message by name: its content, and which recipients are settled.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, Vec<bool>)>;

const SEGMENT: usize = 32 << 10;

fn limits() -> Limits {
    Limits { segment_size: SEGMENT, max_bytes: 4 << 20, ..Limits::tiny() }
}

fn open(directory: &Path) -> (Spool, mailrail_spool::Recovery) {
    Spool::open(RealDisk::open(directory).unwrap(), limits()).unwrap()
}

fn sync(spool: &mut Spool) {
    let Some(job) = spool.start_sync() else { return };
    let result = job.paths().try_for_each(|path| fs::File::open(path)?.sync_data());
    spool.finish_sync(job, result).unwrap();
}

/// Eighty durable messages of two recipients; of every third one is settled, every seventh is wholly, every fifth has a chunk.
fn filled(directory: &Path, seed: u64) -> Content {
    let mut dice = Dice::new(seed);
    let (mut spool, _) = open(directory);
    let mut content = Content::new();
    for n in 0..80_u64 {
        let id = format!("message-{n}").into_bytes();
        let body: Vec<u8> = (0..dice.below(1500)).map(|_| dice.roll() as u8).collect();
        let made = |n: u64, spool: &mut Spool| {
            let chore = spool.chore(n * 1000).expect("a segment can be made");
            spool.finish_chore(chore.run(), n * 1000);
        };
        let mut chunks = Vec::new();
        if n % 5 == 0 {
            let chunk = loop {
                match spool.append_chunk(&[&body]) {
                    Ok(chunk) => break chunk,
                    Err(_) => made(n, &mut spool),
                }
            };
            chunks.push(chunk);
        }
        let parts: &[&[u8]] = if chunks.is_empty() { &[&body] } else { &[b"end"] };
        let new = NewMessage { id: &id, accepted_ms: n, meta: b"envelope", recipients: 2, chunks: &chunks, parts };
        let key = loop {
            match spool.append_message(&new) {
                Ok(appended) => break appended.key,
                Err(_) => made(n, &mut spool),
            }
        };
        let mut settled = vec![false, false];
        if n % 3 == 0 {
            let _ = spool.settle(key, &[0], SettleKind::Delivered, b"ok");
            settled[0] = true;
        }
        if n % 7 == 0 {
            let _ = spool.settle(key, &[0, 1], SettleKind::Bounced, b"no");
        } else {
            let mut whole = body.clone();
            if !chunks.is_empty() {
                whole.extend_from_slice(b"end");
            }
            content.insert(id, (whole, settled));
        }
        if n % 4 == 3 {
            sync(&mut spool);
        }
    }
    sync(&mut spool);
    sync(&mut spool);
    content
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect();
    found.sort();
    found
}

fn bytes_of(directory: &Path) -> Vec<Vec<u8>> {
    segments(directory).iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One to three wounds: a bit, a sector of rubbish, an end cut off, both heads, a whole body.
fn wound(directory: &Path, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let files = segments(directory);
        let path = &files[dice.below(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let length = bytes.len();
        match dice.below(8) {
            0..=2 => bytes[dice.below(length)] ^= 1 << dice.below(8),
            3 | 4 => {
                let at = dice.below((length / 512).max(1)) * 512;
                bytes[at..(at + 512).min(length)].iter_mut().for_each(|byte| *byte = dice.roll() as u8);
            }
            5 => bytes.truncate(dice.below(length)),
            6 => {
                bytes[..64.min(length)].fill(0xff);
                bytes[length.saturating_sub(512)..].fill(0xff);
            }
            // Not of the newest: nothing else knows of what only it held (FORMAT.md, what is assumed).
            _ if length > 8192 && *path == files[0] => bytes[4096..length - 512].fill(0x5a),
            _ => {}
        }
        if !bytes.is_empty() {
            fs::write(path, bytes).unwrap();
        }
    }
}

/// What an inspection says is still to be delivered, whole.
fn live(inspection: &Inspection) -> Content {
    let mut found = Content::new();
    inspection.for_each(|kept| {
        if kept.live && kept.view.is_whole() {
            let body = kept.view.pieces().flatten().copied().collect();
            let settled = kept.view.recipients.iter().map(|state| state.settled).collect();
            found.insert(kept.view.id.to_vec(), (body, settled));
        }
    });
    found
}

fn still(directory: &Path) -> Inspection {
    Inspection::open(directory, Box::new(|_| ())).unwrap()
}

#[test]
fn a_sound_spool_is_left_as_it_is_and_read_as_a_server_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path(), 1);
    let before = bytes_of(directory.path());
    let inspection = still(directory.path());
    assert_eq!(inspection.recovery().lost, []);
    assert_eq!(live(&inspection), expected);
    let mut settled = 0;
    inspection.for_each(|kept| settled += usize::from(!kept.live && kept.ends.len() >= 2));
    assert_eq!(settled, 12, "those wholly settled can still be read");
    assert!(RealDisk::open(directory.path()).is_err(), "no server can start on it meanwhile");
    drop(inspection);
    assert_eq!(repair(directory.path(), &directory.path().join("aside"), Box::new(|_| ())).unwrap(), []);
    assert_eq!(bytes_of(directory.path()), before);
    assert!(!directory.path().join("aside").exists());
}

#[expect(clippy::disallowed_methods, reason = "how many seeds a run takes is for whoever starts it to say")]
#[test]
fn what_is_intact_is_kept_and_what_is_lost_is_named() {
    let seeds = std::env::var("MAILRAIL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let expected = filled(&spool, seed % 7);
        wound(&spool, &mut Dice::new(seed));
        let wounded = bytes_of(&spool);
        let inspection = still(&spool);
        let found = live(&inspection);
        for (id, (body, settled)) in &found {
            let (true_body, true_settled) = expected.get(id).unwrap_or_else(|| {
                // Its end may be what was lost: then it is delivered again.
                panic_unless_named(&inspection, seed);
                &found[id]
            });
            assert_eq!(body, true_body, "seed {seed}: content that never was");
            assert!(
                settled.iter().zip(true_settled).all(|(now, then)| *then || !*now),
                "seed {seed}: settled what never was"
            );
        }
        let missing = expected.keys().filter(|id| !found.contains_key(*id)).count();
        if missing > 0 {
            panic_unless_named(&inspection, seed);
        }
        drop(inspection);
        assert_eq!(bytes_of(&spool), wounded, "seed {seed}: only looked at");

        let aside = directory.path().join("aside");
        let repaired = repair(&spool, &aside, Box::new(|_| ())).unwrap();
        for one in repaired.iter().filter(|one| one.done != Done::Copied) {
            let copy = fs::read(&one.aside).unwrap();
            assert!(wounded.contains(&copy), "seed {seed}: {one:?} is not kept as it was");
        }
        let inspection = still(&spool);
        let left: Vec<&Damage> = inspection.recovery().lost.iter().collect();
        assert!(left.iter().all(|damage| matches!(damage.what, Harm::Message { .. })), "seed {seed}: {left:?}");
        assert_eq!(live(&inspection), found, "seed {seed}: repaired, and as before");
        drop(inspection);
        let (mut server, recovery) = open(&spool);
        assert!(recovery.lost.iter().all(|damage| matches!(damage.what, Harm::Message { .. })), "seed {seed}");
        let mut served = 0;
        server.for_each_message(|_, view| served += usize::from(view.is_whole()));
        assert_eq!(served, found.len(), "seed {seed}");
        // It is a spool like any other: events can be read, and mail taken in.
        while let Some(cursor) = server.read_outbox(1 << 20, |_| ()) {
            server.acknowledge_outbox(cursor);
        }
        sync(&mut server);
    }
}

fn panic_unless_named(inspection: &Inspection, seed: u64) {
    let recovery = inspection.recovery();
    assert!(!recovery.lost.is_empty() || !recovery.cut.is_empty(), "seed {seed}: lost without a word");
}

#[test]
fn a_lost_message_is_named_with_its_envelope() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3);
    let path = &segments(directory.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"message-1").expect("it is there");
    bytes[at + 60] ^= 4;
    fs::write(path, bytes).unwrap();
    let inspection = still(directory.path());
    let [damage] = inspection.recovery().lost.as_slice() else { panic!("{:?}", inspection.recovery().lost) };
    let [lost] = damage.lost.as_slice() else { panic!("{damage:?}") };
    let LostKind::Message { id, meta, recipients, .. } = &lost.what else { panic!("{lost:?}") };
    assert_eq!((id.as_slice(), meta.as_slice(), *recipients), (&b"message-1"[..], &b"envelope"[..], 2));
    assert!(damage.to_string().contains("message-1") && damage.to_string().contains("00000000"), "{damage}");
}

#[test]
fn a_piece_that_is_gone_makes_its_message_known_as_not_whole() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path(), 4);
    let path = &segments(directory.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let piece = expected[&b"message-5".to_vec()].0.clone();
    let at = bytes.windows(20).position(|window| *window == piece[..20]).expect("it is there");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let (spool, recovery) = open(directory.path());
    let named = |damage: &&Damage| matches!(&damage.what, Harm::Message { id } if id == b"message-5");
    assert_eq!(recovery.lost.iter().filter(named).count(), 1, "{:?}", recovery.lost);
    let mut maimed = Vec::new();
    spool.for_each_message(|_, view| {
        if !view.is_whole() {
            maimed.push(view.id.to_vec());
        }
    });
    assert_eq!(maimed, [b"message-5".to_vec()]);
}

/// Whatever the bytes are, also with checksums that hold: nothing panics, and a second repair finds nothing to mend.
#[test]
fn rubbish_with_good_checksums_is_survived() {
    for seed in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        filled(&spool, 5);
        let mut dice = Dice::new(seed);
        for path in segments(&spool) {
            let mut bytes = fs::read(&path).unwrap();
            for _ in 0..dice.below(20) {
                // Headers and the front of payloads say most.
                let at = 4096 + dice.below(4096);
                bytes[at] = dice.roll() as u8;
            }
            mailrail_spool::sim::mend_checksums(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
        let look = |inspection: Inspection| {
            let mut octets = 0;
            inspection.for_each(|kept| octets += kept.view.pieces().map(<[u8]>::len).sum::<usize>());
            inspection.for_each_unsure(|kept| octets += kept.view.content_from(0).len()).unwrap();
            octets
        };
        look(still(&spool));
        let aside = directory.path().join("aside");
        repair(&spool, &aside, Box::new(|_| ())).unwrap();
        look(still(&spool));
        let again = repair(&spool, &aside, Box::new(|_| ())).unwrap();
        assert!(again.iter().all(|one| one.done != Done::Removed), "seed {seed}: {again:?}");
        let (server, _) = open(&spool);
        let mut octets = 0;
        server.for_each_message(|_, view| octets += view.pieces().map(<[u8]>::len).sum::<usize>());
    }
}
