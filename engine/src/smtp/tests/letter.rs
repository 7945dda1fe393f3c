use super::*;
use proptest::prelude::*;

fn write(stuff: bool, pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut writer, mut out) = (ContentWriter::new(stuff), Vec::new());
    (pieces.iter().all(|piece| writer.append(piece, &mut out)) && writer.finish(&mut out)).then_some(out)
}

#[test]
fn dots_are_stuffed_and_lines_ended() {
    for (content, text) in [
        ("", ".\r\n"),
        ("a", "a\r\n.\r\n"),
        ("a\r\n", "a\r\n.\r\n"),
        (".\r\n.", "..\r\n..\r\n.\r\n"),
        ("a.\r\n..b\r\n", "a.\r\n...b\r\n.\r\n"),
    ] {
        assert_eq!(write(true, &[content.as_bytes()]).unwrap(), text.as_bytes(), "{content:?}");
        assert_eq!(write(false, &[content.as_bytes()]).unwrap(), content.as_bytes());
    }
    for content in ["\n", "a\r", "a\rb", "a\n.\n", "\r\r\n"] {
        assert_eq!(write(true, &[content.as_bytes()]), None, "{content:?}");
        assert_eq!(write(false, &[content.as_bytes()]), None, "{content:?}");
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(content in "[.a\r\n]{0,40}|(\\.?[a.]{0,3}\r\n){0,10}", cut in 0usize..40, stuff: bool) {
        let (first, second) = content.as_bytes().split_at(cut.min(content.len()));
        prop_assert_eq!(write(stuff, &[first, second]), write(stuff, &[content.as_bytes()]));
    }
}
