//! Message content as it comes in: what DATA sends, dots and end found (RFC 5321 section 4.5.2), and the facts about it.
//!
//! Only CRLF ends a line, so only CRLF `.` CRLF ends a message; a lone CR or LF is noted and the message is then refused.
//! That is the whole defence against smuggling, so the scanner must never treat anything else as a line end. One per
//! connection, started again for each message. Scanners look at bytes and never move them.

/// What is known of the content seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Octets, without stuffed dots and the final dot.
    pub bytes: u64,
    /// An octet above 127 was seen.
    pub eight_bit: bool,
    /// A line starts with a dot: sending it by DATA needs dot stuffing.
    pub dot_lines: bool,
    /// The last line has no CRLF (only BDAT can do that).
    pub unterminated: bool,
    pub(crate) bare: bool,
    pub(crate) nul: bool,
    pub(crate) long_line: bool,
    pub(crate) long_header: bool,
    pub(crate) body: bool,
    line: usize,
    header: usize,
}

/// Limits of content, octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentLimits {
    pub(crate) line: usize,
    pub(crate) header: usize,
}

impl Facts {
    /// Notes what single octets tell about `bytes`.
    pub(crate) fn octets(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.eight_bit |= !self.eight_bit && !bytes.is_ascii();
        self.nul |= !self.nul && memchr::memchr(0, bytes).is_some();
    }

    /// More octets on the present line.
    pub(crate) fn grow_line(&mut self, octets: usize) {
        self.line = self.line.saturating_add(octets);
    }

    /// The line has ended, CRLF included in what it grew by.
    pub(crate) fn end_line(&mut self, limits: ContentLimits) {
        self.long_line |= self.line > limits.line;
        if !self.body {
            self.header = self.header.saturating_add(self.line);
            self.body = self.line == 2;
            self.long_header |= self.header > limits.header;
        }
        self.line = 0;
    }
}

/// What the input begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many octets of content.
    Keep(usize),
    /// A stuffed dot.
    Dot,
    /// The final dot with its CRLF, three octets.
    End,
    /// Cannot be told before there is more.
    More,
}

/// Finds content, stuffed dots and the end in the text after 354.
#[derive(Debug)]
pub(crate) struct DataScanner {
    limits: ContentLimits,
    line_start: bool,
}

impl DataScanner {
    pub(crate) fn new(limits: ContentLimits) -> Self {
        Self { limits, line_start: true }
    }

    /// Looks at all input not taken yet; the caller takes the piece before it asks again. What cannot be told yet is at most
    /// two octets.
    pub(crate) fn next(&mut self, input: &[u8], facts: &mut Facts) -> Piece {
        let mut at = 0;
        loop {
            if self.line_start {
                match input.get(at) {
                    None => break,
                    Some(b'.') if at > 0 => break,
                    Some(b'.') => return self.dot(input, facts),
                    Some(_) => self.line_start = false,
                }
            }
            let rest = &input[at..];
            let Some(offset) = memchr::memchr2(b'\r', b'\n', rest) else {
                facts.grow_line(rest.len());
                at = input.len();
                break;
            };
            match (rest[offset], rest.get(offset + 1)) {
                (b'\r', Some(b'\n')) => {
                    facts.grow_line(offset + 2);
                    facts.end_line(self.limits);
                    self.line_start = true;
                    at += offset + 2;
                }
                (b'\r', None) => {
                    facts.grow_line(offset);
                    at += offset;
                    break;
                }
                _ => {
                    facts.bare = true;
                    facts.grow_line(offset + 1);
                    at += offset + 1;
                }
            }
        }
        if at == 0 {
            return Piece::More;
        }
        facts.octets(&input[..at]);
        Piece::Keep(at)
    }

    /// The input begins with a dot at the start of a line.
    fn dot(&mut self, input: &[u8], facts: &mut Facts) -> Piece {
        match input {
            [_, b'\r', b'\n', ..] => Piece::End,
            [_] | [_, b'\r'] => Piece::More,
            [_, next, ..] => {
                self.line_start = false;
                facts.dot_lines |= *next == b'.';
                Piece::Dot
            }
            [] => Piece::More,
        }
    }
}

#[cfg(test)]
#[path = "tests/data.rs"]
mod tests;
