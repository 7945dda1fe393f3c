//! Signing keys: PEM → key, and the DNS record that publishes it. A key is never printed.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail_auth::common::{
    crypto::{Ed25519Key, RsaKey, Sha256, SigningKey as _},
    headers::{Writable, Writer},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::fmt;
use thiserror::Error;

/// Why a key cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// No private key in PEM form.
    #[error("no private key in PEM form (BEGIN PRIVATE KEY or BEGIN RSA PRIVATE KEY): {0}")]
    NotPem(String),
    /// Not RSA of 1,024 to 8,192 bits, nor Ed25519.
    #[error("neither an RSA nor an Ed25519 private key that can sign: {0}")]
    Unusable(String),
    /// Receivers do not accept so short a key (RFC 8301).
    #[error("an RSA key of {0} bits; receivers want at least 1024, better 2048")]
    TooShort(usize),
    /// The library refused to sign.
    #[error("signing failed: {0}")]
    Sign(String),
}

enum Inner {
    Rsa(RsaKey<Sha256>),
    Ed25519(Ed25519Key),
}

/// A private key that can sign.
pub struct SigningKey(Inner);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm())
    }
}

/// Bytes that are signed as they are.
struct Bytes<'a>(&'a [u8]);

impl Writable for Bytes<'_> {
    fn write(self, writer: &mut impl Writer) {
        writer.write(self.0);
    }
}

impl SigningKey {
    /// Reads the first private key of a PEM text: PKCS#1 or PKCS#8 RSA, PKCS#8 Ed25519.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| KeyError::NotPem(error.to_string()))?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &der
            && let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(pkcs8.secret_pkcs8_der())
        {
            return Ok(Self(Inner::Ed25519(key)));
        }
        let key = RsaKey::from_key_der(der).map_err(|error| KeyError::Unusable(error.to_string()))?;
        let key = Self(Inner::Rsa(key));
        match key.bits() {
            bits if bits < 1024 => Err(KeyError::TooShort(bits)),
            _ => Ok(key),
        }
    }

    /// Value of `a=`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.0 {
            Inner::Rsa(_) => "rsa-sha256",
            Inner::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Length of the key.
    fn bits(&self) -> usize {
        match &self.0 {
            // A trial signature has the modulus' length.
            Inner::Rsa(key) => key.sign(Bytes(b"")).map_or(0, |signature| signature.len() * 8),
            Inner::Ed25519(_) => 256,
        }
    }

    /// Signs the canonical bytes.
    pub(crate) fn sign(&self, canonical: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signed = match &self.0 {
            Inner::Rsa(key) => key.sign(Bytes(canonical)),
            Inner::Ed25519(key) => key.sign(Bytes(canonical)),
        };
        signed.map_err(|error| KeyError::Sign(error.to_string()))
    }

    /// TXT record to publish at `<selector>._domainkey.<domain>` (RFC 6376 section 3.6.1, RFC 8463 section 4.2).
    #[must_use]
    pub fn dns_record(&self) -> String {
        match &self.0 {
            Inner::Rsa(key) => {
                format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(subject_public_key_info(&key.public_key())))
            }
            Inner::Ed25519(key) => format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(key.public_key())),
        }
    }

    /// Short name of the public key, to tell keys apart without showing them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.dns_record().as_bytes());
        hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Wraps a PKCS#1 public key as X.509 does: DNS records carry that form.
fn subject_public_key_info(pkcs1: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut bits = vec![0];
    bits.extend_from_slice(pkcs1);
    let mut inner = RSA_ENCRYPTION.to_vec();
    der(0x03, &bits, &mut inner);
    let mut whole = Vec::new();
    der(0x30, &inner, &mut whole);
    whole
}

fn der(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [short] if *short < 128 => out.push(*short),
        [] => out.push(0),
        long => {
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
}
