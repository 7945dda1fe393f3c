//! DKIM signing (RFC 6376, RFC 8463).

/// DKIM keys by domain.
#[derive(Debug, Default)]
pub struct Keyring {}
