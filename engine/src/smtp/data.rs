//! Message content as it comes in: what DATA sends, dots and end found (RFC 5321 section 4.5.2), and the facts about it.
//!
//! Only CRLF ends a line, so only CRLF `.` CRLF ends a message; a lone CR or LF is noted and the message is then refused.
//! That is the whole defence against smuggling, so the scanner must never treat anything else as a line end. One per
//! connection, started again for each message. Scanners look at bytes and never move them.

use super::survey::survey;

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

    /// Notes how long lines and header section are. An LF ends a line: where it stands alone the message is refused anyway.
    pub(crate) fn lines(&mut self, mut text: &[u8], limits: ContentLimits) {
        while !self.body {
            let Some(lf) = memchr::memchr(b'\n', text) else {
                self.line = self.line.saturating_add(text.len());
                return;
            };
            self.line = self.line.saturating_add(lf + 1);
            self.end_line(limits);
            text = &text[lf + 1..];
        }
        // Behind the header section only lines that are too long matter: from the last line end that is near enough to the
        // next.
        while !text.is_empty() {
            let room = limits.line.saturating_sub(self.line).min(text.len());
            if let Some(lf) = memchr::memrchr(b'\n', &text[..room]) {
                self.line = 0;
                text = &text[lf + 1..];
            } else if room == text.len() {
                self.line += room;
                return;
            } else {
                self.long_line = true;
                let Some(lf) = memchr::memchr(b'\n', text) else {
                    self.line = self.line.saturating_add(text.len());
                    return;
                };
                self.line = 0;
                text = &text[lf + 1..];
            }
        }
    }

    /// A line has ended, its end included in what it grew by.
    fn end_line(&mut self, limits: ContentLimits) {
        self.long_line |= self.line > limits.line;
        if !self.body {
            self.header = self.header.saturating_add(self.line);
            self.body = self.line == 2;
            self.long_header |= self.header > limits.header;
        }
        self.line = 0;
    }

    /// The content has ended without a line end.
    pub(crate) fn cut_off(&mut self, limits: ContentLimits) {
        self.end_line(limits);
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
        if self.line_start && input.first() == Some(&b'.') {
            return self.dot(input, facts);
        }
        // Up to a line that begins with a dot, or a CR whose LF may follow.
        let end = memchr::memmem::find(input, b"\r\n.").map_or(input.len(), |at| at + 2);
        let text = &input[..end];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return Piece::More;
        }
        let before = if self.line_start { b'\n' } else { b' ' };
        // A CR that is left at the end has the CR behind it that was cut off.
        facts.bare |= survey(before, text).bare || text.ends_with(b"\r");
        facts.lines(text, self.limits);
        facts.octets(text);
        self.line_start = text.ends_with(b"\r\n");
        Piece::Keep(text.len())
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
