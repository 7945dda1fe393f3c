//! Census: which messages of a segment still live, and how far each is, said anew in one record.
//!
//! A segment with records of what became of messages must outlive the segments of those messages, or they would come back.
//! Mail that waits for days would so hold up everything that was ever sent beside it. A census of its segment says all of
//! it again in a few bytes a message, and sets the others free; the mail itself stays where it is.

use crate::{
    Spool,
    append::{STATE, write_states},
    disk::Disk,
    index::{RecipientState, States},
    record::{Kind, Reader},
    segment::Segments,
};
use rustc_hash::FxHashMap;

/// Bytes of a census for each message, about: one recipient.
const ENTRY: u64 = 8 + 2 + STATE as u64;
/// Segments that are held up may take so many times what it costs to set them free.
const WORTH: u64 = 4;

/// What a census said.
pub(crate) struct Census {
    /// Of the record: outcomes before it are in it.
    pub(crate) sequence: u64,
    /// Segment of the record, which must outlive the one that it speaks of.
    pub(crate) by: u64,
    live: FxHashMap<u64, States>,
}

impl Census {
    /// How far the message was; none if it had ended, or lived elsewhere.
    pub(crate) fn states(&self, identity: u64) -> Option<States> {
        self.live.get(&identity).cloned()
    }
}

/// The last census of each segment that had one, while a spool is read.
#[derive(Default)]
pub(crate) struct Censuses(FxHashMap<u64, Census>);

impl Censuses {
    /// Takes one; a later one of the same segment takes its place.
    pub(crate) fn take(&mut self, by: u64, sequence: u64, payload: &[u8]) {
        if let Some((subject, live)) = parse(payload)
            && self.0.get(&subject).is_none_or(|known| known.sequence < sequence)
        {
            self.0.insert(subject, Census { sequence, by, live });
        }
    }

    /// The census of `generation` that was taken after record `sequence`.
    pub(crate) fn after(&self, generation: u64, sequence: u64) -> Option<&Census> {
        self.0.get(&generation).filter(|census| census.sequence > sequence)
    }

    /// Segments with their last census.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Census)> {
        self.0.iter().map(|(generation, census)| (*generation, census))
    }
}

fn parse(payload: &[u8]) -> Option<(u64, FxHashMap<u64, States>)> {
    let mut reader = Reader(payload);
    let subject = reader.u64()?;
    let mut live = FxHashMap::default();
    while !reader.0.is_empty() {
        let (identity, recipients) = (reader.u64()?, reader.u16()?);
        let mut states = States::new(recipients);
        let bytes = reader.take(usize::from(recipients) * STATE)?.chunks_exact(STATE);
        for (state, bytes) in states.as_mut_slice().iter_mut().zip(bytes) {
            *state = RecipientState::read(bytes);
        }
        live.insert(identity, states);
    }
    Some((subject, live))
}

impl<D: Disk> Spool<D> {
    /// Takes a census of a segment, if enough others are held up by it. True if one was taken.
    pub(crate) fn take_census(&mut self, out: u64, durable: u64, tight: bool) -> bool {
        let Some(root) = self.worth_a_census(out, durable, tight) else { return false };
        let mut buffer = std::mem::take(&mut self.compacting.buffer);
        buffer.clear();
        buffer.extend_from_slice(&root.to_le_bytes());
        let segment = self.segments.used.get(&root);
        for key in segment.into_iter().flat_map(|segment| segment.members.iter().chain(&segment.unmovable)) {
            let Some(entry) = self.index.get(*key).filter(|entry| entry.place.generation == root) else { continue };
            buffer.extend_from_slice(&entry.identity.to_le_bytes());
            let states = entry.states.as_slice();
            buffer.extend_from_slice(&(states.len() as u16).to_le_bytes());
            write_states(states, &mut buffer);
        }
        let fits = buffer.len() <= self.segments.largest() && self.segments.room_for(std::iter::once(buffer.len()));
        let taken = fits && self.segments.make_room(buffer.len(), self.commit.durable);
        if taken {
            let written = |at: &mut [u8]| at.copy_from_slice(&buffer);
            let (place, sequence) = self.segments.write(Kind::Census, buffer.len(), self.commit.durable, written);
            self.segments.set_free(root, place.generation, sequence);
        }
        self.compacting.buffer = buffer;
        taken
    }

    /// The oldest segment with live messages that holds up dead ones, if it is time to do something about it.
    fn worth_a_census(&self, out: u64, durable: u64, tight: bool) -> Option<u64> {
        let used = &self.segments.used;
        let held = || used.values().filter(|segment| segment.is_empty(out, durable) && self.segments.is_bound(segment));
        let count = held().count() as u64;
        let patience = self.limits.census_from;
        if count == 0 || !tight && count <= patience {
            return None;
        }
        let mut roots: Vec<u64> = held().flat_map(|segment| segment.ends.iter().copied()).collect();
        roots.sort_unstable();
        roots.dedup();
        let alive = |generation: &u64| used.get(generation).filter(|segment| segment.sealed && segment.live > 0);
        let cost: u64 = roots.iter().filter_map(alive).map(|segment| segment.members.len() as u64 * ENTRY).sum();
        let size = self.limits.segment_size as u64;
        let worth = tight || (count - patience) * size > cost * WORTH;
        roots.into_iter().find(|root| alive(root).is_some()).filter(|_| worth)
    }
}

impl<R> Segments<R> {
    /// Record `sequence`, in `by`, says of all messages in `root` whether they live: once it is durable no other segment
    /// has to outlive that one.
    fn set_free(&mut self, root: u64, by: u64, sequence: u64) {
        for segment in self.used.values_mut() {
            let before = segment.ends.len();
            segment.ends.retain(|of| *of != root);
            if segment.ends.len() < before {
                segment.durable_barrier = segment.durable_barrier.max(sequence);
            }
        }
        if let Some(segment) = self.used.get_mut(&by) {
            segment.ends.push(root);
        }
    }
}

/// Room that a census of so many messages with one recipient takes.
#[cfg(test)]
const fn size_of(messages: usize) -> usize {
    crate::record::size(8 + messages * ENTRY as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_rubbish_is_nothing() {
        let mut payload = 7_u64.to_le_bytes().to_vec();
        for identity in [3_u64, 9] {
            payload.extend_from_slice(&identity.to_le_bytes());
            payload.extend_from_slice(&1_u16.to_le_bytes());
            write_states(&[RecipientState { settled: false, attempts: 4, next_try_ms: identity }], &mut payload);
        }
        assert_eq!(crate::record::size(payload.len()), size_of(2));
        let mut censuses = Censuses::default();
        censuses.take(8, 100, &payload);
        censuses.take(8, 90, &payload[..8]);
        let census = censuses.after(7, 99).unwrap();
        assert_eq!(census.states(9).unwrap().as_slice()[0].next_try_ms, 9);
        assert!(census.states(4).is_none() && censuses.after(7, 100).is_none() && censuses.after(6, 0).is_none());
        for length in 0..payload.len() {
            censuses.take(9, 200 + length as u64, &payload[..length]);
        }
        assert!(parse(&payload[..20]).is_none());
    }
}
