//! Any input to a server session, in any split: what must hold. Shared by the fuzz target and the replay test.

use mailrail_engine::smtp::server::{Close, FinalReply, Server, ServerPolicy, Step};
use std::sync::Arc;

const MAX_SIZE: u64 = 100_000;

/// What a session made of its input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: Vec<u8>,
    messages: Vec<(String, Vec<u8>)>,
    close: Option<Close>,
}

/// The first octet is the size of the pieces in which the rest arrives.
pub(crate) fn run(data: &[u8]) {
    let Some((&size, input)) = data.split_first() else { return };
    let pieces = session(input, usize::from(size).max(1));
    let whole = session(input, 4096);
    assert_eq!(pieces, whole, "the split of the input must not matter");
    assert_eq!(whole.messages.iter().map(|(_, content)| content.clone()).collect::<Vec<_>>(), by_hand(input, &whole));
}

/// Where messages begin and end, found by a plain reader: it takes the input line by line and one reply for each, and
/// believes the replies only in what was accepted.
fn by_hand(mut input: &[u8], seen: &Seen) -> Vec<Vec<u8>> {
    let (mut messages, mut chunks) = (Vec::new(), Vec::new());
    let mut replies = replies(&seen.replies).into_iter();
    while let Some(reply) = replies.next() {
        let Some((line, rest)) = cut(input, b"\r\n") else {
            assert!(matches!(reply, 500 | 421), "{reply} to a line without an end");
            break;
        };
        input = rest;
        let words: Vec<String> =
            line.split(|b| *b == b' ').map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).collect();
        match (words[0].as_str(), reply) {
            ("DATA", 354) => {
                // The empty content has its dot at once. What was not ended, or too much to read on, made no message.
                let whole = [b"\r\n", input].concat();
                let Some((content, rest)) = cut(&whole, b"\r\n.\r\n") else { break };
                input = &input[input.len() - rest.len()..];
                match replies.next() {
                    Some(250) => messages.push(unstuffed(content)),
                    Some(_) => {}
                    None => break,
                }
            }
            ("BDAT", _) => {
                let Some(size) = words.get(1).and_then(|size| size.parse::<usize>().ok()) else { break };
                let Some((chunk, rest)) = input.split_at_checked(size) else { break };
                input = rest;
                chunks.extend_from_slice(chunk);
                if reply != 250 {
                    chunks.clear();
                } else if words.get(2).is_some_and(|last| last == "LAST") {
                    messages.push(std::mem::take(&mut chunks));
                }
            }
            ("RSET" | "EHLO" | "HELO", 250) => chunks.clear(),
            _ => {}
        }
    }
    messages
}

/// Content after DATA, given with a CRLF in front and without the one at its end.
fn unstuffed(content: &[u8]) -> Vec<u8> {
    let (mut lines, mut rest) = (Vec::new(), content);
    while let Some((line, after)) = cut(rest, b"\r\n") {
        lines.push(line);
        rest = after;
    }
    lines.push(rest);
    // What stands before the CRLF in front is no line.
    lines.iter().skip(1).flat_map(|line| [line.strip_prefix(b".").unwrap_or(line), b"\r\n"].concat()).collect()
}

/// The codes of all replies; several lines of one count once.
fn replies(text: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(text);
    let last = text.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-'));
    last.map(|line| line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)).collect()
}

/// What stands before and behind the first `mark`.
fn cut<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

fn session(input: &[u8], size: usize) -> Seen {
    let policy =
        ServerPolicy { max_size: MAX_SIZE, smtputf8: true, auth: true, auth_in_clear: true, ..ServerPolicy::default() };
    let mut server = Server::new(Arc::new(policy), false);
    let (mut seen, mut content, mut pieces) = (Seen::default(), Vec::new(), input.chunks(size));
    loop {
        let step = server.step();
        if !matches!(step, Step::Discard | Step::Message | Step::ContentFull) {
            seen.replies.append(server.out());
        }
        match step {
            Step::Flush => {}
            Step::Read => {
                let Some(piece) = pieces.next() else { break };
                server.space()[..piece.len()].copy_from_slice(piece);
                server.filled(piece.len());
            }
            Step::ContentFull => {
                content.extend_from_slice(server.content());
                server.content_taken();
            }
            Step::Discard => content.clear(),
            Step::Message => {
                content.extend_from_slice(server.content());
                let envelope = server.envelope();
                let mut addresses = envelope.sender.clone();
                envelope.recipients.iter().for_each(|to| addresses.push_str(&to.address));
                check(&addresses, &content);
                seen.messages.push((addresses, std::mem::take(&mut content)));
                server.finish(FinalReply::Accepted { id: "id" });
            }
            Step::Authenticate => {
                let right = server.credentials().is_some_and(|(user, _)| user.len() % 2 == 0);
                server.authenticated(right);
            }
            Step::StartTls => unreachable!("not offered"),
            Step::Close(why) => {
                seen.close = Some(why);
                break;
            }
        }
    }
    assert!(lone(&seen.replies).is_none(), "a reply line has a lone CR or LF");
    seen
}

fn check(addresses: &str, content: &[u8]) {
    assert!(!addresses.chars().any(char::is_control));
    assert!(content.len() as u64 <= MAX_SIZE);
    assert!(lone(content).is_none(), "a lone CR or LF was passed on");
    assert!(!content.contains(&0));
}

/// Where a CR or LF stands that is no part of CRLF.
fn lone(text: &[u8]) -> Option<usize> {
    (0..text.len()).find(|&at| match text[at] {
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || text[at - 1] != b'\r',
        _ => false,
    })
}
