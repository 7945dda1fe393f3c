//! DKIM-Signature fields: relaxed/relaxed, one for each key of the most specific domain that covers the From domain.
//!
//! What is signed is what goes out, from the first octet of the header section to the last of the body. The keys are
//! mail-auth's over aws-lc; the walk over the message is ours, because a message may lie in several pieces and only the
//! fields that are there are to be named.

use super::{
    canonical::{self, BodyHash},
    keys::{KeyError, SigningKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mailrail_queue::time::Wall;
use std::collections::HashMap;

/// Fields that are signed where present (RFC 6376 section 5.4.1). From is signed once more than it is there, so that none
/// can be added.
const SIGNED: [&[u8]; 16] = [
    b"from",
    b"reply-to",
    b"subject",
    b"date",
    b"to",
    b"cc",
    b"message-id",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"list-id",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"feedback-id",
];

/// A key of a domain.
#[derive(Debug)]
pub struct DomainKey {
    /// Value of `d=`, lower case.
    pub domain: String,
    /// Value of `s=`.
    pub selector: String,
    /// The private key.
    pub key: SigningKey,
}

/// DKIM keys by domain. *Shared by all shards, immutable.*
#[derive(Debug, Default)]
pub struct Keyring {
    domains: HashMap<String, Vec<DomainKey>>,
}

impl Keyring {
    /// All keys of the host.
    #[must_use]
    pub fn new(keys: Vec<DomainKey>) -> Self {
        let mut domains: HashMap<String, Vec<DomainKey>> = HashMap::new();
        for mut key in keys {
            key.domain.make_ascii_lowercase();
            domains.entry(key.domain.clone()).or_default().push(key);
        }
        Self { domains }
    }

    /// Nothing is signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Keys for mail whose From domain is `from_domain` (lower case): its own, else those of the nearest parent.
    #[must_use]
    pub fn keys_for(&self, from_domain: &str) -> &[DomainKey] {
        let mut domain = from_domain;
        loop {
            if let Some(keys) = self.domains.get(domain) {
                return keys;
            }
            match domain.split_once('.') {
                Some((_, parent)) => domain = parent,
                None => return &[],
            }
        }
    }

    /// Appends a `DKIM-Signature` field for each key of `from_domain`, ready to stand in front of the content; returns
    /// how many. `pieces` are the content, whole header section in the first.
    ///
    /// # Errors
    /// [`KeyError::Sign`]; nothing is appended then.
    pub fn sign<'a>(
        &self,
        from_domain: &str,
        now: Wall,
        pieces: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<usize, KeyError> {
        let keys = self.keys_for(from_domain);
        if keys.is_empty() {
            return Ok(0);
        }
        let start = out.len();
        let mut pieces = pieces.skip_while(|piece| piece.is_empty());
        let first = pieces.next().unwrap_or_default();
        let header = Header::read(first);
        let mut body = BodyHash::new();
        body.write(&first[header.body..]);
        pieces.for_each(|piece| body.write(piece));
        let body_hash = STANDARD.encode(body.finish());
        let mut canonical = Vec::with_capacity(2048);
        let mut names = Vec::with_capacity(256);
        header.canonical(first, &mut canonical, &mut names);
        let fields_end = canonical.len();
        for key in keys {
            canonical.truncate(fields_end);
            let field = unsigned(key, now, &names, &body_hash);
            canonical::header(b"dkim-signature", &field, &mut canonical);
            match key.key.sign(&canonical) {
                Ok(signature) => write_field(&field, &signature, out),
                Err(error) => {
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(keys.len())
    }
}

/// Value of the field with an empty `b=`.
fn unsigned(key: &DomainKey, now: Wall, names: &[u8], body_hash: &str) -> Vec<u8> {
    let mut field = Vec::with_capacity(names.len() + 256);
    field.extend_from_slice(b" v=1; a=");
    field.extend_from_slice(key.key.algorithm().as_bytes());
    field.extend_from_slice(b"; c=relaxed/relaxed; d=");
    field.extend_from_slice(key.domain.as_bytes());
    field.extend_from_slice(b"; s=");
    field.extend_from_slice(key.selector.as_bytes());
    field.extend_from_slice(b";\r\n\tt=");
    field.extend_from_slice((now.0 / 1000).to_string().as_bytes());
    field.extend_from_slice(b"; h=");
    field.extend_from_slice(names);
    field.extend_from_slice(b";\r\n\tbh=");
    field.extend_from_slice(body_hash.as_bytes());
    field.extend_from_slice(b";\r\n\tb=");
    field
}

/// The whole field; the signature is folded to lines of 72, which no reader takes as part of it.
fn write_field(unsigned: &[u8], signature: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"DKIM-Signature:");
    out.extend_from_slice(unsigned);
    let encoded = STANDARD.encode(signature);
    for (number, line) in encoded.as_bytes().chunks(72).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n\t");
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\r\n");
}

/// Where the fields to be signed are.
struct Header {
    /// Position in [`SIGNED`], start and end of the field, end of its name.
    fields: Vec<(usize, usize, usize, usize)>,
    /// Start of the body.
    body: usize,
}

impl Header {
    fn read(content: &[u8]) -> Self {
        let mut fields = Vec::with_capacity(16);
        let mut at = 0;
        while at < content.len() && !content[at..].starts_with(b"\r\n") {
            let start = at;
            loop {
                let line = memchr::memchr(b'\n', &content[at..]).map_or(content.len(), |end| at + end + 1);
                at = line;
                if !matches!(content.get(at), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let Some(colon) = memchr::memchr(b':', &content[start..at]) else { continue };
            let name = &content[start..start + colon];
            if let Some(position) = SIGNED.iter().position(|signed| name.eq_ignore_ascii_case(signed)) {
                fields.push((position, start, at, start + colon));
            }
        }
        Self { fields, body: (at + 2).min(content.len()) }
    }

    /// The signed fields in relaxed form, and the list for `h=`: repeated ones from the last to the first (section 5.4.2).
    fn canonical(&self, content: &[u8], out: &mut Vec<u8>, names: &mut Vec<u8>) {
        for (position, signed) in SIGNED.iter().enumerate() {
            for (_, _, end, colon) in self.fields.iter().rev().filter(|field| field.0 == position) {
                canonical::header(signed, &content[colon + 1..*end], out);
                out.extend_from_slice(b"\r\n");
                name(signed, names);
            }
            if position == 0 {
                name(signed, names);
            }
        }
    }
}

fn name(signed: &[u8], names: &mut Vec<u8>) {
    if !names.is_empty() {
        names.push(b':');
        let line = names.iter().rposition(|b| *b == b'\n').map_or(names.len() + 20, |at| names.len() - at);
        if line > 66 {
            names.extend_from_slice(b"\r\n\t");
        }
    }
    names.extend_from_slice(signed);
}

#[cfg(test)]
#[path = "dkim_tests.rs"]
mod tests;
