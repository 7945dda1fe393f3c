//! Every limit of the store, with its reason.

/// See each member; [`Limits::tiny`] makes rare code common in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one segment file. Large enough that starting one is rare, small enough that one stuck message does not
    /// hold much and that compaction is a short pause. A multiple of 4,096.
    pub segment_size: usize,
    /// All segment files together, bytes. Reached: new messages are refused as [`crate::Full`].
    pub max_bytes: u64,
    /// Empty segments kept ready, so that no append waits for the disk to make one. Mail takes all but one of them.
    pub spares: usize,
    /// Room that only outcomes, notes and compaction may use, bytes: deliveries go on when new mail is refused.
    pub reserve: usize,
    /// A sealed segment with at most this share of live bytes, in percent, is compacted.
    pub compact_below_percent: u8,
    /// When more than so many segments are held up by mail that waits, its segments are counted anew, so that they can go.
    pub census_from: u64,
    /// After a failed attempt to make a segment, wait so long before the next, milliseconds.
    pub chore_retry_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
            max_bytes: 64 << 30,
            spares: 3,
            reserve: 32 << 20,
            compact_below_percent: 25,
            census_from: 3,
            chore_retry_ms: 1_000,
        }
    }
}

impl Limits {
    /// Sizes that make a test meet every edge within a few hundred records.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            segment_size: 16 << 10,
            max_bytes: 1 << 20,
            spares: 1,
            reserve: 4 << 10,
            compact_below_percent: 25,
            census_from: 1,
            chore_retry_ms: 10,
        }
    }
}
