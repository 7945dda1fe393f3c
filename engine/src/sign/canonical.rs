//! Relaxed canonicalization (RFC 6376 section 3.4), piece by piece.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// Hash of a body in relaxed form. Pieces may end anywhere.
pub(super) struct BodyHash {
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
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), lines: 0, blank: false, any: false, buffer: [0; BUFFER], filled: 0 }
    }

    pub(super) fn write(&mut self, piece: &[u8]) {
        for byte in piece {
            match byte {
                b' ' | b'\t' => self.blank = true,
                // Content has CR only in front of LF: the SMTP machine refuses all else.
                b'\r' => {}
                b'\n' => {
                    self.blank = false;
                    self.lines += 1;
                }
                other => {
                    while self.lines > 0 {
                        self.push(b'\r');
                        self.push(b'\n');
                        self.lines -= 1;
                    }
                    if std::mem::take(&mut self.blank) {
                        self.push(b' ');
                    }
                    self.any = true;
                    self.push(*other);
                }
            }
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if self.filled == BUFFER {
            self.context.update(&self.buffer);
            self.filled = 0;
        }
        self.buffer[self.filled] = byte;
        self.filled += 1;
    }

    pub(super) fn finish(mut self) -> Digest {
        if self.any {
            self.push(b'\r');
            self.push(b'\n');
        }
        self.context.update(&self.buffer[..self.filled]);
        self.context.finish()
    }
}

/// Appends a header field in relaxed form, without the line end.
pub(super) fn header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
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
        fn as_the_rfc_says_however_it_is_cut(lines in proptest::collection::vec("[ \ta-c.]{0,6}", 0..12), cut in 0_usize..40) {
            let body = lines.join("\r\n");
            let cut = cut.min(body.len());
            let pieces = [&body.as_bytes()[..cut], &body.as_bytes()[cut..]];
            prop_assert_eq!(hash_of(&pieces), plain(slow(&body).as_bytes()));
        }
    }
}
