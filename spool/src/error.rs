//! What can go wrong, by operation.

use std::{io, path::PathBuf};
use thiserror::Error;

/// The spool cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("spool {}: in use by another process; stop that one first", .0.display())]
    Locked(PathBuf),
    /// A file of the spool is not one, or of another version or size.
    #[error("spool {path}: {reason}", path = path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The disk said no.
    #[error("spool {path}: {what}: {source}", path = path.display())]
    Io {
        /// Directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// No new message can be taken now. Nothing of it was kept; it may be tried again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Full {
    /// No segment is free and none can be made yet.
    #[error("spool is full: {0}")]
    NoSpace(String),
    /// Larger than a segment can ever hold: send it in smaller pieces.
    #[error("a piece of {0} bytes does not fit a spool segment")]
    TooLarge(usize),
    /// See [`Failed`].
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A sync failed. What the kernel had not written may be gone from its cache, so nothing is tried again on these pages:
/// the spool stays failed until it is opened anew and reads what the disk really has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("spool failed: {reason}; restart once the disk is well")]
pub struct Failed {
    /// What the system said, and of which file.
    pub reason: String,
}
