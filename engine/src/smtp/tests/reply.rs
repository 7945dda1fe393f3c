use super::*;

fn parse(text: &str) -> Result<Option<Reply>, ReplyError> {
    let mut parser = ReplyParser::default();
    parser.parse(text.as_bytes(), |_| {}).map(|(_, complete)| complete.then(|| parser.reply().clone()))
}

#[test]
fn replies_of_every_shape() {
    for (text, shown) in [
        ("250 ok\r\n", "250 ok"),
        ("250\r\n", "250"),
        ("250 ok\n", "250 ok"),
        ("550-5.1.1 no such\r\n550 5.1.1  user\r\n", "550 5.1.1 no such user"),
        ("550 4.1.1 class differs\r\n", "550 4.1.1 class differs"),
        ("550 5.1.1000 detail\r\n", "550 5.1.1000 detail"),
        ("550 5.1.1\r\n", "550 5.1.1"),
        ("421-4.7.0 a\r\n421 see b\r\n", "421 4.7.0 a see b"),
        ("550 a\x07b\u{85}c\r\n", "550 a b c"),
    ] {
        assert_eq!(parse(text).unwrap().unwrap().to_string(), shown, "{text:?}");
    }
    assert_eq!(parse("550 4.1.1 x\r\n").unwrap().unwrap().enhanced, None);
    assert_eq!(parse("250-a\r\n250"), Ok(None));
}

#[test]
fn broken_replies_are_errors() {
    for (text, error) in [
        ("\r\n", ReplyError::Malformed),
        ("25 x\r\n", ReplyError::Malformed),
        ("650 x\r\n", ReplyError::Malformed),
        ("250x\r\n", ReplyError::Malformed),
        ("250-a\r\n251 b\r\n", ReplyError::CodeChanged),
    ] {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }
    assert_eq!(parse(&"250-x\r\n".repeat(129)), Err(ReplyError::TooManyLines));
    assert_eq!(parse(&"2".repeat(2049)), Err(ReplyError::LineTooLong));
}

#[test]
fn text_is_bounded() {
    let reply = parse(&format!("{}250 end\r\n", format!("250-{}\r\n", "é".repeat(300)).repeat(10))).unwrap().unwrap();
    assert_eq!(reply.text.chars().count(), TEXT_MAX);
}

#[test]
fn an_empty_text_is_a_whole_line() {
    let mut out = Vec::new();
    Reply::new(452, Enhanced(4, 3, 1), "").write(&mut out);
    assert_eq!(out, b"452 4.3.1 \r\n");
}
