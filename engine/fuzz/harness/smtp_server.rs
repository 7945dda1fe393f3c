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
}

fn session(input: &[u8], size: usize) -> Seen {
    let policy = ServerPolicy { max_size: MAX_SIZE, smtputf8: true, ..ServerPolicy::default() };
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
