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
