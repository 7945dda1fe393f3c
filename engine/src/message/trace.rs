//! The Received field (RFC 5321 section 4.4).
//!
//! By default it names neither the submitter's address nor its EHLO name: receivers score what they read there, and it is
//! nobody's business which machine of the customer wrote the mail.

use super::{date, id::MessageId};
use mailrail_queue::time::Wall;

/// What the field tells.
pub(crate) struct Received<'a> {
    pub(crate) hostname: &'a str,
    /// `ESMTP`, `ESMTPS`, `UTF8SMTP` …
    pub(crate) protocol: &'a str,
    pub(crate) tls: Option<(&'a str, &'a str)>,
    pub(crate) id: MessageId,
    /// The recipient, if there is only one: more would tell each of the others.
    pub(crate) only_recipient: Option<&'a str>,
    pub(crate) at: Wall,
}

impl Received<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Received: by ");
        out.extend_from_slice(self.hostname.as_bytes());
        out.extend_from_slice(b" with ");
        out.extend_from_slice(self.protocol.as_bytes());
        if let Some((version, cipher)) = self.tls {
            out.extend_from_slice(b"\r\n\t(");
            out.extend_from_slice(version.as_bytes());
            out.push(b' ');
            out.extend_from_slice(cipher.as_bytes());
            out.push(b')');
        }
        out.extend_from_slice(b"\r\n\tid ");
        out.extend_from_slice(&self.id.to_text());
        // An address longer than a line may be is left out, not folded: folding inside an address changes it.
        if let Some(recipient) = self.only_recipient.filter(|recipient| recipient.len() < 900) {
            out.extend_from_slice(b"\r\n\tfor <");
            out.extend_from_slice(recipient.as_bytes());
            out.push(b'>');
        }
        out.extend_from_slice(b";\r\n\t");
        date::rfc5322(self.at, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Formats into a byte buffer without a string in between.
pub(crate) fn write_display(out: &mut Vec<u8>, value: &impl std::fmt::Display) {
    use std::io::Write as _;
    // A Vec takes all that is written to it.
    let _ = write!(out, "{value}");
}
