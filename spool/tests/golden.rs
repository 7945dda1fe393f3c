//! The bytes on disk are a promise: a spool written by an earlier version must be read by every later one.
//!
//! `golden/segment.hex` holds the segment that the operations below make. A change of it is a change of the format: give it a
//! new magic, and say in FORMAT.md how the old one is read. `MAILRAIL_GOLDEN=write` writes it anew.

use mailrail_spool::{Limits, NewMessage, SettleKind, Spool, sim::SimDisk};
use std::{fmt::Write, fs, path::Path};

const SIZE: usize = 16 << 10;

fn written() -> SimDisk {
    let disk = SimDisk::new(1);
    let limits = Limits { segment_size: SIZE, ..Limits::tiny() };
    let (mut spool, _) = Spool::open_sim(&disk, limits).unwrap();
    while let Some(chore) = spool.chore(0) {
        spool.finish_chore(chore.run(), 0);
    }
    let chunk = spool.append_chunk(&[b"first piece, "]).unwrap();
    let new = NewMessage {
        id: b"id-of-one",
        accepted_ms: 1_700_000_000_123,
        meta: b"envelope",
        recipients: 3,
        chunks: &[chunk],
        parts: &[b"second", b" piece\r\n"],
    };
    let one = spool.append_message(&new).unwrap();
    assert!(spool.note(b"ledger", b"42").is_ok());
    assert!(spool.settle(one.key, &[1], SettleKind::Bounced, b"no such user").recorded);
    assert!(spool.defer(one.key, &[0, 2], 4, 1_700_000_300_000, b"later"));
    assert!(spool.attempt(one.key, &[0], b"again"));
    let job = spool.start_sync().unwrap();
    let result = spool.sim_sync(&job);
    spool.finish_sync(job, result).unwrap();
    drop(spool);
    disk
}

/// Lines of 32 bytes that are not all zero, with their place.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, line) in bytes.chunks(32).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            let _ = write!(text, "{:05x} ", row * 32);
            line.iter().for_each(|byte| {
                let _ = write!(text, " {byte:02x}");
            });
            text.push('\n');
        }
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let at = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        for (n, word) in words.enumerate() {
            bytes[at + n] = u8::from_str_radix(word, 16).unwrap();
        }
    }
    bytes
}

#[test]
fn the_bytes_are_as_they_always_were_and_are_read_back() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment.hex");
    let disk = written();
    let now = disk.tamper(disk.segments()[0], |bytes| hex(bytes));
    if std::env::var_os("MAILRAIL_GOLDEN").is_some_and(|what| what == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert_eq!(now, golden, "the format has changed");
    let old = SimDisk::new(2);
    old.put(0, unhex(&golden));
    let limits = Limits { segment_size: SIZE, ..Limits::tiny() };
    let (spool, recovery) = Spool::open_sim(&old, limits).unwrap();
    assert_eq!((recovery.messages, recovery.torn, recovery.lost.len()), (1, 0, 0));
    spool.for_each_message(|_, view| {
        assert_eq!((view.id, view.accepted_ms, view.meta), (&b"id-of-one"[..], 1_700_000_000_123, &b"envelope"[..]));
        assert_eq!(view.pieces().collect::<Vec<_>>().concat(), b"first piece, second piece\r\n");
        let states: Vec<_> = view.recipients.iter().map(|s| (s.settled, s.attempts, s.next_try_ms)).collect();
        assert_eq!(states, [(false, 4, 1_700_000_300_000), (true, 0, 0), (false, 4, 1_700_000_300_000)]);
    });
}
