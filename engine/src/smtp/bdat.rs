//! Content as BDAT sends it (RFC 3030): counted octets in chunks, no dots, no end to find.
//!
//! The same rules for lines hold as for DATA: a CRLF may be split between chunks, a lone CR or LF may not be there at all,
//! since the message may have to leave by DATA. One per connection, started again for each message.

use super::{
    data::{ContentLimits, Facts},
    survey::survey,
};

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
        let Some(last) = bytes.last() else { return };
        let before = match (self.after_cr, self.line_start) {
            (true, _) => b'\r',
            (_, true) => b'\n',
            _ => b' ',
        };
        let found = survey(before, bytes);
        facts.bare |= found.bare;
        facts.dot_lines |= found.dots;
        facts.lines(bytes, self.limits);
        facts.octets(bytes);
        (self.after_cr, self.line_start) = (*last == b'\r', *last == b'\n');
    }

    /// The last chunk is over.
    pub(crate) fn end(&mut self, facts: &mut Facts) {
        facts.bare |= self.after_cr;
        facts.unterminated = facts.bytes > 0 && !self.line_start;
        if facts.unterminated {
            facts.cut_off(self.limits);
        }
    }
}
