use super::*;

#[test]
fn facts_are_told() {
    let limits = ContentLimits { line: 10, header: 100 };
    let mut facts = Facts::default();
    let mut scanner = DataScanner::new(limits);
    assert_eq!(scanner.next(b"a: b\r\n\r\n..x\r\n", &mut facts), Piece::Keep(8));
    assert!(facts.body && !facts.dot_lines && !facts.eight_bit);
    assert_eq!(scanner.next(b"..x\r\n", &mut facts), Piece::Dot);
    assert_eq!(scanner.next(b".x\xff\r\n.\r", &mut facts), Piece::Keep(5));
    assert!(facts.dot_lines && facts.eight_bit && !facts.long_line && !facts.nul);
    assert_eq!(facts.bytes, 13);
    assert_eq!(scanner.next(b".\r", &mut facts), Piece::More);
    assert_eq!(scanner.next(b".\r\n", &mut facts), Piece::End);
}

/// The text in pieces of the given sizes: the content, the facts, and what is left behind the end if it was found.
fn scanned(text: &[u8], sizes: &[usize]) -> (Vec<u8>, Facts, Option<Vec<u8>>) {
    let (mut facts, mut scanner) = (Facts::default(), DataScanner::new(ContentLimits { line: 10, header: 12 }));
    let (mut content, mut held, mut rest) = (Vec::new(), Vec::new(), text);
    for size in sizes.iter().copied().chain([text.len()]) {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        held.extend_from_slice(piece);
        loop {
            match scanner.next(&held, &mut facts) {
                Piece::Keep(octets) => content.extend(held.drain(..octets)),
                Piece::Dot => drop(held.drain(..1)),
                Piece::End => return (content, facts, Some([&held[3..], rest].concat())),
                Piece::More => break,
            }
        }
        assert!(held.len() <= 2, "{held:?} could have been told");
    }
    (content, facts, None)
}

/// The same, line by line and as plainly as can be.
fn plainly(text: &[u8]) -> (Vec<u8>, bool, bool, Option<usize>) {
    let (mut content, mut at, mut dots) = (Vec::new(), 0, false);
    loop {
        if text[at..].starts_with(b".\r\n") {
            break;
        }
        if text[at..].starts_with(b".") {
            dots |= text.get(at + 1) == Some(&b'.');
            at += 1;
        }
        let Some(end) = text[at..].windows(2).position(|two| two == b"\r\n").map(|end| at + end + 2) else {
            return (content, false, dots, None);
        };
        content.extend_from_slice(&text[at..end]);
        at = end;
    }
    let lone = |i: usize| match content[i] {
        b'\r' => content.get(i + 1) != Some(&b'\n'),
        b'\n' => i == 0 || content[i - 1] != b'\r',
        _ => false,
    };
    let bare = (0..content.len()).any(lone);
    (content, bare, dots, Some(at + 3))
}

proptest::proptest! {
    #[test]
    fn however_the_text_is_cut_content_end_and_facts_are_those_of_a_plain_reading(
        words in proptest::collection::vec(
            proptest::sample::select(&["\r\n", "\r\n", ".", "a", "aaaaaaaaa", "\r\n.", "\n", "\r", "é", "\r\n.\r\n"][..]), 0..30),
        sizes in proptest::collection::vec(0_usize..7, 0..20),
    ) {
        let text = words.concat().into_bytes();
        let (content, facts, behind) = scanned(&text, &sizes);
        let (expected, bare, dots, end) = plainly(&text);
        let Some(end) = end else {
            proptest::prop_assert!(behind.is_none());
            return Ok(());
        };
        proptest::prop_assert_eq!(&content, &expected);
        proptest::prop_assert_eq!(behind, Some(text[end..].to_vec()));
        proptest::prop_assert_eq!(facts.bare, bare);
        proptest::prop_assert_eq!(facts.eight_bit, !expected.is_ascii());
        proptest::prop_assert_eq!(facts.bytes, expected.len() as u64);
        if !bare {
            proptest::prop_assert_eq!(facts.dot_lines, dots);
            let long = expected.split_inclusive(|octet| *octet == b'\n').any(|line| line.len() > 10);
            proptest::prop_assert_eq!(facts.long_line, long);
        }
    }
}

#[test]
fn a_cr_in_front_of_a_line_end_is_noted_however_the_text_is_cut() {
    let text = b"a\r\r\n.\r\n";
    for cut in 0..text.len() {
        assert!(scanned(text, &[cut]).1.bare, "cut at {cut}");
    }
}
