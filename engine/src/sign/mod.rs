//! DKIM (RFC 6376, RFC 8463): keys, signatures, and the cache of signatures of queued messages.

pub(crate) mod cache;
pub(crate) mod canonical;
pub mod dkim;
pub mod keys;

pub use dkim::{DomainKey, Keyring};
pub use keys::{KeyError, SigningKey};
