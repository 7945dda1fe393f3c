//! Relaxed canonicalization (RFC 6376 section 3.4), piece by piece.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// Hash of a body in relaxed form. Pieces may end anywhere.
pub(crate) struct BodyHash {
    context: Context,
    /// Line ends not written yet: at the end of the body they do not count.
    lines: u32,
    blank: bool,
    any: bool,
    buffer: [u8; BUFFER],
    filled: usize,
}

const BUFFER: usize = 2048;

impl BodyHash {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(&SHA256), lines: 0, blank: false, any: false, buffer: [0; BUFFER], filled: 0 }
    }

    /// Line by line: octet by octet all of it was 2 % of the CPU of a server that signs with RSA (`perf record`).
    pub(crate) fn write(&mut self, piece: &[u8]) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            self.text(&piece[start..end]);
            self.blank = false;
            self.lines += 1;
            start = end + 1;
        }
        self.text(&piece[start..]);
    }

    /// Part of a line. Content has CR only in front of LF: the SMTP machine refuses all else.
    fn text(&mut self, text: &[u8]) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let Some(first) = text.iter().position(|octet| !is_blank(*octet)) else {
            self.blank |= !text.is_empty();
            return;
        };
        let last = text.iter().rposition(|octet| !is_blank(*octet)).unwrap_or(first);
        self.blank |= first > 0;
        self.begin();
        let words = &text[first..=last];
        if is_relaxed(words) {
            self.push(words)
        } else {
            self.push_relaxed(words)
        }
        self.blank = last + 1 < text.len();
    }

    /// Something comes that counts: so does what waited for it.
    fn begin(&mut self) {
        for _ in 0..std::mem::take(&mut self.lines) {
            self.push(b"\r\n");
        }
        if std::mem::take(&mut self.blank) {
            self.push(b" ");
        }
        self.any = true;
    }

    fn push(&mut self, octets: &[u8]) {
        for piece in octets.chunks(BUFFER) {
            self.make_room(piece.len());
            self.buffer[self.filled..self.filled + piece.len()].copy_from_slice(piece);
            self.filled += piece.len();
        }
    }

    /// As [`Self::push`], each run of blanks as one space. Without a branch an octet: HTML is full of such runs.
    fn push_relaxed(&mut self, words: &[u8]) {
        let mut after_blank = false;
        for piece in words.chunks(BUFFER) {
            self.make_room(piece.len());
            let room = &mut self.buffer[self.filled..self.filled + piece.len()];
            let mut kept = 0;
            for octet in piece {
                let blank = is_blank(*octet);
                room[kept] = if blank { b' ' } else { *octet };
                kept += usize::from(!(blank & after_blank));
                after_blank = blank;
            }
            self.filled += kept;
        }
    }

    fn make_room(&mut self, octets: usize) {
        if self.filled + octets > BUFFER {
            self.context.update(&self.buffer[..self.filled]);
            self.filled = 0;
        }
    }

    pub(crate) fn finish(mut self) -> Digest {
        if self.any {
            self.push(b"\r\n");
        }
        self.context.update(&self.buffer[..self.filled]);
        self.context.finish()
    }
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

/// Has it single spaces only? Without a branch, so that the compiler looks at many octets at once.
fn is_relaxed(words: &[u8]) -> bool {
    let (Some((_, behind)), Some((_, front))) = (words.split_first(), words.split_last()) else { return true };
    let wrong = front.iter().zip(behind).fold(0_u8, |wrong, (before, octet)| {
        let tab = u8::from(*octet == b'\t');
        wrong | tab | (u8::from(*before == b' ') & u8::from(*octet == b' '))
    });
    wrong == 0
}

/// Appends a header field in relaxed form, without the line end.
pub(crate) fn header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut blank = false;
    for byte in value {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => blank = true,
            other => {
                if std::mem::take(&mut blank) && out.len() > start {
                    out.push(b' ');
                }
                out.push(*other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash_of(pieces: &[&[u8]]) -> Vec<u8> {
        let mut hash = BodyHash::new();
        pieces.iter().for_each(|piece| hash.write(piece));
        hash.finish().as_ref().to_vec()
    }

    fn plain(canonical: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(&SHA256, canonical).as_ref().to_vec()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(hash_of(&[b" C \r\nD \t E\r\n\r\n\r\n"]), plain(b" C\r\nD E\r\n"));
        assert_eq!(hash_of(&[b""]), plain(b""));
        assert_eq!(hash_of(&[b"\r\n \t\r\n"]), plain(b""));
        assert_eq!(hash_of(&[b"\r\nx"]), plain(b"\r\nx\r\n"));
        let mut out = Vec::new();
        header(b"SUBject", b" \t Z \r\n\t x  \r\n", &mut out);
        assert_eq!(out, b"subject:Z x");
    }

    /// Word by word after the text of the RFC, without regard for speed.
    fn slow(body: &str) -> String {
        let mut lines: Vec<String> = body
            .split("\r\n")
            .map(|line| {
                let mut folded = String::new();
                for c in line.trim_end_matches([' ', '\t']).chars() {
                    if c == ' ' || c == '\t' {
                        if !folded.ends_with(' ') {
                            folded.push(' ');
                        }
                    } else {
                        folded.push(c);
                    }
                }
                folded
            })
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines.iter().map(|line| format!("{line}\r\n")).collect()
    }

    proptest! {
        #[test]
        fn long_lines_are_hashed_as_the_rfc_says(lines in proptest::collection::vec("[ \t]{0,3}[a-z]{0,90}([ \t]{1,2}[a-z]{0,900}){0,6}[ \t]{0,2}", 0..8), cut in 0_usize..9000) {
            let body = lines.join("\r\n");
            let cut = cut.min(body.len());
            let pieces = [&body.as_bytes()[..cut], &body.as_bytes()[cut..]];
            prop_assert_eq!(hash_of(&pieces), plain(slow(&body).as_bytes()));
        }

        #[test]
        fn as_the_rfc_says_however_it_is_cut(lines in proptest::collection::vec("[ \ta-c.]{0,6}", 0..12), cut in 0_usize..40) {
            let body = lines.join("\r\n");
            let cut = cut.min(body.len());
            let pieces = [&body.as_bytes()[..cut], &body.as_bytes()[cut..]];
            prop_assert_eq!(hash_of(&pieces), plain(slow(&body).as_bytes()));
        }
    }
}
