//! The content of a message on its way in: where it ends, what its headers say. One per connection.
//!
//! Only CRLF "." CRLF ends a message (RFC 5321 section 4.1.1.4). No I/O, no clock; nothing is copied that nobody reads.

use memchr::memmem;

/// Header bytes looked at to find the identity of a message.
const HEAD_MAX: usize = 64 << 10;

const END: &[u8] = b"\r\n.\r\n";

/// Finds the end of DATA in a stream that arrives in pieces.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// How many bytes of [`END`] the input so far ends with.
    matched: usize,
}

impl Scanner {
    /// A scanner at the start of the content, which counts as the start of a line.
    pub(super) fn new() -> Self {
        Self { matched: 2 }
    }

    /// Takes the next piece; says how many of its bytes belong to the content (terminator included) and whether the
    /// content has ended.
    pub(super) fn scan(&mut self, piece: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while self.matched > 0 && at < piece.len() {
            let byte = piece[at];
            at += 1;
            self.matched = step(self.matched, byte);
            if self.matched == END.len() {
                return (at, true);
            }
        }
        if at == piece.len() {
            return (at, false);
        }
        if let Some(found) = memmem::find(&piece[at..], END) {
            return (at + found + END.len(), true);
        }
        let tail = &piece[at.max(piece.len().saturating_sub(END.len() - 1))..];
        self.matched = tail.iter().fold(0, |matched, byte| step(matched, *byte));
        (piece.len(), false)
    }
}

/// The longest prefix of [`END`] that the input ends with, after one more byte.
fn step(matched: usize, byte: u8) -> usize {
    match (matched, byte) {
        (1, b'\n') => 2,
        (2, b'.') => 3,
        (3, b'\r') => 4,
        (4, b'\n') => 5,
        (_, b'\r') => 1,
        _ => 0,
    }
}

/// Undoes dot-stuffing (RFC 5321 section 4.5.2) and cuts the terminator off.
pub(super) fn unstuff(raw: &[u8]) -> Vec<u8> {
    let body = raw.strip_suffix(b".\r\n").unwrap_or(raw);
    let mut content = Vec::with_capacity(body.len());
    let mut rest = body.strip_prefix(b".").unwrap_or(body);
    while let Some(at) = memmem::find(rest, b"\r\n.") {
        content.extend_from_slice(&rest[..at + 2]);
        rest = &rest[at + 3..];
    }
    content.extend_from_slice(rest);
    content
}

/// Collects the header section as it comes by.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    complete: bool,
    id: Vec<u8>,
    sent_us: Option<u64>,
}

impl Head {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.complete = false;
        self.id.clear();
        self.sent_us = None;
    }

    /// Takes the next piece of the content.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        if self.complete {
            return;
        }
        if self.bytes.is_empty()
            && let Some(end) = memmem::find(piece, b"\r\n\r\n")
        {
            self.read(&piece[..end + 2]);
            return;
        }
        let room = HEAD_MAX - self.bytes.len();
        // A blank line may straddle two pieces, so the search starts a little before the new one.
        let from = self.bytes.len().saturating_sub(3);
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        let end = memmem::find(&self.bytes[from..], b"\r\n\r\n").map(|at| from + at + 2);
        if end.is_some() || self.bytes.len() >= HEAD_MAX {
            self.finish(end.unwrap_or(self.bytes.len()));
        }
    }

    /// `X-Load-Id`, else `Message-ID`; empty where the message has neither.
    pub(super) fn id(&mut self) -> &[u8] {
        if !self.complete {
            self.finish(self.bytes.len());
        }
        &self.id
    }

    /// `X-Load-Time`, in microseconds since 1970.
    pub(super) fn sent_us(&self) -> Option<u64> {
        self.sent_us
    }

    fn finish(&mut self, end: usize) {
        let bytes = std::mem::take(&mut self.bytes);
        self.read(&bytes[..end]);
        self.bytes = bytes;
    }

    fn read(&mut self, head: &[u8]) {
        self.complete = true;
        let mut by_load = false;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', head) {
            let line = &head[start..=end];
            start = end + 1;
            match line.first().map(u8::to_ascii_lowercase) {
                Some(b'x') => {
                    if let Some(value) = header(line, b"x-load-id:") {
                        self.id.clear();
                        self.id.extend_from_slice(value);
                        by_load = true;
                    } else if let Some(value) = header(line, b"x-load-time:") {
                        self.sent_us = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    }
                }
                Some(b'm') if !by_load => {
                    if let Some(value) = header(line, b"message-id:") {
                        self.id.clear();
                        self.id.extend_from_slice(value);
                    }
                }
                _ => {}
            }
        }
    }
}

fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(pieces: &[&[u8]]) -> Option<usize> {
        let mut scanner = Scanner::new();
        let mut total = 0;
        for piece in pieces {
            let (taken, done) = scanner.scan(piece);
            total += taken;
            if done {
                return Some(total);
            }
            assert_eq!(taken, piece.len());
        }
        None
    }

    #[test]
    fn only_crlf_dot_crlf_ends() {
        for no_end in [
            &b"a\n.\nb"[..],
            b"a\r\n.\nb",
            b"a\n.\r\nb",
            b"a\r.\r\nb",
            b"a\r\n.\rb",
            b"a\r\n..\r\nb",
            b"a\r\n.x\r\n",
            b"a\r\n.\r\rb",
        ] {
            assert_eq!(end_of(&[no_end]), None, "{no_end:?}");
            for at in 0..no_end.len() {
                assert_eq!(end_of(&[&no_end[..at], &no_end[at..]]), None, "{no_end:?} cut at {at}");
            }
        }
    }

    #[test]
    fn the_end_is_found_however_the_stream_is_cut() {
        for text in
            [&b"hello\r\n.\r\nQUIT\r\n"[..], b".\r\nQUIT\r\n", b"a\r\r\n.\r\nQUIT", b"a\r\n.\r.\r\n\r\n.\r\nQUIT"]
        {
            let expected = if text[0] == b'.' { 3 } else { memmem::find(text, b"\r\n.\r\n").unwrap() + 5 };
            for at in 0..=expected {
                assert_eq!(end_of(&[&text[..at], &text[at..]]), Some(expected), "{text:?} cut at {at}");
            }
            let bytes: Vec<_> = text.chunks(1).collect();
            assert_eq!(end_of(&bytes), Some(expected));
        }
    }

    #[test]
    fn unstuffing() {
        assert_eq!(unstuff(b"..a\r\nb\r\n..c\r\n...\r\n.\r\n"), b".a\r\nb\r\n.c\r\n..\r\n");
        assert_eq!(unstuff(b".\r\n"), b"");
    }

    #[test]
    fn identity_is_found_however_the_head_is_cut() {
        let text =
            b"Received: x\r\nMessage-ID: <m@x>\r\nx-load-id: run-7\r\nX-Load-Time: 42\r\n\r\nX-Load-Id: body\r\n";
        for at in 0..text.len() {
            let mut head = Head::default();
            head.feed(&text[..at]);
            head.feed(&text[at..]);
            assert_eq!(head.id(), b"run-7");
            assert_eq!(head.sent_us(), Some(42));
            head.clear();
            head.feed(b"Message-ID: <m@x>\r\n\r\n");
            assert_eq!(head.id(), b"<m@x>");
        }
    }
}
