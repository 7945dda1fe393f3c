//! Content as BDAT sends it (RFC 3030): counted octets in chunks, no dots, no end to find.
//!
//! The same rules for lines hold as for DATA: a CRLF may be split between chunks, a lone CR or LF may not be there at all,
//! since the message may have to leave by DATA. One per connection, started again for each message.

use super::data::{ContentLimits, Facts};

/// Notes facts about octets of chunks.
#[derive(Debug)]
pub(crate) struct BdatScanner {
    limits: ContentLimits,
    line_start: bool,
    after_cr: bool,
}

impl BdatScanner {
    pub(crate) fn new(limits: ContentLimits) -> Self {
        Self { limits, line_start: true, after_cr: false }
    }

    /// The next octets of content, in any split.
    pub(crate) fn take(&mut self, bytes: &[u8], facts: &mut Facts) {
        facts.octets(bytes);
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) {
                facts.grow_line(1);
                if first == b'\n' {
                    facts.grow_line(1);
                    facts.end_line(self.limits);
                    self.line_start = true;
                    rest = &rest[1..];
                    continue;
                }
                facts.bare = true;
            }
            if std::mem::take(&mut self.line_start) {
                facts.dot_lines |= first == b'.';
            }
            let Some(offset) = memchr::memchr2(b'\r', b'\n', rest) else {
                facts.grow_line(rest.len());
                return;
            };
            if rest[offset..].starts_with(b"\r\n") {
                facts.grow_line(offset + 2);
                facts.end_line(self.limits);
                self.line_start = true;
                rest = &rest[offset + 2..];
                continue;
            }
            facts.grow_line(offset);
            if rest[offset] == b'\r' {
                self.after_cr = true;
            } else {
                facts.bare = true;
                facts.grow_line(1);
            }
            rest = &rest[offset + 1..];
        }
    }

    /// The last chunk is over.
    pub(crate) fn end(&mut self, facts: &mut Facts) {
        facts.bare |= self.after_cr;
        facts.unterminated = facts.bytes > 0 && !self.line_start;
        if facts.unterminated {
            facts.end_line(self.limits);
        }
    }
}
