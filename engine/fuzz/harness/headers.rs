//! Any content to the header section's check and rewriting, against a plain reading of the same: what must hold.

use crate::message::{
    headers::{AcceptContext, Prepared, prepare},
    id::MessageId,
};
use mailrail_queue::time::Wall;

const MAX_HOPS: u32 = 5;

/// The content. Lone line ends and NUL are put right first: the SMTP machine lets none through.
pub fn run(data: &[u8]) {
    let content = as_accepted(data);
    let context = AcceptContext {
        hostname: "mta.test",
        protocol: "ESMTPS",
        tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
        id: MessageId::new(1, 2, 3, 4),
        accepted: Wall(0),
        only_recipient: Some("b@one.test"),
        max_hops: MAX_HOPS,
    };
    let mut prepared = Prepared::default();
    if let Err(refusal) = prepare(&content, &context, &mut prepared) {
        assert!(refusal.is_permanent(), "what is wrong with a header section does not get better");
        return;
    }
    let mut parts = Vec::new();
    prepared.parts(&content, &mut parts);
    compare(&content, &parts.concat(), &prepared);
}

fn compare(content: &[u8], made: &[u8], prepared: &Prepared) {
    let (before, body) = split(content);
    let (after, same_body) = split(made);
    assert_eq!(body, same_body, "the body stays as it is");
    assert_eq!(prepared.header_size() as usize, after.iter().map(|field| field.len()).sum::<usize>());
    assert!(after[0].starts_with(b"Received: by mta.test "), "ours stands first");
    let kept: Vec<&[u8]> = before.iter().copied().filter(|field| !is_removed(&name(field))).collect();
    let ours = after.len() - kept.len();
    assert_eq!(after[ours..], kept[..], "the others stay as they are, in their order");
    let missing = ["date", "message-id"].iter().filter(|wanted| !kept.iter().any(|field| name(field) == **wanted));
    assert_eq!(ours, 1 + missing.count(), "only what is missing is added");
    for once in ["from", "date", "message-id"] {
        assert_eq!(after.iter().filter(|field| name(field) == once).count(), 1, "{once} stands once");
    }
    assert!(kept.iter().filter(|field| name(field) == "received").count() <= MAX_HOPS as usize);
    assert!(
        !prepared.author_domain().is_empty()
            && !prepared.author_domain().contains(|c: char| c.is_control() || c == '@')
    );
    assert!(
        prepared
            .pool()
            .is_none_or(|pool| !pool.contains('\n') || before.iter().any(|field| name(field) == "x-mailrail-pool"))
    );
    for field in after {
        assert!(field.split(|b| *b == b'\n').all(|line| line.len() <= 999), "no line is longer than 998 octets");
    }
}

fn is_removed(name: &str) -> bool {
    name.starts_with("x-ses-")
        || name.starts_with("x-mailrail-")
        || ["bcc", "resent-bcc", "return-path"].contains(&name)
}

fn name(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|b| *b == b':').next().unwrap_or_default()).to_ascii_lowercase()
}

/// Fields with their line ends, and all from the empty line on.
fn split(content: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut fields, mut start, mut at): (Vec<&[u8]>, _, _) = (Vec::new(), 0, 0);
    while at < content.len() && !content[at..].starts_with(b"\r\n") {
        if at > start && !matches!(content[at], b' ' | b'\t') {
            fields.push(&content[start..at]);
            start = at;
        }
        let line = content[at..].windows(2).position(|two| two == b"\r\n");
        at = line.map_or(content.len(), |length| at + length + 2);
    }
    if at > start {
        fields.push(&content[start..at]);
    }
    (fields, &content[at..])
}

fn as_accepted(data: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(data.len());
    for byte in data.iter().filter(|byte| !matches!(byte, b'\r' | 0)) {
        if *byte == b'\n' {
            content.push(b'\r');
        }
        content.push(*byte);
    }
    content
}
