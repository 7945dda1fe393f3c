use super::*;
use proptest::prelude::*;

#[test]
fn valid_mailboxes() {
    let local64 = format!("{}@b.test", "a".repeat(64));
    let label63 = format!("a@{}.test", "b".repeat(63));
    for text in [
        "a@b",
        "a.b+c@d-e.test",
        "!#$%&'*+-/=?^_`{|}~@b.test",
        "\"\"@b.test",
        "\"a b\\\"<>@\"@b.test",
        "a@[127.0.0.1]",
        "a@[IPv6:2001:db8::1]",
        "a@xn--bcher-kva.test",
        &local64,
        &label63,
    ] {
        let parsed = mailbox(text, false).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(format!("{}@{}", parsed.local, parsed.domain), text);
    }
}

#[test]
fn invalid_mailboxes() {
    let local65 = format!("{}@b.test", "a".repeat(65));
    let label64 = format!("a@{}.test", "b".repeat(64));
    let domain = format!("a@{}test", "b.".repeat(126));
    for text in [
        "",
        "a",
        "@",
        "a@",
        "@b",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a b@c",
        "a@b c",
        "a@-b",
        "a@b-",
        "a@b.",
        "a@.b",
        "a@b_c",
        "a@b@c",
        "\"a@b",
        "\"a\"b@c",
        "\"a\\",
        "a@[127.0.0.256]",
        "a@[127.0.0.01]",
        "a@[::1]",
        "a@[x:y]",
        "a@[127.0.0.1",
        "a,b@c",
        "<a>@b",
        "a\r@b",
        "a@b\n",
        "\"a\n\"@b",
        "a\0@b",
        &local65,
        &label64,
        &domain,
    ] {
        assert!(mailbox(text, false).is_err(), "{text:?}");
        assert!(mailbox(text, true).is_err(), "{text:?}");
    }
}

#[test]
fn international_addresses() {
    assert_eq!(mailbox("a@bücher.test", false).unwrap().domain, "xn--bcher-kva.test");
    assert_eq!(mailbox("é@b.test", false), Err(AddressError::NeedsUtf8));
    assert_eq!(mailbox("é@b.test", true).unwrap().local, "é");
    assert!(mailbox("a@b\u{2028}c.test", true).is_err());
}

#[test]
fn paths() {
    for (text, path_, rest) in [
        ("<>", Path::Null, ""),
        ("<> SIZE=1", Path::Null, " SIZE=1"),
        ("<postMaster>", Path::Postmaster, ""),
        ("<@a.test,@b.test:c@d.test>x", Path::Mailbox(mailbox("c@d.test", false).unwrap()), "x"),
        ("<\">\"@d> y", Path::Mailbox(mailbox("\">\"@d", false).unwrap()), " y"),
    ] {
        assert_eq!(path(text, false), Ok((path_, rest)), "{text}");
    }
    for text in ["", "a@b", "<a@b", "<@:>", "<@a.test>", "<@a.test:>", "< >", "<\"a>"] {
        assert!(path(text, false).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_valid_is_harmless(text in "\\PC{0,12}@?\\PC{0,12}|[\\x00-\\x7f]{0,20}", utf8: bool) {
        if let Ok(parsed) = mailbox(&text, utf8) {
            prop_assert!(parsed.domain.is_ascii());
            prop_assert!(!parsed.local.bytes().any(|b| b.is_ascii_control()));
            prop_assert!(utf8 || parsed.local.is_ascii());
        }
        let _ = path(&text, utf8);
    }
}
