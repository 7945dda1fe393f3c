//! Notes: small opaque values by name, of which the last one wins. Ledgers and cursors are kept in them.

use crate::{Full, Position, Spool, disk::Disk, record::Kind};
use std::collections::BTreeMap;

/// Name of the store's own note: how far the outbox is done.
pub(crate) const OUTBOX: &[u8] = b"\0outbox";

#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) BTreeMap<Vec<u8>, Note>);

#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) value: Vec<u8>,
    pub(crate) generation: u64,
}

/// Name and value of a note's payload.
pub(crate) fn parse(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = payload.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

impl<D: Disk> Spool<D> {
    /// Keeps `value` under `name` (at most 65,535 bytes) in place of what was there. Safe once its position is durable.
    ///
    /// # Errors
    /// [`Full`] when there is no room even in the reserve.
    pub fn note(&mut self, name: &[u8], value: &[u8]) -> Result<Position, Full> {
        let length = 2 + name.len() + value.len();
        let Ok(name_length) = u16::try_from(name.len()) else { return Err(Full::TooLarge(length)) };
        if let Some(failed) = &self.commit.failed {
            return Err(Full::Failed(failed.clone()));
        }
        // As for outcomes: the last segment is for compaction.
        if self.segments.room() <= self.segments.capacity() {
            return Err(Full::NoSpace("no room for a note".into()));
        }
        self.write_note(name, name_length, value)
    }

    fn write_note(&mut self, name: &[u8], name_length: u16, value: &[u8]) -> Result<Position, Full> {
        let length = 2 + name.len() + value.len();
        if !self.segments.make_room(length, self.commit.durable) {
            return Err(Full::NoSpace("no room for a note".into()));
        }
        let (place, sequence) = self.segments.write(Kind::Note, length, self.commit.durable, |at| {
            at[..2].copy_from_slice(&name_length.to_le_bytes());
            at[2..2 + name.len()].copy_from_slice(name);
            at[2 + name.len()..].copy_from_slice(value);
        });
        self.put(name, value, place.generation, sequence);
        Ok(Position(sequence))
    }

    /// The note's value.
    #[must_use]
    pub fn noted(&self, name: &[u8]) -> Option<&[u8]> {
        self.notes.0.get(name).map(|note| note.value.as_slice())
    }

    /// All notes whose name begins so.
    pub fn notes<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let after = self.notes.0.range(prefix.to_vec()..);
        after.take_while(move |(name, _)| name.starts_with(prefix)).map(|(name, note)| (&name[..], &note.value[..]))
    }

    pub(crate) fn put(&mut self, name: &[u8], value: &[u8], generation: u64, sequence: u64) {
        if let Some(segment) = self.segments.used.get_mut(&generation) {
            segment.notes += 1;
        }
        let old = if let Some(note) = self.notes.0.get_mut(name) {
            note.value.clear();
            note.value.extend_from_slice(value);
            Some(std::mem::replace(&mut note.generation, generation))
        } else {
            self.notes.0.insert(name.to_vec(), Note { value: value.to_vec(), generation });
            None
        };
        if let Some(old) = old.and_then(|old| self.segments.used.get_mut(&old)) {
            old.notes = old.notes.saturating_sub(1);
            old.durable_barrier = old.durable_barrier.max(sequence);
        }
    }

    /// Writes the notes of a segment that holds nothing else again, so that it can go.
    pub(crate) fn carry_notes(&mut self, generation: u64) {
        let names: Vec<_> =
            self.notes.0.iter().filter(|(_, n)| n.generation == generation).map(|(k, _)| k.clone()).collect();
        for name in names {
            let Some(value) = self.notes.0.get(&name).map(|note| note.value.clone()) else { continue };
            // It could be named, so its length fits.
            let name_length = name.len() as u16;
            if self.commit.failed.is_some() || self.write_note(&name, name_length, &value).is_err() {
                return;
            }
        }
    }
}
