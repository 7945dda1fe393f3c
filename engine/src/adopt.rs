//! Opening a shard's spool, and taking over the mail of shards that are no more.
//!
//! When a host is started with fewer shards than before, the spools of the others still hold mail. Each is moved, message
//! by message, into the spool of a shard that lives; it goes only when all of it is durable there.

use crate::{config::Config, message::meta::Meta, warmup};
use mailrail_spool::{Limits, MessageKey, NewMessage, OpenError, RealDisk, Recovery, SettleKind, Spool};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Directory of a shard's spool.
pub(crate) fn directory(config: &Config, shard: u16) -> PathBuf {
    config.data_dir.join("spool").join(format!("shard-{shard:03}"))
}

/// Directories of all spools below `data_dir`, each with the number of its shard; those of shards that are gone, too.
///
/// # Errors
/// As the system says; no directory means no spools.
pub fn spools(data_dir: &Path) -> io::Result<Vec<(u16, PathBuf)>> {
    let entries = match fs::read_dir(data_dir.join("spool")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("shard-")?.parse().ok());
        found.extend(number.map(|number: u16| (number, path)));
    }
    found.sort();
    Ok(found)
}

fn limits(config: &Config) -> Limits {
    let shards = u64::from(config.shards.max(1));
    let segment_size = config.spool.segment_size;
    Limits {
        segment_size,
        max_bytes: (config.spool.max_bytes / shards).max(6 * segment_size as u64),
        reserve: (segment_size / 2).min(32 << 20),
        ..Limits::default()
    }
}

/// Opens the spool of `shard`, with what other, gone shards left to it.
pub(crate) fn open(config: &Config, shard: u16) -> Result<(Spool, Recovery), OpenError> {
    let (mut spool, mut recovery) = open_one(config, &directory(config, shard))?;
    for orphan in orphans(config, shard) {
        let (mut old, found) = open_one(config, &orphan)?;
        recovery.lost.extend(found.lost);
        warmup::carry(&mut spool, &old);
        let moved = take_over(&mut spool, &mut old).map_err(|source| io_error(&orphan, "move its mail", source))?;
        tracing::info!(shard, messages = moved, from = %orphan.display(), "took over the spool of a shard that is gone");
        if old.is_empty() {
            drop(old);
            fs::remove_dir_all(&orphan).map_err(|source| io_error(&orphan, "remove it", source))?;
        }
    }
    recovery.messages = spool.len();
    Ok((spool, recovery))
}

fn open_one(config: &Config, directory: &Path) -> Result<(Spool, Recovery), OpenError> {
    Spool::open(RealDisk::open(directory)?, limits(config))
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: path.into(), what, source }
}

/// Spools of shards beyond those that live, spread over these.
fn orphans(config: &Config, shard: u16) -> Vec<PathBuf> {
    let found = spools(&config.data_dir).unwrap_or_default().into_iter();
    let ours = found.filter(|(number, _)| *number >= config.shards && number % config.shards == shard);
    ours.map(|(_, path)| path).collect()
}

/// Recipients by message id.
type Known = FxHashMap<Box<[u8]>, FxHashSet<Box<str>>>;

/// Copies every message of `old` into `new`, syncs, and only then settles them in `old`.
pub(crate) fn take_over(new: &mut Spool, old: &mut Spool) -> io::Result<usize> {
    // The ledgers of its leased IPs, too, before it goes.
    sync(new)?;
    let mut keys: Vec<MessageKey> = Vec::new();
    old.for_each_message(|key, view| {
        // One that is damaged stays where it is: a copy would look as if it were all of it.
        if view.is_whole() {
            keys.push(key);
        }
    });
    let known = known(new, old);
    for batch in keys.chunks(256) {
        for key in batch {
            copy(new, old, *key, &known)?;
        }
        sync(new)?;
        for key in batch {
            // Unrecorded, it would be taken over again at a start that finds the old spool still there.
            while !old.room_for_outcomes() && grow(old) {}
            let recipients = old.message(*key).map_or(0, |view| view.recipients.len() as u16);
            let all: Vec<u16> = (0..recipients).collect();
            let _ = old.settle(*key, &all, SettleKind::Moved, &[]);
        }
        sync(old)?;
    }
    Ok(keys.len())
}

/// Unsettled recipients that both have, by message: a crash came in the midst of a move between them, or of this. Neither has
/// sent them since.
fn known(new: &Spool, old: &Spool) -> Known {
    let mut known = Known::default();
    old.for_each_message(|_, view| drop(known.insert(view.id.into(), FxHashSet::default())));
    new.for_each_message(|_, view| {
        let Some(recipients) = known.get_mut(view.id) else { return };
        let Some(meta) = Meta::decode(view.meta) else { return };
        let open = meta.recipients.iter().zip(view.recipients).filter(|(_, state)| !state.settled);
        recipients.extend(open.map(|(recipient, _)| recipient.address.into()));
    });
    known
}

fn copy(new: &mut Spool, old: &Spool, key: MessageKey, known: &Known) -> io::Result<()> {
    let Some(view) = old.message(key) else { return Ok(()) };
    let Some(meta) = Meta::decode(view.meta) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an envelope cannot be read"));
    };
    let there = |n: &u16| known.get(view.id).is_some_and(|k| k.contains(meta.recipients[usize::from(*n)].address));
    let all = 0..view.recipients.len().min(meta.recipients.len()) as u16;
    let open: Vec<u16> = all.filter(|n| !view.recipients[usize::from(*n)].settled && !there(n)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let meta = meta.moved(&open);
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    let mut chunks = Vec::new();
    let pieces: Vec<_> = view.pieces().collect();
    let (last, before) = pieces.split_last().map_or((&[][..], &[][..]), |(last, before)| (*last, before));
    for piece in before {
        chunks.push(retry_when_full(new, |new| new.append_chunk(&[piece]))?);
    }
    let message = NewMessage {
        id: view.id,
        accepted_ms: view.accepted_ms,
        meta: &encoded,
        recipients: open.len() as u16,
        chunks: &chunks,
        parts: &[last],
    };
    let appended = retry_when_full(new, |new| new.append_message(&message))?;
    for (number, old_number) in open.iter().enumerate() {
        let state = view.recipients[usize::from(*old_number)];
        if state.attempts > 0 {
            let _ = new.defer(appended.key, &[number as u16], state.attempts, state.next_try_ms, &[]);
        }
    }
    Ok(())
}

/// Makes a segment; false if that is not possible. A disk that is full stays so while nobody else does anything.
fn grow(spool: &mut Spool) -> bool {
    let Some(chore) = spool.chore(u64::MAX) else { return false };
    let done = chore.run();
    spool.finish_chore(done, u64::MAX);
    spool.cannot_grow().is_none()
}

/// This runs before the shard does, so that making a segment may block.
fn retry_when_full<T>(
    spool: &mut Spool,
    mut f: impl FnMut(&mut Spool) -> Result<T, mailrail_spool::Full>,
) -> io::Result<T> {
    loop {
        match f(spool) {
            Ok(done) => return Ok(done),
            Err(full) if !grow(spool) => return Err(io::Error::new(io::ErrorKind::StorageFull, full)),
            Err(_) => {}
        }
    }
}

fn sync(spool: &mut Spool) -> io::Result<()> {
    let Some(job) = spool.start_sync() else { return Ok(()) };
    let result = job.paths().try_for_each(|path| fs::File::open(path)?.sync_data());
    spool.finish_sync(job, result).map_err(io::Error::other)
}
