//! What a message is made of: its id, its envelope as kept, its header section, the notifications about it. Pure; no I/O.

pub(crate) mod date;
pub(crate) mod dsn;
pub(crate) mod headers;
pub mod id;
pub mod kept;
pub(crate) mod meta;
pub(crate) mod trace;
