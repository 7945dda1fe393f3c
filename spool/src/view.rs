//! Reading a message back, straight from the map.

use crate::{
    MessageKey, RecipientState, Spool,
    append::{ChunkRef, MessageRecord},
    disk::{Disk, Region},
    record::Kind,
    segment::Segments,
};

/// A message as it lies in the spool.
pub struct MessageView<'a> {
    /// The caller's name for it.
    pub id: &'a [u8],
    /// Time of acceptance, milliseconds since the epoch.
    pub accepted_ms: u64,
    /// The envelope, as given.
    pub meta: &'a [u8],
    /// Bytes of content.
    pub content_len: u64,
    /// How far each recipient is.
    pub recipients: &'a [RecipientState],
    chunks: Vec<ChunkRef>,
    last: &'a [u8],
    read: &'a dyn ReadChunk,
}

/// Finds the content of a chunk; empty when it cannot be read any more.
pub(crate) trait ReadChunk {
    fn chunk(&self, chunk: ChunkRef) -> &[u8];
}

impl<R: Region> ReadChunk for Segments<R> {
    fn chunk(&self, chunk: ChunkRef) -> &[u8] {
        match self.read(chunk.place) {
            Some((header, payload)) if header.kind == Kind::Chunk && payload.len() == chunk.len() => payload,
            _ => &[],
        }
    }
}

impl<'a> MessageView<'a> {
    /// Of a record, with these states.
    pub(crate) fn of(message: &MessageRecord<'a>, recipients: &'a [RecipientState], read: &'a dyn ReadChunk) -> Self {
        Self {
            id: message.id,
            accepted_ms: message.accepted_ms,
            meta: message.meta,
            content_len: message.total,
            recipients,
            chunks: message.chunk_refs().collect(),
            last: message.content,
            read,
        }
    }

    /// False if damage to the medium has cost a piece of the content: then it must not be sent on as if it were all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.pieces().map(|piece| piece.len() as u64).sum::<u64>() == self.content_len
    }

    /// The content, piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let read = self.read;
        self.chunks.iter().map(move |chunk| read.chunk(*chunk)).chain(std::iter::once(self.last))
    }

    /// The piece of content that begins at byte `offset` of it and ends with a piece of the log; empty at the end.
    #[must_use]
    pub fn content_from(&self, offset: u64) -> &'a [u8] {
        let mut left = offset;
        for piece in self.pieces() {
            if left < piece.len() as u64 {
                return &piece[left as usize..];
            }
            left -= piece.len() as u64;
        }
        &[]
    }
}

impl<D: Disk> Spool<D> {
    /// The message, unless it is wholly settled.
    #[must_use]
    pub fn message(&self, key: MessageKey) -> Option<MessageView<'_>> {
        let entry = self.index.get(key)?;
        let (_, payload) = self.segments.read(entry.place)?;
        let message = MessageRecord::parse(payload)?;
        Some(MessageView::of(&message, entry.states.as_slice(), &self.segments))
    }

    /// All unsettled messages, in order of acceptance.
    pub fn for_each_message(&self, mut f: impl FnMut(MessageKey, MessageView<'_>)) {
        let mut keys: Vec<_> = self.index.iter().map(|(key, entry)| (entry.identity, key)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            if let Some(view) = self.message(key) {
                f(key, view);
            }
        }
    }
}
