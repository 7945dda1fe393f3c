//! Durable store of one shard. See `FORMAT.md` for the bytes.
