//! Message ids, in the look of SES: `<16 hex>-<8>-<4>-<4>-<4>-<12 hex>-<6 digits>`, 60 characters.
//!
//! The first 16 digits are `0100` and the milliseconds since the epoch, so ids sort by time. The UUID part is made of
//! shard, sequence and chance. Others must treat an id as opaque.

use std::{fmt, str::FromStr};
use thiserror::Error;

/// See the module. 24 bytes in memory and on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    time_ms: u64,
    high: u64,
    low: u64,
}

/// Not a message id.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "\"{0}\" is not a message id: expected 60 characters such as 0100019b7ca1d0f8-5a6b7c8d-1e2f-4a3b-9c4d-5e6f708192a3-000000"
)]
pub struct NotAnId(String);

const PREFIX: u64 = 0x0100 << 48;
const TIME: u64 = (1 << 48) - 1;

impl MessageId {
    /// A new id. Unique for a host as long as `sequence` rises within a millisecond and shard, or `chance` differs.
    #[must_use]
    pub fn new(wall_ms: u64, shard: u16, sequence: u64, chance: u64) -> Self {
        // The UUID part in network order: shard, low 48 bits of the sequence | chance.
        Self { time_ms: wall_ms & TIME, high: u64::from(shard) << 48 | (sequence & TIME), low: chance }
    }

    /// Time of acceptance, milliseconds since the epoch.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// A well spread number, the same for the same id.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut z = self.low ^ self.high.rotate_left(32) ^ self.time_ms;
        z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        z ^ (z >> 33)
    }

    /// As kept on disk.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.high.to_be_bytes());
        bytes[16..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    /// From what was kept on disk.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        (bytes.len() == 24).then_some(())?;
        Some(Self { time_ms: word(0)?, high: word(8)?, low: word(16)? })
    }

    /// The id in words, also where the bytes are none.
    #[must_use]
    pub fn display(bytes: &[u8]) -> String {
        Self::from_bytes(bytes).map_or_else(|| "unreadable".to_owned(), |id| id.to_string())
    }
}

/// Where the groups of digits of an id are written: its value, where it begins, how many.
type Group = (u64, usize, usize);

/// Length of an id in words.
pub(crate) const TEXT: usize = 60;

impl MessageId {
    /// The id in words. By hand: it is written five times a message, and formatting was 1.2 % of all the server did (`id` in
    /// `cargo bench -p mailrail-engine --bench event`).
    #[must_use]
    pub fn to_text(&self) -> [u8; TEXT] {
        let (high, low) = (self.high, self.low);
        let groups: [Group; 6] = [
            (PREFIX | self.time_ms, 0, 16),
            (high >> 32, 17, 8),
            (high >> 16, 26, 4),
            (high, 31, 4),
            (low >> 48, 36, 4),
            (low, 41, 12),
        ];
        let mut text = *b"................-........-....-....-....-............-000000";
        for (value, at, digits) in groups {
            for (place, digit) in text[at..at + digits].iter_mut().rev().enumerate() {
                *digit = b"0123456789abcdef"[(value >> (4 * place)) as usize & 15];
            }
        }
        text
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digits and dashes.
        f.write_str(std::str::from_utf8(&self.to_text()).unwrap_or_default())
    }
}

impl FromStr for MessageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let wrong = || NotAnId(text.chars().take(80).collect());
        let lengths = [16, 8, 4, 4, 4, 12, 6];
        let parts: Vec<_> = text.split('-').collect();
        let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if parts.len() != 7 || !parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part)) {
            return Err(wrong());
        }
        let number = |n: usize| u64::from_str_radix(parts[n], 16).map_err(|_| wrong());
        let time = number(0)?;
        if time & !TIME != PREFIX || parts[6] != "000000" {
            return Err(wrong());
        }
        Ok(Self {
            time_ms: time & TIME,
            high: number(1)? << 32 | number(2)? << 16 | number(3)?,
            low: number(4)? << 48 | number(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_looks_as_specified_and_tells_its_time() {
        let id = MessageId::new(0x019b_7ca1_d0f8, 1, 2, 0x9c4d_5e6f_7081_92a3);
        assert_eq!(id.to_string(), "0100019b7ca1d0f8-00010000-0000-0002-9c4d-5e6f708192a3-000000");
        assert_eq!(
            "0100016d07eb7477-00000000-0000-0000-0000-000000000000-000000".parse::<MessageId>().unwrap().time_ms(),
            1_567_795_934_327
        );
    }

    proptest! {
        #[test]
        fn text_and_bytes_give_the_id_back(time in 0_u64..1 << 48, shard: u16, sequence: u64, chance: u64) {
            let id = MessageId::new(time, shard, sequence, chance);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_string().len(), 60);
            prop_assert_eq!(MessageId::from_bytes(&id.to_bytes()), Some(id));
        }

        #[test]
        fn anything_else_is_refused(text in ".{0,70}") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
