//! A damaged medium: what is intact is kept and true, what is lost is named, nothing is invented and nothing panics.

use mailrail_spool::{
    Limits, NewMessage, OpenError, Spool,
    sim::{Dice, SimDisk},
};
use std::collections::BTreeMap;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn limits() -> Limits {
    Limits { segment_size: 32 << 10, max_bytes: 4 << 20, ..Limits::tiny() }
}

/// Some hundred durable messages, each group of ten with its own sync, and what they hold.
fn filled(seed: u64) -> (SimDisk, Content) {
    let disk = SimDisk::new(seed);
    let mut dice = Dice::new(seed);
    let (mut spool, _) = Spool::open_sim(&disk, limits()).unwrap();
    let mut content = Content::new();
    for n in 0..200_u64 {
        let body: Vec<u8> = (0..dice.below(900)).map(|_| dice.roll() as u8).collect();
        let new = NewMessage {
            id: &n.to_le_bytes(),
            accepted_ms: n,
            meta: b"m",
            recipients: 1,
            chunks: &[],
            parts: &[&body],
        };
        while spool.append_message(&new).is_err() {
            let chore = spool.chore(n * 1000).expect("a segment can be made");
            spool.finish_chore(chore.run(), n * 1000);
        }
        content.insert(n.to_le_bytes().to_vec(), body);
        if n % 10 == 9 {
            let job = spool.start_sync().unwrap();
            let result = spool.sim_sync(&job);
            spool.finish_sync(job, result).unwrap();
        }
    }
    (disk, content)
}

/// What is there after all, each with exactly its content; and whether the spool says that something is not.
fn read(disk: &SimDisk, expected: &Content) -> (usize, bool) {
    let (spool, recovery) = Spool::open_sim(disk, limits()).unwrap();
    let mut found = 0;
    spool.for_each_message(|_, view| {
        let body: Vec<u8> = view.pieces().flatten().copied().collect();
        assert_eq!(expected.get(view.id), Some(&body), "a message that never was");
        found += 1;
    });
    (found, !recovery.lost.is_empty() || recovery.torn > 0)
}

#[test]
fn a_flipped_bit_costs_at_most_its_own_record_and_is_named() {
    for seed in 0..60 {
        let (disk, expected) = filled(seed);
        let mut dice = Dice::new(seed + 1000);
        let segments = disk.segments();
        let segment = segments[dice.below(segments.len())];
        disk.tamper(segment, |bytes| {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        });
        let (found, named) = read(&disk, &expected);
        // A hole in the last group cannot be told from a torn tail, which ends the log.
        assert!(found >= expected.len() - 10, "seed {seed}: {found}");
        assert!(found == expected.len() || named, "seed {seed}: {} lost without a word", expected.len() - found);
    }
}

#[test]
fn whole_sectors_of_rubbish_cost_what_they_hit() {
    for seed in 0..60 {
        let (disk, expected) = filled(seed);
        let mut dice = Dice::new(seed + 2000);
        let segments = disk.segments();
        for _ in 0..3 {
            let segment = segments[dice.below(segments.len())];
            disk.tamper(segment, |bytes| {
                let at = dice.below(bytes.len() / 512) * 512;
                bytes[at..at + 512].iter_mut().for_each(|byte| *byte = dice.roll() as u8);
            });
        }
        let (found, named) = read(&disk, &expected);
        assert!(found >= expected.len() / 2, "seed {seed}: {found}");
        assert!(found == expected.len() || named, "seed {seed}");
    }
}

#[test]
fn one_copy_of_a_head_is_enough_and_without_both_the_file_is_set_aside() {
    let (disk, expected) = filled(1);
    let first = disk.segments()[0];
    disk.tamper(first, |bytes| bytes[..512].fill(0xff));
    assert_eq!(read(&disk, &expected), (expected.len(), false));
    disk.tamper(first, |bytes| {
        let end = bytes.len();
        bytes[..512].fill(0xff);
        bytes[end - 512..].fill(0xff);
    });
    let before = disk.tamper(first, |bytes| bytes.clone());
    let (found, named) = read(&disk, &expected);
    assert!(found < expected.len() && named);
    assert_eq!(disk.tamper(first, |bytes| bytes.clone()), before, "somebody may still read it by hand");
}

#[test]
fn a_truncated_or_foreign_file_is_refused_with_the_reason() {
    let (disk, _) = filled(2);
    disk.tamper(disk.segments()[0], |bytes| bytes.truncate(1000));
    let Err(error) = Spool::open_sim(&disk, limits()) else { panic!("it opened") };
    assert!(matches!(&error, OpenError::Foreign { .. }) && error.to_string().contains("segment_size"), "{error}");
    let (disk, _) = filled(3);
    let Err(error) = Spool::open_sim(&disk, Limits { segment_size: 16 << 10, ..limits() }) else { panic!("it opened") };
    assert!(error.to_string().contains("32768"), "{error}");
}

/// A client that knows the format writes records into its mail. Even where recovery looks for them, behind damage, they
/// count for nothing, because no client knows the stamp.
#[test]
fn records_forged_inside_mail_count_for_nothing() {
    let (disk, _) = filled(4);
    let first = disk.segments()[0];
    // The most an attacker can do without the stamp: a whole, valid record of another use of a segment.
    let forged = disk.tamper(first, |bytes| bytes[4096..4096 + 2048].to_vec());
    let victim = SimDisk::new(99);
    let (mut spool, _) = Spool::open_sim(&victim, limits()).unwrap();
    let chore = spool.chore(0).expect("a segment can be made");
    spool.finish_chore(chore.run(), 0);
    let id = 7_u64.to_le_bytes();
    let new = NewMessage { id: &id, accepted_ms: 1, meta: b"m", recipients: 1, chunks: &[], parts: &[&forged] };
    spool.append_message(&new).unwrap();
    spool.append_message(&NewMessage { parts: &[b"after"], ..new }).unwrap();
    let job = spool.start_sync().unwrap();
    let result = spool.sim_sync(&job);
    spool.finish_sync(job, result).unwrap();
    drop(spool);
    // The header of the message that carries it is damaged: recovery walks into its content.
    victim.tamper(victim.segments()[0], |bytes| bytes[4096] ^= 1);
    let (spool, _) = Spool::open_sim(&victim, limits()).unwrap();
    let mut found = Vec::new();
    spool.for_each_message(|_, view| found.push(view.pieces().flatten().copied().collect::<Vec<u8>>()));
    assert!(found.iter().all(|content| content == b"after"), "{} messages", found.len());
}
