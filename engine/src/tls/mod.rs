//! TLS at the edges of a shard: streams and certificates.

pub mod certs;
pub(crate) mod stream;
pub use stream::TlsInfo;
