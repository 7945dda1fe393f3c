//! DKIM's relaxed canonicalization of any header field and body, against RFC 6376 section 3.4 word by word.

use crate::sign::canonical::{BodyHash, header};
use aws_lc_rs::digest::{SHA256, digest};

/// The first octet: how long the pieces of the body are. The rest is taken as a body, and as the value of a field.
pub fn run(data: &[u8]) {
    let Some((&size, rest)) = data.split_first() else { return };
    let mut content = Vec::with_capacity(rest.len());
    for byte in rest.iter().filter(|byte| **byte != b'\r') {
        if *byte == b'\n' {
            content.push(b'\r');
        }
        content.push(*byte);
    }
    let mut hash = BodyHash::new();
    content.chunks(usize::from(size) + 1).for_each(|piece| hash.write(piece));
    assert_eq!(hash.finish().as_ref(), digest(&SHA256, &body(&content)).as_ref());
    let mut out = Vec::new();
    header(b"X-Name", &content, &mut out);
    assert_eq!(out, field(&content));
}

/// Section 3.4.4.
fn body(content: &[u8]) -> Vec<u8> {
    let plain = latin(content);
    let mut lines: Vec<String> =
        plain.split("\r\n").map(|line| reduce(line).trim_end_matches(' ').to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.iter().flat_map(|line| line.chars().map(|c| c as u8).chain(*b"\r\n")).collect()
}

/// Section 3.4.2.
fn field(value: &[u8]) -> Vec<u8> {
    let unfolded: String = latin(value).replace("\r\n", " ");
    let line = format!("x-name:{}", reduce(&unfolded).trim_matches(' '));
    line.chars().map(|c| c as u8).collect()
}

/// Each run of blanks is one space.
fn reduce(line: &str) -> String {
    let mut made = String::new();
    for c in line.chars() {
        match c {
            ' ' | '\t' if made.ends_with(' ') => {}
            '\t' => made.push(' '),
            other => made.push(other),
        }
    }
    made
}

/// One character an octet.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
