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
/// Octets that are looked at together, to find out that there is nothing to change.
const BLOCK: usize = 128;

impl BodyHash {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(&SHA256), lines: 0, blank: false, any: false, buffer: [0; BUFFER], filled: 0 }
    }

    /// Nearly all blocks of nearly all bodies are in relaxed form as they are: these are copied whole, the others octet by
    /// octet. Octet by octet all of it was 2.6 % of the CPU of a server that signs with RSA (`perf record`).
    pub(crate) fn write(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(first) = rest.first() {
            if is_blank(*first) {
                // It may have to go, or to wait: that depends on what came before and what comes behind.
                self.octet(*first);
                rest = &rest[1..];
                continue;
            }
            let (block, behind) = rest.split_at(rest.len().min(BLOCK));
            if is_relaxed(block) {
                let waits = block.iter().rev().take_while(|octet| is_blank(**octet)).count();
                let (plain, waits) = block.split_at(block.len() - waits);
                self.begin();
                self.push(plain);
                waits.iter().for_each(|octet| self.octet(*octet));
            } else {
                block.iter().for_each(|octet| self.octet(*octet));
            }
            rest = behind;
        }
    }

    fn octet(&mut self, octet: u8) {
        match octet {
            b' ' | b'\t' => self.blank = true,
            // Content has CR only in front of LF: the SMTP machine refuses all else.
            b'\r' => {}
            b'\n' => {
                self.blank = false;
                self.lines += 1;
            }
            other => {
                self.begin();
                self.push(&[other]);
            }
        }
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

    #[inline]
    fn push(&mut self, octets: &[u8]) {
        if self.filled + octets.len() > BUFFER {
            self.context.update(&self.buffer[..self.filled]);
            self.filled = 0;
        }
        self.buffer[self.filled..self.filled + octets.len()].copy_from_slice(octets);
        self.filled += octets.len();
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
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// Is a block that begins with no blank as it is to be, but for the blanks at its end? Without a branch, so that the compiler
/// looks at many octets at once.
fn is_relaxed(block: &[u8]) -> bool {
    let pairs = block.iter().zip(block.iter().skip(1));
    let wrong = pairs.fold(0_u8, |wrong, (before, octet)| {
        let tab = *octet == b'\t';
        let surplus = *before == b' ' && (*octet == b' ' || *octet == b'\r');
        let line_end = (*before == b'\r') != (*octet == b'\n');
        wrong | u8::from(tab) | u8::from(surplus) | u8::from(line_end)
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
        fn blocks_are_hashed_as_octets_are(lines in proptest::collection::vec("[a-z]{0,90}( [a-z]{0,30}){0,4}[ \t]{0,2}", 0..20), cut in 0_usize..400) {
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
