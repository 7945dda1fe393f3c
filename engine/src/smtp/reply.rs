//! SMTP replies: the value, and the parser for what a remote server says.
//!
//! The parser must never keep more of a reply than [`TEXT_MAX`] characters, never wait for the end of an endless reply, and
//! never let a control character through. One parser per delivery connection; [`Reply`] is a plain value.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Characters of text that are kept of a reply.
pub const TEXT_MAX: usize = 1000;
/// Octets in one reply line. RFC 5321 section 4.5.3.1.5 has 512; real servers exceed it.
pub const LINE_MAX: usize = 2048;
/// Lines in one reply. The longest EHLO replies seen have about 30.
pub const LINES_MAX: u32 = 128;

/// Enhanced status code (RFC 3463), such as 5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Enhanced(
    /// Class: 2, 4 or 5.
    pub u8,
    /// Subject, 0 to 999.
    pub u16,
    /// Detail, 0 to 999.
    pub u16,
);

impl Enhanced {
    /// Parses `c.s.d` at the start of `text`; gives the code and the length it took. `class` is the first digit of the
    /// basic code, which has to agree (RFC 2034 section 4).
    #[must_use]
    pub fn parse(text: &str, class: u8) -> Option<(Self, usize)> {
        let word = text.split(' ').next()?;
        let mut parts = word.split('.');
        let mut part = |digits: usize| {
            let part = parts.next()?;
            let valid = (1..=digits).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if valid { part.parse::<u16>().ok() } else { None }
        };
        let (first, subject, detail) = (part(1)?, part(3)?, part(3)?);
        if parts.next().is_some() || first != u16::from(class) || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some((Self(class, subject, detail), word.len()))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply: of a remote server, of ours, or one that the client machine makes up when there is none (then `local`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Basic code, 200 to 599.
    pub code: u16,
    /// Enhanced code, if there is one.
    pub enhanced: Option<Enhanced>,
    /// Text without the codes, lines joined by a blank, at most [`TEXT_MAX`] characters, no control characters.
    pub text: String,
    /// No server said this: the client machine concluded it.
    pub local: bool,
}

impl Reply {
    /// A reply of ours.
    #[must_use]
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), text: text.into(), local: false }
    }

    /// A reply that no server gave.
    #[must_use]
    pub fn local(code: u16, enhanced: Enhanced, text: impl Into<String>) -> Self {
        Self { local: true, ..Self::new(code, enhanced, text) }
    }

    /// 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 5xx.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Appends the reply as lines for the wire, folding text at 480 octets. Control characters in the text become blanks,
    /// so that no text can start a new reply; other characters outside ASCII become `?`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut rest = self.text.as_bytes();
        loop {
            let take = if rest.len() <= 480 {
                rest.len()
            } else {
                rest[..480].iter().rposition(|&b| b == b' ').unwrap_or(480)
            };
            let (line, after) = rest.split_at(take.max(1).min(rest.len()));
            rest = if after.first() == Some(&b' ') { &after[1..] } else { after };
            push_number(out, u64::from(self.code));
            out.push(if rest.is_empty() { b' ' } else { b'-' });
            if let Some(Enhanced(class, subject, detail)) = self.enhanced {
                push_number(out, u64::from(class));
                out.push(b'.');
                push_number(out, u64::from(subject));
                out.push(b'.');
                push_number(out, u64::from(detail));
                out.push(b' ');
            }
            out.extend(line.iter().map(|&b| match b {
                0..32 | 127 => b' ',
                128.. => b'?',
                printable => printable,
            }));
            out.extend_from_slice(b"\r\n");
            if rest.is_empty() {
                return;
            }
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// Appends `n` in decimal, without the formatting machinery.
pub(crate) fn push_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// How a server broke the reply syntax (RFC 5321 section 4.2); the connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No three digits and a blank, a hyphen or the end of the line after them.
    #[error("the server's reply does not begin with a reply code")]
    Malformed,
    /// Lines of one reply with different codes.
    #[error("the server's reply changes its code between lines")]
    CodeChanged,
    /// Longer than [`LINE_MAX`].
    #[error("the server's reply line is too long")]
    LineTooLong,
    /// More than [`LINES_MAX`].
    #[error("the server's reply has too many lines")]
    TooManyLines,
}

/// Collects the lines of one reply. One per delivery connection.
#[derive(Debug, Default)]
pub struct ReplyParser {
    reply: Reply,
    chars: usize,
    lines: u32,
}

impl ReplyParser {
    /// Takes lines from the start of `input`, giving the text of each to `line`. Returns how many bytes it took and whether
    /// the reply is complete: then [`Self::reply`] is it, until the next call.
    ///
    /// A line may end in a lone LF: what a server says cannot be smuggled into another dialogue.
    ///
    /// # Errors
    /// The server does not speak SMTP.
    pub fn parse(&mut self, input: &[u8], mut line: impl FnMut(&str)) -> Result<(usize, bool), ReplyError> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return if rest.len() > LINE_MAX { Err(ReplyError::LineTooLong) } else { Ok((taken, false)) };
            };
            if end > LINE_MAX {
                return Err(ReplyError::LineTooLong);
            }
            let content = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            taken += end + 1;
            if self.take_line(content, &mut line)? {
                self.lines = 0;
                return Ok((taken, true));
            }
        }
    }

    /// The reply that is complete.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// As [`Self::reply`], to swap the text out of it.
    pub fn reply_mut(&mut self) -> &mut Reply {
        &mut self.reply
    }

    fn take_line(&mut self, content: &[u8], line: &mut impl FnMut(&str)) -> Result<bool, ReplyError> {
        let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', text @ ..] = content else {
            return Err(ReplyError::Malformed);
        };
        let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        let (last, text) = match text {
            [] => (true, text),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(ReplyError::Malformed),
        };
        let text = String::from_utf8_lossy(text);
        if self.lines == 0 {
            self.reply.code = code;
            self.reply.enhanced = None;
            self.reply.local = false;
            self.reply.text.clear();
            self.chars = 0;
        } else if self.reply.code != code {
            return Err(ReplyError::CodeChanged);
        }
        self.lines += 1;
        if self.lines > LINES_MAX {
            return Err(ReplyError::TooManyLines);
        }
        line(&text);
        self.push_text(&text, a - b'0');
        Ok(last)
    }

    fn push_text(&mut self, text: &str, class: u8) {
        let mut text = text;
        if let Some((enhanced, length)) = Enhanced::parse(text, class)
            && (self.lines == 1 || self.reply.enhanced == Some(enhanced))
        {
            self.reply.enhanced = Some(enhanced);
            text = &text[length..];
        }
        let text = text.trim();
        if !text.is_empty() && !self.reply.text.is_empty() && self.chars < TEXT_MAX {
            self.reply.text.push(' ');
            self.chars += 1;
        }
        for c in text.chars().take(TEXT_MAX - self.chars) {
            self.reply.text.push(if c.is_control() { ' ' } else { c });
            self.chars += 1;
        }
    }
}

#[cfg(test)]
#[path = "tests/reply.rs"]
mod tests;
