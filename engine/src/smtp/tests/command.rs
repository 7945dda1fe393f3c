use super::*;
use proptest::prelude::*;

#[test]
fn commands_in_any_case() {
    for (line, command) in [
        ("ehlo [127.0.0.1]", Command::Ehlo("[127.0.0.1]")),
        ("HELO a_b", Command::Helo("a_b")),
        ("data", Command::Data),
        ("DATA  ", Command::Data),
        ("bdat 0012 last", Command::Bdat(12, true)),
        ("BDAT 18446744073709551615", Command::Bdat(u64::MAX, false)),
        ("StartTls", Command::StartTls),
    ] {
        assert_eq!(parse(line.as_bytes(), false), Ok(command), "{line}");
    }
    assert!(matches!(
        parse(b"Mail From: <a@b.test> size=5 body=8bitmime ret=hdrs envid=x", false),
        Ok(Command::Mail(
            Path::Mailbox(_),
            MailParams {
                size: Some(5),
                body: Some(Body::EightBit),
                ret: Some(Ret::Headers),
                env_id: Some("x"),
                smtputf8: false,
                auth: false,
            }
        ))
    ));
    assert!(matches!(
        parse(b"MAIL FROM:<a@b.test> SMTPUTF8", true),
        Ok(Command::Mail(_, MailParams { smtputf8: true, .. }))
    ));
}

#[test]
fn bad_lines() {
    let long = format!("NOOP {}", "x".repeat(506));
    for (line, error) in [
        ("DATA now", CommandError::Syntax("DATA")),
        ("BDAT 1 2", CommandError::Syntax("BDAT size [LAST]")),
        ("BDAT -1", CommandError::Syntax("BDAT size [LAST]")),
        ("BDAT 18446744073709551616", CommandError::Syntax("BDAT size [LAST]")),
        ("MAIL TO:<a@b>", CommandError::Syntax("MAIL FROM:<address>")),
        ("MAIL FROM:<a@b>SIZE=1", CommandError::Syntax("a blank before each parameter")),
        ("MAIL FROM:<postmaster>", CommandError::Sender("<postmaster>", AddressError::NoDomain)),
        ("NOOP\t", CommandError::Characters),
        (" NOOP", CommandError::Unknown),
        (&long, CommandError::TooLong),
    ] {
        assert_eq!(parse(line.as_bytes(), false), Err(error), "{line}");
    }
    assert_eq!(parse(b"NOOP \xff", true), Err(CommandError::Characters));
    assert!(looks_like_bdat(b"\0 bdAT x") && !looks_like_bdat(b"RSET"));
}

#[test]
fn xtext_never_hides_control_characters() {
    for (text, valid) in [
        ("abc", true),
        ("a+2Bb", true),
        ("a+2bb", false),
        ("a+0A", false),
        ("a=b", false),
        ("a+", false),
        ("a b", false),
    ] {
        assert_eq!(is_xtext(text), valid, "{text}");
    }
}

proptest! {
    #[test]
    fn any_line_is_answered(line in proptest::collection::vec(any::<u8>(), 0..200), utf8: bool) {
        let _ = parse(&line, utf8);
    }
}
