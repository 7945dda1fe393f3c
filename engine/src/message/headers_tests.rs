use super::*;
use proptest::prelude::*;

fn context() -> AcceptContext<'static> {
    AcceptContext {
        hostname: "mta.example.net",
        protocol: "ESMTP",
        tls: None,
        id: MessageId::new(0, 0, 0, 0),
        accepted: Wall(0),
        only_recipient: Some("b@example.net"),
        max_hops: 50,
    }
}

fn stored(content: &str) -> Result<(String, Prepared), Reply> {
    let mut prepared = Prepared::default();
    prepare(content.as_bytes(), &context(), &mut prepared)?;
    let mut parts = Vec::new();
    prepared.parts(content.as_bytes(), &mut parts);
    let whole = String::from_utf8(parts.concat()).unwrap();
    Ok((whole, prepared))
}

const RECEIVED: &str = "Received: by mta.example.net with ESMTP\r\n\tid 0100000000000000-00000000-0000-0000-0000-000000000000-000000\r\n\tfor <b@example.net>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n";

#[test]
fn what_is_complete_stays_as_it_is_behind_a_received_field() {
    let message = "From: A <a@Example.COM>\r\nDate: x\r\nMessage-ID: <y>\r\n\r\nbody\r\n";
    let (whole, prepared) = stored(message).unwrap();
    assert_eq!(whole, format!("{RECEIVED}{message}"));
    assert_eq!(prepared.author_domain(), "example.com");
    assert_eq!(&whole[prepared.header_size() as usize..], "\r\nbody\r\n");
}

#[test]
fn date_and_message_id_are_added_where_missing() {
    let (whole, prepared) = stored("From: a@example.com\r\n\r\nbody\r\n").unwrap();
    let added = "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <0100000000000000-00000000-0000-0000-0000-000000000000-000000@mta.example.net>\r\n";
    assert_eq!(whole, format!("{RECEIVED}{added}From: a@example.com\r\n\r\nbody\r\n"));
    assert_eq!(&whole[prepared.header_size() as usize..], "\r\nbody\r\n");
}

#[test]
fn control_headers_are_read_and_removed_with_their_folds() {
    let message = "X-SES-Thing: a\r\n b\r\nDate: x\r\nBCC: secret@example.com\r\nFrom: a@b.example\r\nx-mailrail-pool:  bulk \r\nMessage-ID: <y>\r\nReturn-Path: <r@x>\r\nBccx: stays\r\n\r\nBcc: in the body\r\n";
    let (whole, prepared) = stored(message).unwrap();
    assert_eq!(
        whole,
        format!("{RECEIVED}Date: x\r\nFrom: a@b.example\r\nMessage-ID: <y>\r\nBccx: stays\r\n\r\nBcc: in the body\r\n")
    );
    assert_eq!(prepared.pool(), Some("bulk"));
    assert_eq!(&whole[prepared.header_size() as usize..], "\r\nBcc: in the body\r\n");
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_reason() {
    let loops = "Received: x\r\n".repeat(51);
    let long = "x".repeat(999);
    for (message, code, text) in [
        ("Subject: x\r\n\r\n", "5.6.0", "Missing header 'From'"),
        ("From: a@b\r\nSubject: x\r\nsubject: y\r\n\r\n", "5.6.0", "Duplicate header 'subject'"),
        ("From: nobody\r\n\r\n", "5.6.0", "no valid address"),
        ("hello\r\n", "5.6.0", "Malformed header line 'hello'"),
        ("From: a@b\r\nTo : x\r\n\r\n", "5.6.0", "Malformed header line"),
        (" folded first\r\nFrom: a@b\r\n\r\n", "5.6.0", "Malformed header line"),
        (&format!("From: a@b\r\n{loops}\r\n"), "5.4.6", "Too many hops"),
        (&format!("From: a@b\r\nX: {long}\r\n\r\n"), "5.6.0", "longer than 998"),
    ] {
        let reply = stored(message).err().unwrap_or_else(|| panic!("{message}"));
        assert_eq!((reply.code, reply.enhanced.unwrap().to_string().as_str()), (554, code), "{message}");
        assert!(reply.text.contains(text), "{}", reply.text);
    }
}

#[test]
fn the_domain_of_from_is_found_in_all_its_forms() {
    for (value, domain) in [
        ("a@b.example", Some("b.example")),
        (" \"x@no.example\" <a@b.example>", Some("b.example")),
        (" \"quo\\\"te@no\" <a@b.example>", Some("b.example")),
        (" a@b.example (comment @no.example)", Some("b.example")),
        (" (a (nested <x@no>) comment) a@b.example", None),
        (" A <a@b.example>, C <c@d.example>", Some("b.example")),
        (" a@b.example, c@d.example", Some("b.example")),
        (" =?utf-8?q?x?= <a@b.example>", Some("b.example")),
        (" <a@b.example", None),
        (" <>", None),
        (" @b.example", None),
        (" a@b example", None),
    ] {
        assert_eq!(from_domain(value.as_bytes()), domain, "{value}");
    }
}

proptest! {
    #[test]
    fn any_input_is_refused_or_kept_but_for_the_removed_fields(
        lines in proptest::collection::vec("(From: a@b|X-SES-a: 1|Bcc: x|To: y|Subject: z| fold|[A-Za-z: ]{0,20})", 0..12),
        body in "[ -~]{0,40}",
    ) {
        let message = format!("{}\r\n\r\n{body}\r\n", lines.join("\r\n"));
        if let Ok((whole, prepared)) = stored(&message) {
            prop_assert!(whole.starts_with(RECEIVED));
            prop_assert!(whole.is_char_boundary(prepared.header_size() as usize));
            let (header, _) = whole.split_once("\r\n\r\n").unwrap();
            for line in header.lines() {
                prop_assert!(!line.to_ascii_lowercase().starts_with("x-ses-"));
                prop_assert!(!line.to_ascii_lowercase().starts_with("bcc:"));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut prepared = Prepared::default();
        if prepare(&bytes, &context(), &mut prepared).is_ok() {
            let mut parts = Vec::new();
            prepared.parts(&bytes, &mut parts);
        }
    }
}
