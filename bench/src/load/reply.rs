//! SMTP replies as the load generator reads them (RFC 5321 section 4.2): a line at a time, bounded. One per connection.

/// Bytes of one reply taken at most.
const REPLY_MAX: usize = 64 << 10;
/// Bytes of the last line kept for the record.
const TEXT_MAX: usize = 1024;

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// 200 to 599.
    pub(super) code: u16,
    /// No further line follows.
    pub(super) last: bool,
    /// The text behind the code.
    pub(super) text: &'a [u8],
}

/// What was said is no SMTP reply, or too long a one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Splits input into reply lines.
#[derive(Debug, Default)]
pub(super) struct Replies {
    taken: usize,
}

impl Replies {
    /// Takes one line off `input`: the line and its length, or nothing where it is not complete.
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Line<'a>, usize)>, Malformed> {
        let Some(feed) = memchr::memchr(b'\n', input) else {
            return if self.taken + input.len() > REPLY_MAX { Err(Malformed) } else { Ok(None) };
        };
        let line = &input[..feed];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, rest) = line.split_at_checked(3).ok_or(Malformed)?;
        if !matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
            return Err(Malformed);
        }
        let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let last = match rest.first() {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(Malformed),
        };
        self.taken = if last { 0 } else { self.taken + feed + 1 };
        if self.taken > REPLY_MAX {
            return Err(Malformed);
        }
        let text = rest.get(1..).unwrap_or_default();
        Ok(Some((Line { code, last, text: &text[..text.len().min(TEXT_MAX)] }, feed + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_nonsense() {
        let mut replies = Replies::default();
        let input = b"250-one\r\n250 two\r\n2";
        let (line, used) = replies.next(input).unwrap().unwrap();
        assert_eq!((line, used), (Line { code: 250, last: false, text: b"one" }, 9));
        let (line, used) = replies.next(&input[9..]).unwrap().unwrap();
        assert_eq!((line.last, line.text, used), (true, &b"two"[..], 9));
        assert_eq!(replies.next(b"2"), Ok(None));
        assert_eq!(replies.next(b"250\n").unwrap().unwrap().0.text, b"");
        for bad in [&b"hello\r\n"[..], b"\r\n", b"25\r\n", b"150 x\r\n", b"250_x\r\n", b"2x0 x\r\n"] {
            assert_eq!(replies.next(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn an_endless_reply_ends() {
        let mut replies = Replies::default();
        let line = b"250-and another thing\r\n";
        assert!((0..10_000).any(|_| replies.next(line) == Err(Malformed)));
        assert_eq!(Replies::default().next(&vec![b'2'; REPLY_MAX + 1]), Err(Malformed));
    }
}
