//! (see design)
