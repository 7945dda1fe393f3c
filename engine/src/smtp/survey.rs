//! Content looked at whole, many octets at a time: what is asked of every octet costs less than finding each line.
//!
//! Decides nothing; the same questions serve what comes in and what goes out.

/// What stands somewhere in a piece of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// A CR without LF behind it, or an LF without CR in front. A CR at the very end is not counted: its LF may follow.
    pub(super) bare: bool,
    /// A dot behind an LF.
    pub(super) dots: bool,
}

/// Looks at `bytes`, in front of which stands `before` (an LF at the start of a message).
pub(super) fn survey(before: u8, bytes: &[u8]) -> Survey {
    let Some((first, behind)) = bytes.split_first() else { return Survey::default() };
    let bare = |prev: u8, next: u8| u8::from(prev == b'\r') ^ u8::from(next == b'\n');
    let dots = |prev: u8, next: u8| u8::from(prev == b'\n') & u8::from(next == b'.');
    let mut found = (bare(before, *first), dots(before, *first));
    // Without branches, so that the compiler makes vector instructions of it.
    for (prev, next) in bytes.iter().zip(behind) {
        found = (found.0 | bare(*prev, *next), found.1 | dots(*prev, *next));
    }
    Survey { bare: found.0 != 0, dots: found.1 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_hand(before: u8, bytes: &[u8]) -> Survey {
        let mut survey = Survey::default();
        let mut prev = before;
        for next in bytes {
            survey.bare |= (prev == b'\r') != (*next == b'\n');
            survey.dots |= prev == b'\n' && *next == b'.';
            prev = *next;
        }
        survey
    }

    #[test]
    fn a_lone_cr_or_lf_is_found_and_a_cr_at_the_end_may_be_half_of_a_line_end() {
        let bare = |before, bytes: &[u8]| survey(before, bytes).bare;
        assert!(!bare(b'\n', b"a\r\nb\r\n") && !bare(b'a', b"\r") && !bare(b'\r', b"\n") && !bare(b'\n', b""));
        assert!(bare(b'\n', b"\n") && bare(b'a', b"\n") && bare(b'\r', b"a") && bare(b'a', b"\r\r\n"));
        assert!(survey(b'\n', b".").dots && survey(b'a', b"\r\n.").dots && !survey(b'a', b".a.").dots);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_plain_loop_finds(
            before in prop::sample::select(&b"\r\n.a"[..]),
            bytes in prop::collection::vec(prop::sample::select(&b"\r\n.aaaaaaa"[..]), 0..200),
        ) {
            prop_assert_eq!(survey(before, &bytes), by_hand(before, &bytes));
        }
    }
}
