//! One record: bytes ↔ type. Nothing here knows where records lie.
//!
//! ```text
//!  0       4        8              16              24              32      36     40
//!  | mark  | length | sequence     | stamp         | watermark     | crc   | kind | payload … | pad to 8
//! ```
//! All integers are little-endian. `crc` is CRC-32C over everything but itself, padding excluded. `stamp` is the random
//! number of this use of the segment: a record of an earlier use does not have it, and neither has one that a client
//! wrote into its mail in the hope that recovery would step into it.

/// Bytes in front of each payload.
pub(crate) const HEADER: usize = 40;
/// First bytes of every record.
const MARK: u32 = 0x4352_524d; // "MRRC"

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// An accepted message.
    Message = 1,
    /// A piece of a message larger than one receive buffer.
    Chunk = 2,
    /// The durable end of recipients.
    Settle = 3,
    /// A try that did not end them.
    Defer = 4,
    /// A try that changed nothing, told for its event.
    Attempt = 5,
    /// Opaque state, the last one of a name wins.
    Note = 6,
    /// The segment ends here.
    Seal = 7,
    /// What stood here was damaged, and a repair has named it: sequences up to that in the payload are gone.
    Lost = 8,
    /// Which messages of a segment live, and how far each is.
    Census = 9,
}

impl Kind {
    fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Message,
            2 => Self::Chunk,
            3 => Self::Settle,
            4 => Self::Defer,
            5 => Self::Attempt,
            6 => Self::Note,
            7 => Self::Seal,
            8 => Self::Lost,
            9 => Self::Census,
            _ => return None,
        })
    }
}

/// Header of a valid record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    /// See [`crate::segment::Head`].
    pub(crate) stamp: u64,
    /// Everything up to here was durable when the record was written.
    pub(crate) watermark: u64,
    /// Payload bytes.
    pub(crate) length: usize,
}

/// Room that a record with such a payload takes.
pub(crate) const fn size(payload: usize) -> usize {
    (HEADER + payload + 7) & !7
}

/// Writes the header in front of a payload that already stands at `HEADER..` of `at`.
pub(crate) fn seal(at: &mut [u8], header: Header) {
    at[0..4].copy_from_slice(&MARK.to_le_bytes());
    at[4..8].copy_from_slice(&(header.length as u32).to_le_bytes());
    at[8..16].copy_from_slice(&header.sequence.to_le_bytes());
    at[16..24].copy_from_slice(&header.stamp.to_le_bytes());
    at[24..32].copy_from_slice(&header.watermark.to_le_bytes());
    at[36..40].copy_from_slice(&(header.kind as u32).to_le_bytes());
    let crc = checksum(at, header.length);
    at[32..36].copy_from_slice(&crc.to_le_bytes());
}

/// The record at the start of `at`, if a valid one with this stamp stands there.
pub(crate) fn parse(at: &[u8], stamp: u64) -> Option<(Header, &[u8])> {
    if !plausible(at, stamp) {
        return None;
    }
    let length = u32_at(at, 4) as usize;
    if length > at.len() - HEADER || checksum(at, length) != u32_at(at, 32) {
        return None;
    }
    let header = Header {
        kind: Kind::from_u32(u32_at(at, 36))?,
        sequence: u64_at(at, 8),
        stamp,
        watermark: u64_at(at, 24),
        length,
    };
    Some((header, &at[HEADER..HEADER + length]))
}

/// The record at the start of `at`, which this process wrote or has checked at recovery: its checksum is not looked at again.
pub(crate) fn parse_trusted(at: &[u8]) -> Option<(Header, &[u8])> {
    if at.len() < HEADER || u32_at(at, 0) != MARK {
        return None;
    }
    let length = u32_at(at, 4) as usize;
    let payload = at.get(HEADER..HEADER.checked_add(length)?)?;
    let header = Header {
        kind: Kind::from_u32(u32_at(at, 36))?,
        sequence: u64_at(at, 8),
        stamp: u64_at(at, 16),
        watermark: u64_at(at, 24),
        length,
    };
    Some((header, payload))
}

/// The kind that a header names, whether or not it can be believed.
pub(crate) fn kind_at(at: &[u8]) -> Option<Kind> {
    Kind::from_u32(u32_at(at, 36))
}

/// Last sequence that a record accounts for: its own, unless it stands for others that were lost.
pub(crate) fn last_sequence(header: &Header, payload: &[u8]) -> u64 {
    match (header.kind, payload.first_chunk()) {
        (Kind::Lost, Some(last)) => u64::from_le_bytes(*last).max(header.sequence),
        _ => header.sequence,
    }
}

/// Could a record with this stamp begin here? Cheap, for scans.
pub(crate) fn plausible(at: &[u8], stamp: u64) -> bool {
    at.len() >= HEADER && u32_at(at, 0) == MARK && u64_at(at, 16) == stamp
}

/// Gives the record at the start of `at` the checksum that it should have.
pub(crate) fn mend(at: &mut [u8], length: usize) {
    let crc = checksum(at, length);
    at[32..36].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(at: &[u8], length: usize) -> u32 {
    let head = crc32c::crc32c(&at[..32]);
    crc32c::crc32c_append(head, &at[36..HEADER + length])
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads a payload from its start; `None` once it is too short, which only damage that a checksum missed can cause.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16_at(b, 0))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32_at(b, 0))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64_at(b, 0))
    }
}

/// Where a record lies. Generations are never used twice, so a place never comes to mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) offset: u32,
}

impl Place {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { generation: reader.u64()?, offset: reader.u32()? })
    }
}
